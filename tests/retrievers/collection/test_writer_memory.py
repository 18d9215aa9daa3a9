"""What a write takes in memory does not grow with what it is given."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rarebit import Collection

DIM = 512


def peak_of_adding(folder: Path, count: int) -> int:
    """Give the bytes that adding takes at most, of vectors that lie in a file."""
    path = folder / f"{count}.npy"
    np.save(path, np.random.default_rng(0).standard_normal((count, DIM), dtype=np.float32))
    vectors = np.load(path, mmap_mode="r")
    ids = [str(number) for number in range(count)]
    with Collection.open(folder / f"{count}.rarebit", codec="sq8", training_minimum=10**6) as collection:
        tracemalloc.start()
        try:
            collection.add(vectors, ids=ids, batch_size=256)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.unchecked
def test_four_times_the_vectors_take_no_more_memory(tmp_path: Path) -> None:
    few, many = peak_of_adding(tmp_path, 2000), peak_of_adding(tmp_path, 8000)
    of_vectors = 6000 * 4 * DIM
    assert many - few < 0.1 * of_vectors
