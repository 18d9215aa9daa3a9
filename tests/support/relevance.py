"""What tests of relevance in LangChain share: models that are counted, adapters, stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from rarebit.integrations.langchain import RarebitVectorStore
from rarebit.retrievers.relevance import (
    CosineAdapter,
    FixedCount,
    Isotonic,
    Judge,
    Platt,
    RawScore,
    RelevanceModel,
    ScoreGap,
)

DIM = 16
NEAR = ["east", "east by north", "north-east"]
"""What a new adapter keeps for "east": its relevance is sigmoid(10 score - 5)."""
FAR = ["north", "south", "west"]
NOTHING = "Nothing in the notes is about that."


def ids_of(documents: Any) -> list[str | None]:
    return [document.id for document in documents]


def marks_of(documents: Sequence[Document], key: str = "relevance") -> list[float]:
    return [document.metadata[key] for document in documents]


def curve(score: float) -> float:
    """Give what a new adapter makes of a score."""
    return float(1 / (1 + np.exp(5 - np.logaddexp(0, 10) * score)))


class Counting(Embeddings):
    """Counts what another model is asked for."""

    def __init__(self, inner: Embeddings, model_name: str | None = None) -> None:
        self.inner, self.model_name = inner, model_name
        self.calls: Counter[str] = Counter()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls["documents"] += len(texts)
        return self.inner.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        self.calls["query"] += 1
        return self.inner.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls["documents"] += len(texts)
        return self.inner.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        self.calls["aquery"] += 1
        return self.inner.embed_query(text)


def adapter_with_query(dim: int = DIM, seed: int = 0) -> CosineAdapter:
    """Give an adapter whose curves differ from query to query."""
    made, rng = CosineAdapter(dim, hidden=4), np.random.default_rng(seed)
    arrays = {name: values + 0.3 * rng.standard_normal(values.shape) for name, values in made._arrays.items()}
    return made.with_arrays({**arrays, "evidence_scale": made._arrays["evidence_scale"]})


def random_store(count: int = 120, **keywords: Any) -> RarebitVectorStore:
    store = RarebitVectorStore(Counting(DeterministicFakeEmbedding(size=DIM)), **keywords)
    store.add_texts([f"text {place}" for place in range(count)], ids=[str(place) for place in range(count)])
    return store


CONTROLS: dict[str, tuple[RelevanceModel, list[str]]] = {
    "adapter": (CosineAdapter(2), NEAR),
    "fixed count": (FixedCount(2), NEAR[:2]),
    "fixed count of none": (FixedCount(0), []),
    "raw score": (RawScore(0.5), NEAR),
    "platt": (Platt(20.0, -15.0), NEAR[:2]),
    "isotonic": (Isotonic([-1.0, 0.8, 1.0], [0.0, 0.4, 1.0]), NEAR[:2]),
    "score gap": (ScoreGap(), [*NEAR, "north", "south"]),
    "judge": (Judge(lambda pairs: [5.0 if "north" in text else -5.0 for _, text in pairs]), [*NEAR[1:], "north"]),
    "judge of shares": (Judge(lambda pairs: [float(text in FAR) for _, text in pairs], logits=False), FAR),
    "at least four": (CosineAdapter(2).keeping(least=4), [*NEAR, "north"]),
    "at most one": (CosineAdapter(2).keeping(most=1), NEAR[:1]),
}
