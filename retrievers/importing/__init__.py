"""Coming from elsewhere: vectors that another store holds become rows of a collection, and nothing is embedded again.

Each source is one file: numpy arrays, Parquet, Chroma, and what LlamaIndex persisted as JSON. Stores that are objects of a
framework are known to the adapters, ``RarebitVectorStore.from_store``. Nothing is ever unpickled.
"""

from rarebit.retrievers.importing.chroma import ChromaSource
from rarebit.retrievers.importing.importer import ImportReport, import_into
from rarebit.retrievers.importing.llama_index_json import LlamaIndexSource
from rarebit.retrievers.importing.numpy_arrays import NumpySource
from rarebit.retrievers.importing.opening import source_of
from rarebit.retrievers.importing.parquet import ParquetSource
from rarebit.retrievers.importing.source import Rows, Source

__all__ = [
    "ChromaSource",
    "ImportReport",
    "LlamaIndexSource",
    "NumpySource",
    "ParquetSource",
    "Rows",
    "Source",
    "import_into",
    "source_of",
]
