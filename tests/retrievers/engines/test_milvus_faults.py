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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

import grpc
from pymilvus import DataType, MilvusClient, MilvusException
from support.milvus import connected, dropped
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
from rarebit.retrievers.engines.milvus import steps as steps_
from rarebit.retrievers.engines.milvus.connections import Connections
from rarebit.retrievers.engines.milvus.retraining import Copy
from rarebit.retrievers.engines.milvus.rows import Rows

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


def client_of(collection: Any) -> MilvusClient:
    return collection._engine._connections._connected()


def rows_there(collection: Any) -> list[str]:
    engine = collection._engine
    return [name for name in engine._connections.call("list_collections") if engine._names.is_rows(name)]


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
        plain = client_of(milvus_collection).query

        def limited(*given: Any, **named: Any) -> Any:
            found = plain(*given, **named)
            if "text" in named["output_fields"] and len(found) > 7:
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

    @pytest.mark.parametrize("description", [json.dumps({"format": 99}), "somebody else's", ""])
    def test_another_format(self, milvus: str, milvus_collection: Any, description: str) -> None:
        engine = milvus_collection._engine
        schema = MilvusClient.create_schema(auto_id=False, description=description)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=8)
        schema.add_field("unused", DataType.BINARY_VECTOR, dim=8)
        engine._connections.create(engine._names.step(engine._steps.seen.number + 1), schema)
        with pytest.raises(FormatVersionError, match="wanted 1"):
            Collection.connect(milvus, engine.name)


@pytest.fixture
def trainable(milvus: str) -> Iterator[Any]:
    """Give 450 rows that the next training learns from."""
    with connected(milvus, training_minimum=400) as collection:
        collection.add(VECTORS[:450], ids=IDS[:450])
        yield collection


class TestTrainings:
    """The interleavings that the module of steps tells of."""

    def test_writes_while_rows_are_copied_are_taken_over(
        self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain, calls = Copy.__call__, []
        with Collection.connect(milvus, trainable._engine.name) as other:

            def copy(self: Copy, source: Rows, target: Rows) -> None:
                plain(self, source, target)
                calls.append(source)
                if len(calls) == 1:
                    other.add(VECTORS[450:460], ids=IDS[450:460])
                    other.add(VECTORS[470:471], ids=["3"])
                    other.delete(["5", "455"])

            monkeypatch.setattr(Copy, "__call__", copy)
            trainable.train()
            assert len(calls) == 2
            for each in (trainable, other):
                assert {row.id for row in each} == set(IDS[:460]) - {"5", "455"}
                assert each.search(VECTORS[470], 1)[0].id == "3"
                assert np.abs(each.vectors(["3", "4"]) - VECTORS[[470, 4]]).max() < 0.01
        assert len(rows_there(trainable)) == 1

    def test_who_writes_while_rows_are_compared_waits(
        self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain, calls, threads = Copy.__call__, [], []
        with Collection.connect(milvus, trainable._engine.name) as other:

            def copy(self: Copy, source: Rows, target: Rows) -> None:
                calls.append(source)
                if len(calls) == 2:
                    threads.append(threading.Thread(target=lambda: other.add(VECTORS[450:451], ids=["late"])))
                    threads[0].start()
                    threads[0].join(0.5)
                    assert threads[0].is_alive()
                    assert other.search(VECTORS[7], 1)[0].id == "7"  # readers go on
                plain(self, source, target)

            monkeypatch.setattr(Copy, "__call__", copy)
            trainable.train()
            threads[0].join()
            assert trainable.search(VECTORS[450], 1)[0].id == "late"
            assert trainable.count() == 451

    def test_a_write_that_came_too_late_is_made_again(
        self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The writer has looked before, and writes after the rows were compared for the last time."""
        with Collection.connect(milvus, trainable._engine.name) as other:
            old = other._engine._steps.seen
            take = trainable._engine._steps.take

            def take_last(step: Any) -> bool:
                if step.is_open:
                    monkeypatch.setattr(other._engine._steps, "open", lambda: (monkeypatch.undo(), old)[1])
                    thread.start()
                    while (
                        trainable._engine._connections.call("query", old.rows, filter='id == "late"', output_fields=["id"])
                        == []
                    ):
                        pass
                return take(step)

            thread = threading.Thread(target=lambda: other.add(VECTORS[450:451], ids=["late"]))
            monkeypatch.setattr(trainable._engine._steps, "take", take_last)
            trainable.train()
            thread.join()
            assert other._engine._steps.seen.rows != old.rows
            assert trainable.search(VECTORS[450], 1)[0].id == "late"
            assert trainable.count() == 451

    def test_of_two_at_once_one_is_done(self, milvus: str, trainable: Any) -> None:
        failures: list[BaseException] = []
        before = trainable._engine._steps.seen.number

        def train() -> None:
            try:
                with Collection.connect(milvus, trainable._engine.name) as own:
                    own.train()
            except BaseException as error:  # noqa: BLE001 -- told below
                failures.append(error)

        threads = [threading.Thread(target=train) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert trainable._engine._steps.look().number in {before + 2, before + 4}
        assert len(rows_there(trainable)) == 1
        assert trainable.count() == 450
        assert np.abs(trainable.vectors(IDS[:450]) - VECTORS[:450]).max() < 0.01

    def test_one_that_breaks_changes_nothing(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        generation = trainable._engine.kept().generation
        for broken in (1, 2):
            calls: list[int] = []

            def copy(self: Copy, source: Rows, target: Rows, calls: list[int] = calls, broken: int = broken) -> None:
                calls.append(1)
                if len(calls) == broken:
                    raise EngineError("the disk is gone")

            monkeypatch.setattr(Copy, "__call__", copy)
            with pytest.raises(EngineError, match="the disk is gone"):
                trainable.train()
            monkeypatch.undo()
            assert trainable._engine.kept(fresh=True).generation == generation
            assert trainable.search(VECTORS[7], 1)[0].id == "7"
            trainable.add(VECTORS[7:8], ids=["7"])
            assert len(rows_there(trainable)) == 1

    def test_one_that_died_is_forgotten(self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = trainable._engine
        engine._new_rows(8, 0)
        step = engine._steps.seen
        assert engine._steps.take(replace(step, number=step.number + 1, is_open=False))
        with Collection.connect(milvus, engine.name, timeout=0.5) as other:
            assert other.search(VECTORS[7], 1)[0].id == "7"
            with pytest.raises(LockedError, match="being trained"):
                other.add(VECTORS[450:451], ids=["a"])
            monkeypatch.setattr(steps_, "PATIENCE", 0.1)
            other.add(VECTORS[450:451], ids=["a"])
        assert trainable.count() == 451
        assert len(rows_there(trainable)) == 2
        engine._learned.write(77, engine.kept())
        trainable.train()
        assert len(rows_there(trainable)) == 1
        assert engine._learned.generations() == [engine.kept().generation]
        assert trainable.count() == 451

    def test_one_that_was_only_slow_is_refused(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        plain, calls = Copy.__call__, []
        engine = trainable._engine
        generation = engine.kept().generation

        def copy(self: Copy, source: Rows, target: Rows) -> None:
            plain(self, source, target)
            calls.append(1)
            if len(calls) == 2:  # somebody has lost patience
                step = engine._steps.seen
                assert engine._steps.take(replace(step, number=step.number + 1, is_open=True))

        monkeypatch.setattr(Copy, "__call__", copy)
        with pytest.raises(LockedError, match="train it again"):
            trainable.train()
        assert engine.kept(fresh=True).generation == generation
        assert len(rows_there(trainable)) == 1
        assert engine._learned.generations() == [generation]
        assert trainable.search(VECTORS[7], 1)[0].id == "7"
