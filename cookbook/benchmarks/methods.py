"""What the index benchmark compares: the rows, the files that are filled with them, and every way to search them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import faiss
import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64

from rarebit import Collection
from rarebit.arrays import RowIds, Vector, Vectors
from rarebit.cookbook.benchmarks.embedded import Passage

K = 10
TIE = 1e-6
BUCKETS = 1000
QUERY_BITS = 8
REFINED = 30
"""Candidates for each hit of the refined faiss control: 300 in all, as many as Rarebit re-ranks."""

FLAT = "faiss IndexFlatIP"
RAREBIT = "rarebit"
LLAMA_INDEX = "rarebit via LlamaIndex"

Places: TypeAlias = Int64[npt.NDArray[np.int64], "k"]
Cosines: TypeAlias = Float64[npt.NDArray[np.float64], "k"]
Answer: TypeAlias = tuple[Places, Cosines]


class Data:
    """What is stored and what is asked."""

    def __init__(self, passages: Sequence[Passage], vectors: Vectors, rows: int) -> None:
        """Split passages into stored rows and queries."""
        self.passages = passages[:rows]
        self.vectors: Vectors = vectors[:rows]
        self.queries: Vectors = vectors[rows:]
        self.place_of = {passage.id: place for place, passage in enumerate(self.passages)}
        self.buckets = np.random.default_rng(0).integers(BUCKETS, size=rows)

    @cached_property
    def metadatas(self) -> list[dict[str, Any]]:
        """Each record's own metadata, its title, and the bucket."""
        pairs = zip(self.passages, self.buckets.tolist(), strict=True)
        return [{**passage.metadata, "title": passage.title, "bucket": bucket} for passage, bucket in pairs]

    def recall(self, query: Vector, found: Places, among: RowIds | None = None) -> float:
        """Give the share of the best K rows, of all or of some, that were found."""
        cosines = self.vectors @ query if among is None else self.vectors[among] @ query
        wanted = min(K, len(cosines))
        least = np.partition(cosines, -wanted)[-wanted] - TIE
        valid = np.unique(found if among is None else np.intersect1d(found, among))
        return int(np.count_nonzero(self.vectors[valid] @ query >= least)) / wanted

    def score_errors(self, query: Vector, answer: Answer) -> Cosines:
        """Give the distance of each score from the true cosine."""
        places, scores = answer
        return np.abs(self.vectors[places].astype(np.float64) @ query.astype(np.float64) - scores)


@dataclass(frozen=True)
class Method:
    """A way to search: ``ask`` is timed, ``read`` turns what it gave into places of rows and scores."""

    name: str
    setting: str
    ask: Callable[[Any], Any]
    read: Callable[[Any], Answer]
    memory_per_vector: float
    takes_list: bool = False


def faiss_methods(data: Data) -> list[Method]:
    """Build the exact baseline and the faiss controls."""
    dim = data.vectors.shape[1]
    library: Any = faiss
    flat = library.IndexFlatIP(dim)
    rabitq = library.IndexPreTransform(library.RandomRotationMatrix(dim, dim), _rabitq(dim))
    base = library.IndexPreTransform(library.RandomRotationMatrix(dim, dim), _rabitq(dim))
    fine = library.IndexScalarQuantizer(dim, library.ScalarQuantizer.QT_8bit, library.METRIC_INNER_PRODUCT)
    refined = library.IndexRefine(base, fine)
    refined.k_factor = REFINED
    settings = {
        FLAT: (flat, "exact"),
        "faiss IndexRaBitQ": (rabitq, f"rotated, qb={QUERY_BITS}"),
        "faiss RaBitQ + SQ8 refine": (refined, f"in memory, k_factor={REFINED}"),
    }
    for index, _ in settings.values():
        index.train(data.vectors)
        index.add(data.vectors)
    return [_faiss_method(name, setting, index) for name, (index, setting) in settings.items()]


def _rabitq(dim: int) -> Any:
    index = faiss.IndexRaBitQ(dim, faiss.METRIC_INNER_PRODUCT)
    index.qb = QUERY_BITS
    return index


def _faiss_method(name: str, setting: str, index: Any) -> Method:
    def read(raw: Any) -> Answer:
        scores, places = raw
        found = places[0] >= 0
        return places[0][found], scores[0][found].astype(np.float64)

    size = len(faiss.serialize_index(index)) / index.ntotal
    return Method(name, setting, lambda query: index.search(query[np.newaxis], K), read, size)


@dataclass(frozen=True)
class Stored:
    """A collection that was filled: its file, and the rows a second of all calls together, and of the median one."""

    path: Path
    rows_per_second: float
    sustained: float


CALL = 10_000
"""Rows added in a call."""

VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    RAREBIT: ("default", {}),
    "rarebit, codes alone": ("fine='none'", {"fine": "none"}),
    "rarebit, finer": ("fine='float16'", {"fine": "float16"}),
    "rarebit, half the memory": ("codec='trellis24'", {"codec": "trellis24"}),
    "rarebit, exact": ("codec='float32'", {"codec": "float32"}),
}


def fill(folder: Path, data: Data) -> dict[str, Stored]:
    """Fill one file for each variant of the collection, and one through LlamaIndex, whose rows also keep the node."""
    files = {}
    ids, texts = [passage.id for passage in data.passages], [passage.text for passage in data.passages]
    for name, (_, settings) in VARIANTS.items():
        path = folder / f"{name}.rarebit"
        with Collection.open(path, **settings) as collection:  # type: ignore[arg-type]

            def add(part: slice, collection: Collection = collection) -> None:
                collection.add(data.vectors[part], texts=texts[part], metadatas=data.metadatas[part], ids=ids[part])

            files[name] = _filled(path, add, len(ids))
    files[LLAMA_INDEX] = _fill_llama_index(folder / "llama-index.rarebit", data)
    return files


def _fill_llama_index(path: Path, data: Data) -> Stored:
    from llama_index.core.schema import TextNode

    from rarebit.integrations.llama_index import RarebitVectorStore

    rows = zip(data.passages, data.metadatas, data.vectors.tolist(), strict=True)
    nodes = [
        TextNode(id_=passage.id, text=passage.text, metadata=metadata, embedding=vector) for passage, metadata, vector in rows
    ]
    store = RarebitVectorStore(path)
    stored = _filled(path, lambda part: store.add(nodes[part]), len(nodes))
    store.client.close()
    return stored


def _filled(path: Path, add: Callable[[slice], Any], rows: int) -> Stored:
    """Add rows in calls of equal size, but for the last."""
    parts = [slice(start, min(start + CALL, rows)) for start in range(0, rows, CALL)]
    seconds = [timed(partial(add, part))[1] for part in parts]
    per_second = [(part.stop - part.start) / taken for part, taken in zip(parts, seconds, strict=True)]
    return Stored(path, rows / sum(seconds), float(np.median(per_second)))


def rarebit_methods(files: dict[str, Stored], data: Data, stack: ExitStack) -> dict[Method, Collection]:
    """Open every way through Rarebit, each with a collection object of its own."""

    def read(hits: Any) -> Answer:
        return answer_of(data, [hit.id for hit in hits], [hit.score for hit in hits])

    opened = {}
    for name, (setting, _) in VARIANTS.items():
        collection = stack.enter_context(Collection.open(files[name].path, create=False))
        method = Method(name, setting, partial(collection.search, k=K), read, _memory(collection, data))
        opened[method] = collection
    for make, path in ((_through_langchain, files[RAREBIT].path), (_through_llama_index, files[LLAMA_INDEX].path)):
        collection = stack.enter_context(Collection.open(path, create=False))
        opened[make(collection, data)] = collection
    return opened


def _through_langchain(collection: Collection, data: Data) -> Method:
    from langchain_core.embeddings import FakeEmbeddings

    from rarebit.integrations.langchain import RarebitVectorStore

    store = RarebitVectorStore(FakeEmbeddings(size=data.vectors.shape[1]), collection=collection)  # embeds nothing here

    def read(scored: Any) -> Answer:
        return answer_of(data, [document.id for document, _ in scored], [score for _, score in scored])

    ask = partial(store.similarity_search_with_score_by_vector, k=K)
    return Method("rarebit via LangChain", "default", ask, read, _memory(collection, data), takes_list=True)


def _through_llama_index(collection: Collection, data: Data) -> Method:
    from llama_index.core.vector_stores import VectorStoreQuery

    from rarebit.integrations.llama_index import RarebitVectorStore

    store = RarebitVectorStore(collection=collection)

    def ask(query: list[float]) -> Any:
        return store.query(VectorStoreQuery(query_embedding=query, similarity_top_k=K))

    def read(result: Any) -> Answer:
        return answer_of(data, result.ids, result.similarities)

    return Method(LLAMA_INDEX, "default", ask, read, _memory(collection, data), takes_list=True)


def answer_of(data: Data, ids: Sequence[Any], scores: Sequence[float]) -> Answer:
    """Turn ids and scores into places of rows and scores."""
    return np.array([data.place_of[key] for key in ids], dtype=np.int64), np.array(scores, dtype=np.float64)


def _memory(collection: Collection, data: Data) -> float:
    """Bring the codes into memory by a search, and count."""
    collection.search(data.queries[0], K)
    return collection.stats().memory_per_vector


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Give what a call gives, and the seconds that it took."""
    started = perf_counter()
    result = call()
    return result, perf_counter() - started
