"""Any sequence of add, upsert, delete, search and reopen behaves as a dictionary does."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rarebit import Collection, Compare

KEYS = st.sampled_from([f"k{number}" for number in range(12)] + ["", "é", "\u0000"])
NUMBERS = st.integers(-4, 4)
VECTORS = st.lists(NUMBERS, min_size=3, max_size=3).map(lambda given: [float(each) + 0.25 for each in given])
VALUES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.lists(NUMBERS, max_size=3))
ROWS = st.dictionaries(
    KEYS, st.tuples(VECTORS, st.text(max_size=20), st.dictionaries(st.sampled_from(["a", "b"]), VALUES)), max_size=6
)


class CollectionIsADictionary(RuleBasedStateMachine):
    """Compares a collection in a file with a dictionary after every step."""

    training_minimum = 1000

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model: dict[str, tuple[list[float], str, dict[str, Any]]] = {}
        self.collection = self.opened()

    def opened(self) -> Collection:
        return Collection.open(self.folder / "c.rarebit", training_minimum=self.training_minimum)

    def teardown(self) -> None:
        self.collection.close()
        shutil.rmtree(self.folder)

    @rule(rows=ROWS)
    def add(self, rows: dict[str, tuple[list[float], str, dict[str, Any]]]) -> None:
        given = list(rows.items())
        self.collection.add(
            [vector for _, (vector, _, _) in given],
            texts=[text for _, (_, text, _) in given],
            metadatas=[metadata for _, (_, _, metadata) in given],
            ids=[key for key, _ in given],
        )
        for key, row in given:  # a replaced row goes to the end, as a new one
            self.model.pop(key, None)
            self.model[key] = row

    @rule(keys=st.lists(KEYS, max_size=4))
    def delete(self, keys: list[str]) -> None:
        wanted = len({key for key in keys if key in self.model})
        assert self.collection.delete(keys) == wanted
        for key in keys:
            self.model.pop(key, None)

    @rule(value=NUMBERS)
    def delete_by_filter(self, value: int) -> None:
        wanted = [
            key for key, (_, _, metadata) in self.model.items() if metadata.get("a") is not None and metadata["a"] == value
        ]
        assert self.collection.delete(filter=Compare("a", "eq", value)) == len(wanted)
        for key in wanted:
            del self.model[key]

    @rule()
    def delete_all(self) -> None:
        assert self.collection.delete_all() == len(self.model)
        self.model.clear()

    @rule()
    def reopen(self) -> None:
        self.collection.close()
        self.collection = self.opened()

    @rule(query=VECTORS, k=st.integers(0, 20))
    @precondition(lambda self: self.model)
    def search(self, query: list[float], k: int) -> None:
        hits = self.collection.search(query, k)
        cosines = {key: cosine(query, vector) for key, (vector, _, _) in self.model.items()}
        assert len(hits) == min(k, len(self.model))
        for hit in hits:
            _, text, metadata = self.model[hit.id]
            assert (hit.text, hit.metadata) == (text, metadata)
            assert abs(hit.score - cosines[hit.id]) < 0.02
        best = sorted(cosines.values(), reverse=True)[: len(hits)]
        assert np.allclose([hit.score for hit in hits], best, atol=0.02)

    @invariant()
    def same_rows(self) -> None:
        assert len(self.collection) == len(self.model)
        assert [(row.id, row.text, row.metadata) for row in self.collection] == [
            (key, text, metadata) for key, (_, text, metadata) in self.model.items()
        ]


class TrainedCollectionIsADictionary(CollectionIsADictionary):
    """The same with a codec trained at the third row, so that searches go through codes and fine vectors."""

    training_minimum = 3


def cosine(one: list[float], other: list[float]) -> float:
    return float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


STEPS = settings(max_examples=40, stateful_step_count=25, suppress_health_check=list(HealthCheck))
TestExact = CollectionIsADictionary.TestCase
TestExact.settings = STEPS
TestTrained = TrainedCollectionIsADictionary.TestCase
TestTrained.settings = STEPS
