"""Checked by mypy and pyright, never run: what the public face promises to a user's type checker."""

from __future__ import annotations

from typing import assert_type

from rarebit import And, Collection, Compare, Explanation, Hit, Row
from rarebit.arrays import Vectors
from rarebit.compressors.vectors import Codec, RaBitQ, load_codec


def collection_types(vectors: list[list[float]]) -> None:
    with Collection.open("docs.rarebit", metric="cosine") as collection:
        assert_type(collection.add(vectors, texts=["a"], metadatas=[{"a": 1}], ids=["1"]), list[str])
        assert_type(collection.search([1.0, 2.0], k=3, filter=And(Compare("a", "eq", 1))), list[Hit])
        assert_type(collection.search_many([[1.0, 2.0]]), list[list[Hit]])
        assert_type(collection.get(["1"]), list[Row])
        assert_type(collection.vectors(["1"]), Vectors)
        assert_type(collection.delete(["1"]), int)
        assert_type(collection.stats().memory_per_vector, float)
        assert_type(collection.search([1.0]), list[Hit])
        assert_type(collection.search([1.0], explain=True), Explanation)


def codec_types(vectors: list[list[float]]) -> None:
    codec = RaBitQ(seed=1).fit(vectors)
    assert_type(codec, RaBitQ)
    assert_type(codec.decode(codec.encode(vectors)), Vectors)
    assert_type(load_codec("folder"), Codec)


def wrong_uses_are_found(collection: Collection) -> None:
    collection.search([1.0], k="3")  # type: ignore[call-overload]  # pyright: ignore
    Compare("a", "equals", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Collection.open(metric="l2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
