"""Trainings in Milvus beside those who write, train, or die meanwhile."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

from support.milvus import rows_there
from support.servers import IDS, VECTORS

from rarebit import Collection
from rarebit.errors import (
    EngineError,
    LockedError,
)
from rarebit.retrievers.engines.milvus import steps as steps_
from rarebit.retrievers.engines.milvus.expressions import keys_in
from rarebit.retrievers.engines.milvus.names import key_of
from rarebit.retrievers.engines.milvus.retraining import Copy
from rarebit.retrievers.engines.milvus.rows import Rows


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
                    while not Rows(trainable._engine._connections, old.rows).count(keys_in([key_of("", "late")])):
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
