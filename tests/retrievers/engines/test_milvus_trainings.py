"""Trainings in Milvus whose answers are lost, that are refused, or that others meet while they end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="Milvus needs the extra milvus")
pytest.importorskip("milvus_lite", reason="Milvus in a file comes from a package")

from pymilvus import MilvusException
from support.milvus import connected, rows_there
from support.servers import IDS, VECTORS

from rarebit import Collection
from rarebit.errors import DamagedFileError, EngineError, EngineUnreachableError, LockedError
from rarebit.retrievers.engines.coding import Coding, Recoder
from rarebit.retrievers.engines.milvus import retraining
from rarebit.retrievers.engines.milvus import steps as steps_
from rarebit.retrievers.engines.milvus.retraining import Copy
from rarebit.retrievers.engines.milvus.rows import Rows


def lose_last_answer(monkeypatch: pytest.MonkeyPatch, collection: Any, error: BaseException, lost: str) -> None:
    """Let the answer to a training's last step be an error; the step itself is taken, or not, or nothing works from then on."""
    client = collection._engine._connections._connected()
    plain, calls = client.create_collection, []

    def create(name: str, **named: Any) -> None:
        if '"open": true' not in named["schema"].description or (calls and lost != "everything after it"):
            return plain(name, **named)
        if not calls and lost != "the step":
            plain(name, **named)
        calls.append(name)
        raise error

    monkeypatch.setattr(client, "create_collection", create)


class TestLostAnswers:
    @pytest.mark.parametrize("lost", ["the answer", "everything after it", "the step"])
    @pytest.mark.parametrize("error", [MilvusException(1, "Retry timeout"), KeyboardInterrupt()])
    def test_rows_that_may_be_in_force_stay(
        self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, lost: str
    ) -> None:
        lose_last_answer(monkeypatch, trainable, error, lost)
        with pytest.raises((EngineUnreachableError, KeyboardInterrupt)):
            trainable.train()
        monkeypatch.undo()
        with Collection.connect(milvus, trainable._engine.name, timeout=5) as other:
            for place, each in enumerate((trainable, other)):
                assert each.search(VECTORS[7], 1)[0].id == "7"
                each.add(VECTORS[450 + place : 451 + place], ids=[IDS[450 + place]])
                assert each.count() == 451 + place
                assert np.abs(each.vectors(IDS[:450]) - VECTORS[:450]).max() < 0.01
        trainable.train()
        assert len(rows_there(trainable)) == 1
        assert trainable._engine._learned.generations() == [trainable._engine.kept().generation]

    @pytest.mark.parametrize("is_taken", [True, False])
    def test_the_answer_to_a_sign_of_life(
        self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch, is_taken: bool
    ) -> None:
        monkeypatch.setattr(retraining, "BEAT", 0.0)
        steps, client = trainable._engine._steps, trainable._engine._connections._connected()
        plain, before = client.create_collection, steps.seen.number

        def create(name: str, **named: Any) -> None:
            if name != trainable._engine._names.step(before + 2):
                return plain(name, **named)
            monkeypatch.undo()
            if is_taken:
                plain(name, **named)
            raise MilvusException(1, "Retry timeout")

        monkeypatch.setattr(client, "create_collection", create)
        with pytest.raises(EngineUnreachableError):
            trainable.train()
        assert steps.look().number == before + 2 + is_taken
        with Collection.connect(milvus, trainable._engine.name, timeout=1) as other:
            assert other._engine._steps.seen.number == steps.seen.number
            other.add(VECTORS[450:451], ids=["a"])
        assert trainable.count() == 451
        assert len(rows_there(trainable)) == 1

    def test_the_first_error_is_told(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        client = trainable._engine._connections._connected()

        def copy(self: Copy, source: Rows, target: Rows) -> None:
            del self, source, target

            def has_collection(*given: Any, **named: Any) -> bool:
                raise MilvusException(1, "Retry timeout")

            monkeypatch.setattr(client, "has_collection", has_collection)
            raise EngineError("the disk is gone")

        monkeypatch.setattr(Copy, "__call__", copy)
        with pytest.raises(EngineError, match="the disk is gone"):
            trainable.train()

    def test_rows_that_are_named_and_not_given(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        plain, calls = Rows.fetched, []

        def without_one(self: Rows, *given: Any, **named: Any) -> Iterator[dict[str, Any]]:
            calls.append(given)
            return iter(list(plain(self, *given, **named))[1:])

        monkeypatch.setattr(Rows, "fetched", without_one)  # what the first copy lacks, the second one asks for
        before = trainable._engine.kept(fresh=True).generation
        with pytest.raises(EngineError, match="rows that it had named"):
            trainable.train()
        assert calls
        monkeypatch.undo()
        assert trainable._engine.kept(fresh=True).generation == before
        assert trainable.count() == len(list(trainable)) == 450
        trainable.train()
        assert trainable.count() == len(list(trainable)) == 450


class TestOthers:
    def test_a_model_that_is_told_meanwhile(self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = trainable._engine
        sample = engine.sample

        def draw(generation: int, most: int) -> Any:
            monkeypatch.undo()  # only once: candidates are measured on a sample, too
            Collection.connect(milvus, engine.name, fingerprint="model").close()
            return sample(generation, most)

        before = engine.kept().generation
        monkeypatch.setattr(engine, "sample", draw)
        trainable.train()
        assert engine.kept().generation != before
        assert trainable.settings.fingerprint.name == "model"
        with Collection.connect(milvus, engine.name) as other:
            assert other.settings.fingerprint.name == "model"

    def test_other_settings_refuse_it(self, trainable: Any) -> None:
        engine = trainable._engine
        kept, number = engine.kept(), engine._steps.seen.number
        other = replace(kept, settings=replace(kept.settings, trained_rows=1))
        assert not engine.retrain(other, other, Recoder(Coding(kept), Coding(kept)))
        assert engine._steps.look().number == number

    def test_one_that_is_due_may_be_refused_silently(self, milvus: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with connected(milvus, training_minimum=40) as collection:
            monkeypatch.setattr(collection._engine, "retrain", lambda *_: False)
            collection.add(VECTORS[:50], ids=IDS[:50])
            assert collection.search(VECTORS[7], 1)[0].id == "7"
            with pytest.raises(LockedError, match="train it again"):
                collection.train()

    def test_one_that_compares_for_long_shows_that_it_lives(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retraining, "BEAT", 0.0)
        steps = trainable._engine._steps
        before, plain, taken = steps.seen.number, steps.take, []
        monkeypatch.setattr(steps, "take", lambda step: (taken.append(step), plain(step))[1])
        trainable.train()
        assert len(taken) > 2
        assert [step.number for step in taken] == list(range(before + 1, before + 1 + len(taken)))
        assert [step.is_open for step in taken] == [False] * (len(taken) - 1) + [True]
        assert trainable.count() == 450
        assert len(rows_there(trainable)) == 1

    def test_one_that_others_gave_up_stops_at_once(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retraining, "BEAT", 0.0)
        plain, calls, ends = Copy.__call__, [], []
        engine = trainable._engine
        generation = engine.kept().generation

        def copy(self: Copy, source: Rows, target: Rows) -> None:
            calls.append(1)
            if len(calls) == 2:  # somebody has lost patience
                step = engine._steps.seen
                assert engine._steps.take(replace(step, number=step.number + 1, is_open=True))
            plain(self, source, target)
            ends.append(1)

        monkeypatch.setattr(Copy, "__call__", copy)
        with pytest.raises(LockedError, match="train it again"):
            trainable.train()
        assert len(ends) == 1
        assert engine.kept(fresh=True).generation == generation
        assert len(rows_there(trainable)) == 1
        trainable.add(VECTORS[450:451], ids=["a"])

    @pytest.mark.parametrize("since", ["long ago", "now"])
    def test_one_that_died_long_ago_is_seen_at_once(
        self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch, since: str
    ) -> None:
        engine = trainable._engine
        step = engine._steps.seen
        closed = replace(step, number=step.number + 1, is_open=False)
        plain = json.loads(closed.written())
        assert plain["since"] == pytest.approx(time.time(), abs=10)
        if since == "long ago":
            written = json.dumps({**plain, "since": plain["since"] - 301})
            monkeypatch.setattr(steps_.Step, "written", lambda _: (monkeypatch.undo(), written)[1])
        assert engine._steps.take(closed)
        with Collection.connect(milvus, engine.name, timeout=0.5) as other:
            if since == "long ago":
                other.add(VECTORS[450:451], ids=["a"])
                assert trainable.count() == 451
                return
            trainable._engine._connections.timeout = 0.5
            for each in (other, trainable):  # who took the step itself goes by when it was taken, too
                with pytest.raises(LockedError, match="timeout=60"):
                    each.add(VECTORS[450:451], ids=["a"])


class TestReaders:
    def test_who_reads_what_is_forgotten_meanwhile_reads_again(
        self, milvus: str, trainable: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Collection.connect(milvus, trainable._engine.name) as other:
            learned = other._engine._learned
            plain, calls = learned._read, []

            def read(generation: int) -> Any:
                calls.append(generation)
                if len(calls) == 1:
                    trainable.train()
                return plain(generation)

            monkeypatch.setattr(learned, "_read", read)
            trainable.train()
            assert other._engine.kept(fresh=True).generation == trainable._engine.kept().generation
            assert len(set(calls)) == 2
            assert other.search(VECTORS[7], 1)[0].id == "7"

    def test_what_is_lost_is_said(self, milvus: str, trainable: Any) -> None:
        engine = trainable._engine
        engine._learned.forget([engine.kept().generation])
        with pytest.raises(DamagedFileError, match="restore a backup"):
            Collection.connect(milvus, engine.name)

    def test_candidates_of_a_training_before(self, trainable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = trainable._engine
        before, measured = engine.kept().generation, engine.kept().candidates
        trainable.train()
        engine.tune(before, measured + 7, 450)
        assert engine._learned.generations() == [engine.kept().generation]
        assert engine.kept().candidates != measured + 7
        plain, after = engine._learned._piece, engine.kept().generation

        def piece(*given: Any) -> Any:
            monkeypatch.undo()
            trainable.train()  # after one has looked, before one writes
            return plain(*given)

        monkeypatch.setattr(engine._learned, "_piece", piece)
        engine.tune(after, measured + 7, 450)
        assert engine._learned.generations() == [engine.kept().generation]
        assert engine.kept().candidates != measured + 7
