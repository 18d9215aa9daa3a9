"""What goes wrong with Milvus: servers that are away, slow or refuse, writes that break, trainings that meet others or die."""

from __future__ import annotations

import json
import logging
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

import grpc
from pymilvus import DataType, MilvusClient, MilvusException
from support.milvus import asked_as_server, client_of, connected, dropped
from support.servers import IDS, TEXTS, VECTORS

from rarebit import Collection
from rarebit.errors import (
    AccessError,
    CollectionNotFoundError,
    EngineError,
    EngineLimitError,
    EngineUnreachableError,
    FormatVersionError,
    InputError,
    LockedError,
    RarebitError,
    StorageFullError,
)
from rarebit.retrievers.engines.milvus.connections import Connections

SECRET = "zq-secret"  # noqa: S105 -- it opens nothing


@contextmanager
def answering(answer: Callable[[grpc.ServicerContext], bytes], seen: list[Any] | None = None) -> Iterator[str]:
    """Serve on a port, and answer every call alike."""

    class Every(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
                if seen is not None:
                    seen.append(dict(context.invocation_metadata()).get("authorization"))
                return answer(context)

            return grpc.unary_unary_rpc_method_handler(handle)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    port = server.add_insecure_port("127.0.0.1:0")
    server.add_generic_rpc_handlers((Every(),))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def breaking(monkeypatch: pytest.MonkeyPatch, collection: Any, method: str, error: Exception, after: int = 0) -> None:
    """Let a method of the client fail, after it worked some times."""
    plain, calls = getattr(client_of(collection), method), iter(range(10_000))

    def break_it(*given: Any, **named: Any) -> Any:
        if next(calls) >= after:
            raise error
        return plain(*given, **named)

    monkeypatch.setattr(client_of(collection), method, break_it)


class TestServers:
    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(EngineUnreachableError, match="is it running") as caught:
            Collection.connect(f"milvus://someone:{SECRET}@127.0.0.1:1", timeout=1)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("url", [f"milvus://someone:{SECRET}@", f"milvus://{SECRET}@"])
    def test_one_that_refuses(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        def refuse(context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check api key is correct")
            return b""

        seen: list[Any] = []
        with (
            caplog.at_level(logging.DEBUG),
            answering(refuse, seen) as address,
            pytest.raises(AccessError, match="check the token") as caught,
        ):
            Collection.connect(f"{url}{address}", timeout=1)
        assert any(seen)  # it was told
        assert SECRET not in str(caught.value) + caplog.text

    def test_one_that_does_not_answer(self) -> None:
        released = threading.Event()

        def wait(context: grpc.ServicerContext) -> bytes:
            del context
            released.wait(20)
            return b""

        with answering(wait) as address:
            try:
                with pytest.raises(EngineUnreachableError):
                    Collection.connect(f"milvus://{address}", timeout=1)
            finally:
                released.set()

    def test_one_that_goes_away(self, tmp_path: Path) -> None:
        from milvus_lite.server_manager import server_manager_instance

        path = tmp_path / "away.db"
        with Collection.connect(f"milvus://{path}", timeout=1) as collection:
            collection.add([[1.0, 2.0]], ids=["a"])
            server = server_manager_instance._servers[str(path.resolve())]
            server._p.kill()
            server._p.wait()
            for call in (lambda: collection.search([1.0, 2.0]), lambda: collection.add([[2.0, 1.0]]), collection.count):
                with pytest.raises(EngineUnreachableError):
                    call()
        server_manager_instance.release_server(str(path))
        with Collection.connect(f"milvus://{path}") as again:
            assert again.search([1.0, 2.0], 1)[0].id == "a"
        server_manager_instance.release_server(str(path))

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(LockedError, match="its folder is not there"):
            Collection.connect(f"milvus://{tmp_path}/none/x.db")


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            f"milvus://a:{SECRET}@[broken/x",
            f"milvus://h:99999999/{SECRET}",
            f"milvus://h/x?password={SECRET}",
            "milvus://",
            "milvus:///file.sqlite",
            f"milvus:{SECRET}@h",
        ],
    )
    def test_those_that_mean_nothing(self, url: str) -> None:
        with pytest.raises(InputError) as caught:
            Collection.connect(url)
        assert SECRET not in str(caught.value)

    def test_credentials_are_shown_nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for url in (f"milvus://user:{SECRET}@host:1/db", f"milvuss://{SECRET}@host:1/db"):
            connections = Connections(url, 1.0)
            assert SECRET in connections._address.token
            assert SECRET not in f"{connections.where} {connections!r} {connections._address!r}"
            kept = pickle.dumps(connections)
            assert SECRET.encode() not in kept
            assert b"user" not in kept
            monkeypatch.setenv("MILVUS_TOKEN", "from:outside")
            again = pickle.loads(kept)
            assert again._address.token == os.environ["MILVUS_TOKEN"]
            assert again._address.secure is url.startswith("milvuss")
            monkeypatch.delenv("MILVUS_TOKEN")

    def test_parts(self) -> None:
        address = Connections("milvus://us%40er:p%3Aw@[::1]:5/some?secure=true", 1.0)._address
        assert (address.token, address.host, address.database, address.secure) == ("us@er:p:w", "[::1]:5", "some", True)
        assert Connections("milvus://./x.db", 1.0).file == Path("x.db").absolute()
        assert Connections("milvus://host", 1.0).where == "milvus://host:19530"


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "wanted"),
        [
            (MilvusException(65535, "PrivilegeLoad: permission deny"), AccessError),
            (MilvusException(9, "quota exceeded[reason=disk quota exceeded]"), StorageFullError),
            (MilvusException(2, "Fail connecting to server"), EngineUnreachableError),
            (MilvusException(1, "[query] Retry timeout: 1s"), EngineUnreachableError),
            (MilvusException(1100, "what is this"), EngineError),
        ],
    )
    def test_each_is_one_of_ours(
        self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, wanted: type[RarebitError]
    ) -> None:
        milvus_collection.add([[1.0, 2.0]], ids=["a"])
        breaking(monkeypatch, milvus_collection, "query", error)
        with pytest.raises(wanted) as caught:
            milvus_collection.count()
        assert type(caught.value) is wanted

    def test_expected_ones_are_not_logged(self, milvus: str, caplog: pytest.LogCaptureFixture) -> None:
        with connected(milvus) as collection, Collection.connect(milvus, collection._engine.name) as other:
            collection.add([[1.0, 2.0]], ids=["a"])
            other.add([[1.0, 2.0]], ids=["b"])
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_an_answer_that_is_too_large_is_asked_for_in_parts(
        self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        milvus_collection.add(VECTORS[:100], ids=IDS[:100], texts=TEXTS[:100])
        asked_as_server(monkeypatch)
        plain = client_of(milvus_collection).query

        def limited(*given: Any, **named: Any) -> Any:
            found = plain(*given, **named)
            if "packed" in named["output_fields"] and len(found) > 7:
                raise MilvusException(1100, "grpc: received message larger than max (9 vs. 7)")
            return found

        monkeypatch.setattr(client_of(milvus_collection), "query", limited)
        assert [row.text for row in milvus_collection.iterate()] == TEXTS[:100]
        assert [row.text for row in milvus_collection.get(IDS[:50])] == TEXTS[:50]
        assert milvus_collection.search(VECTORS[5], 1)[0].id == "5"

    def test_a_row_that_the_server_finds_too_large(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        breaking(monkeypatch, milvus_collection, "upsert", MilvusException(1100, "message larger than max"))
        with pytest.raises(EngineLimitError, match="0 are written"):
            milvus_collection.add([[1.0, 2.0]], ids=["a"])


class TestWrites:
    def test_one_that_breaks_says_how_far_it_came(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        vectors = np.random.default_rng(0).standard_normal((3000, 4)).astype(np.float32)
        ids = [f"n{row}" for row in range(3000)]
        breaking(monkeypatch, milvus_collection, "upsert", MilvusException(1, "Retry timeout"), after=2)
        with pytest.raises(EngineUnreachableError, match=r"of 3,000 rows 2,048 are written.*which is safe"):
            milvus_collection.add(vectors, ids=ids)
        monkeypatch.undo()
        assert 2048 <= milvus_collection.count() <= 3000
        milvus_collection.add(vectors, ids=ids)
        assert milvus_collection.count() == 3000
        assert [row.id for row in milvus_collection.iterate()] == ids

    def test_a_deletion_that_breaks_says_how_far_it_came(self, milvus_collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        milvus_collection.add(VECTORS[:1000], ids=IDS[:1000])
        monkeypatch.setattr("rarebit.retrievers.engines.milvus.rows.FETCHED", 300)
        breaking(monkeypatch, milvus_collection, "delete", MilvusException(1, "Retry timeout"), after=2)
        with pytest.raises(EngineUnreachableError, match=r"of 1,000 rows 600 are deleted"):
            milvus_collection.delete_all()
        monkeypatch.undo()
        assert milvus_collection.delete_all() == 400

    def test_a_collection_that_was_dropped(self, milvus: str) -> None:
        with connected(milvus) as collection:
            collection.add([[1.0, 2.0]])
            dropped(collection)
            for call in (lambda: collection.search([1.0, 2.0]), lambda: collection.add([[1.0, 2.0]]), collection.count):
                with pytest.raises(CollectionNotFoundError, match="dropped"):
                    call()

    @pytest.mark.parametrize("description", [json.dumps({"format": 1}), json.dumps({"format": 99}), "somebody else's", ""])
    def test_another_format(self, milvus: str, milvus_collection: Any, description: str) -> None:
        engine = milvus_collection._engine
        schema = MilvusClient.create_schema(auto_id=False, description=description)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=8)
        schema.add_field("unused", DataType.BINARY_VECTOR, dim=8)
        engine._connections.create(engine._names.step(engine._steps.seen.number + 1), schema)
        with pytest.raises(FormatVersionError, match="wanted 2"):
            Collection.connect(milvus, engine.name)
