"""What the store benchmark measures: the table of stores, and what each of them has to do.

A store is one small class in :mod:`.store_langchain`, :mod:`.store_llama_index` or :mod:`.store_plain`. Its process imports
that module alone, so the frameworks of the others take no memory there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from rarebit.cookbook.benchmarks.store_data import Batch, Prepared, Where
from rarebit.errors import InputError

LANGCHAIN, LLAMA_INDEX, PLAIN = "langchain", "llama-index", "plain"
FRAMEWORKS = (LANGCHAIN, LLAMA_INDEX, PLAIN)

_HERE = "rarebit.cookbook.benchmarks"


class CannotError(Exception):
    """A store cannot do what a cell asks for; says why."""


class Store(ABC):
    """A vector store in a folder, used as its adapter wants it. It is filled by one object and read by another.

    Args:
        folder: of its own.
        prepared: the rows; what is given to :meth:`add` comes from them.
        settings: of the subject.
    """

    imports: ClassVar[tuple[str, ...]] = ()
    """Modules that a program has imported before it opens the store."""

    reopens: ClassVar[bool] = True
    """False for what is in memory only: it is measured in the process that filled it."""

    modes: ClassVar[tuple[str, ...]] = ("",)
    """Ways to filter; the first one is what a user has to know about."""

    def __init__(self, folder: Path, prepared: Prepared, **settings: Any) -> None:
        """Remember; :meth:`create` and :meth:`open` do the work."""
        self.folder = folder
        self.dim = prepared.queries.shape[1]
        self.prepared = prepared
        self.settings = settings

    @abstractmethod
    def create(self) -> None:
        """Make an empty store in the folder."""

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Add rows."""

    def finish(self) -> None:  # noqa: B027 -- most have nothing to do
        """Build indexes, write what is not written yet, and close."""

    def open(self) -> None:  # noqa: B027 -- what does not reopen is open
        """Open what was filled."""

    def tell(self, where: Where) -> None:  # noqa: B027 -- a control's
        """Learn which rows match a filter, before the clock runs: nothing to a store that finds them itself."""

    @abstractmethod
    def search(self, query: list[float], where: Where | None = None, mode: str = "") -> Any:
        """Find ten documents with texts and metadata: what is timed.

        Raises:
            CannotError: the store has no such filter.
        """

    @abstractmethod
    def rows(self, found: Any) -> list[int]:
        """Tell which rows :meth:`search` found, best first."""

    def close(self) -> None:  # noqa: B027 -- most have nothing to close
        """Let go of the files."""


@dataclass(frozen=True)
class Subject:
    """A store as it is measured: its name for ``--stores``, its name in the figures, and where its class is."""

    store: str
    framework: str
    method: str
    place: str
    packages: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def key(self) -> str:
        """A name for files."""
        return f"{self.framework}-{self.store}"

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.packages if not _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of a part of what is not there
        return False


def load_store(place: str) -> type[Store]:
    """Import the class of a store, named ``module:Class``."""
    module, _, name = place.partition(":")
    found: type[Store] = getattr(import_module(module), name)
    return found


def _subjects() -> Iterable[Subject]:
    lang, llama, plain = (f"{_HERE}.store_{name}:" for name in ("langchain", "llama_index", "plain"))
    core, community, index = "langchain_core", "langchain_community", "llama_index.core"
    adapters = "llama_index.vector_stores."
    yield Subject("flat", PLAIN, "faiss IndexFlatIP", f"{plain}Flat", ("faiss",), note="row numbers, no documents")
    yield Subject("rarebit", LANGCHAIN, "rarebit via LangChain", f"{lang}Rarebit", (core,))
    yield Subject("faiss", LANGCHAIN, "FAISS flat via LangChain", f"{lang}Faiss", (core, community, "faiss"))
    yield Subject(
        "faiss-hnsw", LANGCHAIN, "FAISS HNSW32 via LangChain", f"{lang}Faiss", (core, community, "faiss"), {"neighbours": 32}
    )
    yield Subject(
        "in-memory",
        LANGCHAIN,
        "InMemoryVectorStore",
        f"{lang}InMemory",
        (core,),
        note="memory is that of the process that fills",
    )
    yield Subject("chroma", LANGCHAIN, "Chroma via LangChain", f"{lang}Chroma", ("langchain_chroma",))
    yield Subject("qdrant", LANGCHAIN, "Qdrant local via LangChain", f"{lang}Qdrant", ("langchain_qdrant",))
    yield Subject("lancedb", LANGCHAIN, "LanceDB flat via LangChain", f"{lang}Lance", (community, "lancedb"))
    yield Subject(
        "lancedb-ivfpq", LANGCHAIN, "LanceDB IVF_PQ via LangChain", f"{lang}Lance", (community, "lancedb"), {"index": True}
    )
    yield Subject("sqlite-vec", LANGCHAIN, "sqlite-vec via LangChain", f"{lang}SqliteVec", (community, "sqlite_vec"))
    yield Subject("turbovec", LANGCHAIN, "turbovec 4 bit via LangChain", f"{lang}Turbovec", (core, "turbovec"))
    yield Subject(
        "qdrant-edge", PLAIN, "Qdrant Edge, own API", f"{plain}QdrantEdge", ("qdrant_edge",), note="it has no adapter; payloads"
    )
    yield Subject("rarebit", LLAMA_INDEX, "rarebit via LlamaIndex", f"{llama}Rarebit", (index,))
    yield Subject(
        "simple",
        LLAMA_INDEX,
        "SimpleVectorStore",
        f"{llama}Simple",
        (index,),
        note="nodes in a SimpleDocumentStore; memory is that of the process that fills",
    )
    yield Subject(
        "faiss",
        LLAMA_INDEX,
        "FAISS flat via LlamaIndex",
        f"{llama}Faiss",
        (index, "faiss", f"{adapters}faiss"),
        note="nodes in a SimpleDocumentStore",
    )
    yield Subject("chroma", LLAMA_INDEX, "Chroma via LlamaIndex", f"{llama}Chroma", (index, f"{adapters}chroma"))
    yield Subject("qdrant", LLAMA_INDEX, "Qdrant local via LlamaIndex", f"{llama}Qdrant", (index, f"{adapters}qdrant"))
    yield Subject("lancedb", LLAMA_INDEX, "LanceDB flat via LlamaIndex", f"{llama}Lance", (index, f"{adapters}lancedb"))
    yield Subject("turbovec", LLAMA_INDEX, "turbovec 4 bit via LlamaIndex", f"{llama}Turbovec", (index, "turbovec"))


SUBJECTS = tuple(_subjects())


def chosen_subjects(stores: Sequence[str] | None, frameworks: Sequence[str] | None) -> list[Subject]:
    """Choose subjects by the names of stores and frameworks; None is all.

    Raises:
        InputError: a name that nothing has.
    """
    for given, known in ((stores, {subject.store for subject in SUBJECTS}), (frameworks, set(FRAMEWORKS))):
        unknown = set(given or ()) - known
        if unknown:
            raise InputError(f"got {', '.join(sorted(unknown))}, wanted some of {', '.join(sorted(known))}")
    return [
        subject
        for subject in SUBJECTS
        if (stores is None or subject.store in stores) and (frameworks is None or subject.framework in frameworks)
    ]
