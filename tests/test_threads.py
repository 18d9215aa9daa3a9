"""BLAS gets its threads back, however many asked for one at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from threadpoolctl import threadpool_info

from rarebit import Collection
from rarebit.threads import one_blas_thread, so_many_threads


def blas_threads() -> list[int]:
    """Give the numbers of threads of the libraries of linear algebra, as this thread sees them."""
    libraries = sorted(threadpool_info(), key=lambda library: str(library["filepath"]))
    return [library["num_threads"] for library in libraries if library["user_api"] == "blas"]


def test_one_thread_inside_and_as_before_after_the_last() -> None:
    before = blas_threads()
    both_inside, both_looked = Barrier(2), Barrier(2)

    def work(first_out: bool) -> list[int]:
        with one_blas_thread():
            both_inside.wait()
            found = blas_threads()
            both_looked.wait()
            if not first_out:
                both_out.wait()
        if first_out:
            both_out.wait()
        return found

    for order in ((True, False), (False, True)):
        both_out = Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(work, order))
        assert [1] * len(before) in found, "in one of them at least, every library"
        assert blas_threads() == before


def test_an_error_gives_them_back() -> None:
    before = blas_threads()
    with pytest.raises(ValueError, match="wrong"), one_blas_thread():
        raise ValueError("wrong")
    assert blas_threads() == before


def test_adding_leaves_them_as_they_were() -> None:
    before = blas_threads()
    with Collection.open() as collection:
        collection.add([[float(n), 1.0] for n in range(50)], batch_size=10)
        assert collection.count() == 50
    assert blas_threads() == before


def test_so_many_threads_inside_and_as_before_after() -> None:
    torch = pytest.importorskip("torch", reason="torch is in the extra models")
    before, torch_before = blas_threads(), torch.get_num_threads()
    for count in (1, 2):
        with so_many_threads(count):
            assert all(found <= count for found in blas_threads())
            assert torch.get_num_threads() == count
        assert (blas_threads(), torch.get_num_threads()) == (before, torch_before)
