"""The store benchmark: exact filters, subjects in processes of their own, what fails is a reason, and a killed run goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.vectors import clustered

from rarebit.cookbook.benchmarks import embedded, store_data, store_gauges, store_plot, store_process, stores
from rarebit.cookbook.benchmarks.embedded import Passage
from rarebit.cookbook.benchmarks.figures import Figure, Subject
from rarebit.cookbook.benchmarks.store_data import KINDS, SHARES, STEPS, Prepared, Where
from rarebit.cookbook.benchmarks.store_process import METRICS, Reason
from rarebit.cookbook.benchmarks.store_report import print_tables
from rarebit.cookbook.benchmarks.store_subjects import SUBJECTS, CannotError, chosen_subjects, load_store
from rarebit.cookbook.benchmarks.store_subjects import Subject as Measured
from rarebit.errors import InputError

COLUMNS = ["benchmark", "collection", "method", "setting", "metric", "value", "low", "high", "n"]
QUERIES = 20
FEW = ("rarebit", "in-memory", "simple")

STORES = '''
"""Stores that go wrong in several ways."""

import os
import signal
import time

from rarebit.cookbook.benchmarks.store_plain import Flat
from rarebit.cookbook.benchmarks.store_subjects import CannotError


class Killed(Flat):
    def search(self, query, where=None, mode=""):
        if where is not None and where.field == "topic" and where.high > 1:  # not yet at the first filter of all
            os.kill(os.getpid(), signal.SIGKILL)
        return super().search(query, where, mode)


class Raising(Flat):
    def add(self, batch):
        raise RuntimeError("the disk is made of cheese")


class Sleeping(Flat):
    def open(self):
        time.sleep(600)


class Slow(Flat):
    def add(self, batch):
        time.sleep(1)
        super().add(batch)


class Unfiltered(Flat):
    def search(self, query, where=None, mode=""):
        if where is not None:
            raise CannotError("it has no filters")
        return super().search(query)
'''


def prepared_rows(folder: Path, rows: int, real: int) -> Prepared:
    """Lay out rows without a model."""
    passages = [
        Passage(f"p{number}", "", f"passage {number}", {"page": number, "tags": ["a"]}) for number in range(real + QUERIES)
    ]
    store_data.prepare_passages(folder, passages, clustered(real + QUERIES, 32), QUERIES)
    return store_data.prepare(folder / str(rows), rows)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_rows(tmp_path_factory.mktemp("rows"), 2000, 1500)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out a small collection, and let an encoder that needs no model embed it."""
    vectors = iter(clustered(5000, 32))
    monkeypatch.setattr(embedded, "load_encoder", lambda: lambda texts: np.stack([next(vectors) for _ in texts]))
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    records = [
        {"_id": f"d{number}", "text": f"a passage of some length, and its number is {number}", "metadata": {"page": number % 9}}
        for number in range(1100)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path / "data"


def arguments(data: Path, *more: str) -> list[str]:
    kept = ["--work", str(data.parent / "work"), "--cache", str(data.parent / "cache"), "--json", str(data.parent / "out.json")]
    small = ["--collections", "tiny", "--rows", "1000", "--queries", "30", "--budget", "0.4"]
    return ["--data", str(data), *small, *kept, *more]


def run(data: Path, *more: str) -> dict[tuple[str, str, str], object]:
    assert stores.main(arguments(data, *more)) == 0
    rows = json.loads((data.parent / "out.json").read_text())
    assert all(list(row) == COLUMNS for row in rows)
    found = {(row["method"], row["setting"], row["metric"]): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


def broken(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """Measure stores that go wrong, which the processes find on their path."""
    (folder / "broken_stores.py").write_text(STORES)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
    flat = chosen_subjects(["flat"], None)[0]
    made = [replace(flat, store=name, method=name, place=f"broken_stores:{name}") for name in names]
    monkeypatch.setattr(stores, "chosen_subjects", lambda *_: made)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("kind", KINDS)
def test_filters_match_exact_shares_and_have_the_sign_of_their_kind(prepared: Prepared, kind: str, share: float) -> None:
    trials = prepared.trials(kind, share)
    assert len(trials) > QUERIES / 2
    assert len({trial.where for trial in trials}) == len(trials), "a filter is used twice"
    for trial in trials:
        matching = prepared.matching(trial.where)
        assert len(matching) == trial.matching == share * len(prepared.vectors)
        scores = prepared.vectors @ prepared.queries[trial.query]
        difference = scores[matching].mean() - np.delete(scores, matching).mean()
        assert kind == "random" or (difference > 0) == (kind == "correlated")
        best = np.sort(scores[matching])[::-1]
        assert trial.least == pytest.approx(best[min(10, len(best)) - 1], abs=1e-6)


def test_correlated_filters_share_no_range_with_the_others(prepared: Prepared) -> None:
    for share in SHARES:
        found = [trial.where for kind in KINDS for trial in prepared.trials(kind, share)]
        assert len(set(found)) == len(found)


def test_correlated_filters_hold_the_best_rows_and_anti_correlated_ones_do_not(prepared: Prepared) -> None:
    overlaps = {kind: np.mean([trial.overlap for trial in prepared.trials(kind, 0.1)]) for kind in KINDS}
    assert overlaps["correlated"] > 0.3 > overlaps["random"] > overlaps["anti-correlated"]


def test_near_topics_have_near_vectors() -> None:
    vectors = clustered(2000, 32)
    topics = store_data.topics(vectors)
    assert np.bincount(topics, minlength=STEPS).tolist() == [2] * STEPS
    in_order = vectors[np.argsort(topics, kind="stable")]
    beside = np.mean([one @ next_ for one, next_ in pairwise(in_order)])
    assert beside > np.mean(vectors[:-1] @ vectors[-1]) + 0.2


def test_rows_beyond_the_real_ones_are_mixed(prepared: Prepared) -> None:
    real, mixed = prepared.vectors[:1500], prepared.vectors[1500:]
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-5)
    assert ((mixed @ real.T).max(axis=1) < 0.9999).all()
    batches = list(prepared.batches())
    assert [text for batch in batches for text in batch.texts][1499:1502] == ["passage 1499", "passage 0", "passage 1"]
    metadatas = [metadata for batch in batches for metadata in batch.metadatas]
    assert set(metadatas[0]) == {"page", "bucket", "topic"}, "the list is not what every store takes"
    ids = [key for batch in batches for key in batch.ids]
    assert [store_data.row_of(key) for key in ids] == list(range(2000))
    assert ids != sorted(ids)


def test_recall_counts_rows_once_and_those_that_match(prepared: Prepared) -> None:
    query = prepared.queries[3]
    order = np.argsort(-(prepared.vectors @ query)).tolist()
    assert prepared.recall(3, order[:10]) == 1
    assert prepared.recall(3, [*order[:5], *order[:5]]) == 0.5
    assert prepared.recall(3, []) == 0
    trial = next(trial for trial in prepared.trials("random", 0.5) if trial.query == 3)
    matching = set(prepared.matching(trial.where).tolist())
    assert prepared.recall_of(trial, [row for row in order if row in matching][:10]) == 1
    assert prepared.recall_of(trial, [row for row in order if row not in matching][:10]) == 0


def test_a_size_that_has_no_exact_shares_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of 1000"):
        store_data.prepare(tmp_path, 1500)


def test_unknown_stores_are_named() -> None:
    with pytest.raises(InputError, match="got cheese, wanted some of chroma"):
        chosen_subjects(["rarebit", "cheese"], None)
    assert len({subject.key for subject in SUBJECTS}) == len({subject.method for subject in SUBJECTS}) == len(SUBJECTS)


@pytest.mark.parametrize("measured", chosen_subjects(["flat", *FEW], None), ids=lambda measured: measured.key)
def test_a_store_finds_the_exact_best(measured: Measured, tmp_path: Path, prepared: Prepared) -> None:
    kind = load_store(measured.place)
    store = kind(tmp_path, prepared, **measured.settings)
    store.create()
    for batch in prepared.batches():
        store.add(batch)
    store.finish()
    if kind.reopens:
        store = kind(tmp_path, prepared, **measured.settings)
        store.open()
    found = [prepared.recall(number, store.rows(store.search(query.tolist()))) for number, query in enumerate(prepared.queries)]
    assert np.mean(found) >= (0.98 if "rarebit" in measured.key else 1)
    query = prepared.queries[0]
    where = Where("bucket", 3, 4)
    store.tell(where)
    assert sorted(store.rows(store.search(query.tolist(), where))) == prepared.matching(where).tolist()
    store.close()


@pytest.mark.slow
def test_the_benchmark_runs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(data, "--stores", ",".join(FEW), "--embedded", "800")
    setting = "1,000 rows, 200 of them mixed"
    ours = ("rarebit via LangChain", "rarebit via LlamaIndex")
    assert {method for method, _, _ in found} == {*ours, "InMemoryVectorStore", "SimpleVectorStore"}
    for method in (*ours, "InMemoryVectorStore", "SimpleVectorStore"):
        assert found[method, setting, "recall@10"] == 1  # too few rows to train: exact
        for metric in ("p50_ms", "ratio_to_flat", "qps_2_threads", "add_per_s"):
            assert found[method, setting, metric] > 0  # type: ignore[operator]
        for kind in KINDS:
            for share in SHARES:
                for metric in ("recall@10", "complete"):
                    assert found[method, f"{setting}, {100 * share:g} % {kind}", metric] == 1
    for method in ours:
        assert found[method, setting, "open_s"] > 0  # type: ignore[operator]
        assert found[method, setting, "disk"] > 32  # type: ignore[operator]
    assert found["InMemoryVectorStore", setting, "open_s"] == "in memory only"
    printed = capsys.readouterr().out
    assert "tiny: 1,000 rows, 200 of them mixed" in printed
    assert "(1) in memory only" in printed
    assert not list((data.parent / "work").rglob("*.store"))


def test_what_fails_is_a_reason_and_the_run_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, tmp_path, "Raising", "Killed", "Unfiltered")
    found = run(data, "--embedded", "1000")
    about = "1,000 rows"
    for part in ("fill", "open", "search", "threads"):
        for metric in METRICS[part]:
            assert found["Raising", about, metric] == "RuntimeError: the disk is made of cheese"
    assert found["Killed", about, "recall@10"] == 1
    assert found["Killed", f"{about}, 1 % random, rows given", "recall@10"] == 1
    killed = "killed by SIGKILL, most likely for want of memory"
    assert found["Killed", f"{about}, 50 % correlated, rows given", "cold_p50_ms"] == killed
    assert found["Unfiltered", about, "recall@10"] == 1
    assert found["Unfiltered", f"{about}, 0.1 % random, rows given", "complete"] == "it has no filters"


@pytest.mark.slow
def test_what_takes_too_long_is_a_reason(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, tmp_path, "Sleeping")
    found = run(data, "--embedded", "1000", "--limit", "5")
    assert found["Sleeping", "1,000 rows", "p50_ms"] == "took more than 5 s"


def test_what_fills_too_slowly_is_given_up(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, tmp_path, "Slow")
    monkeypatch.setattr(store_data, "BATCH", 100)
    monkeypatch.setattr(stores, "_run_process", in_this_process)
    found = run(data, "--embedded", "1000", "--limit", "5")
    why = found["Slow", "1,000 rows", "add_per_s"]
    assert isinstance(why, str)
    assert why.endswith("rows a second, filling would take more than the 5 s allowed")


def in_this_process(plan: stores.Plan, job: store_process.Job, *_: object, **__: object) -> str | None:
    try:
        store_process._do(job)
    except CannotError as error:
        return str(error)
    return None


def test_a_killed_run_goes_on_behind_what_is_finished(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(plan: object, subject: object, about: Subject, folder: Path, out: Path) -> None:
        measured.append(about.method)
        if len(measured) == 2:
            raise KeyboardInterrupt
        out.write_text(json.dumps({**vars(about), "metric": "p50_ms", "value": 1.5, "low": None, "high": None, "n": 3}) + "\n")

    monkeypatch.setattr(stores, "_run_processes", measure)
    few = ("--stores", "flat,rarebit", "--embedded", "1000")
    with pytest.raises(KeyboardInterrupt):
        run(data, *few)
    found = run(data, *few)
    assert measured == ["faiss IndexFlatIP", *["rarebit via LangChain"] * 2, "rarebit via LlamaIndex"]
    assert found["faiss IndexFlatIP", "1,000 rows", "p50_ms"] == 1.5
    assert found["faiss IndexFlatIP", "1,000 rows", "open_s"] == "not measured"
    with pytest.raises(InputError, match="another kind of run"):
        run(data, *few, "--budget", "3")


def test_what_is_not_installed_is_left_out_with_a_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = chosen_subjects(["flat"], None)[0]
    missing = replace(flat, method="cheese", packages=("faiss", "cheese_store", "cheese_store.part"))
    monkeypatch.setattr(stores, "chosen_subjects", lambda *_: [missing])
    assert run(data, "--embedded", "1000") == {}
    assert "left out: cheese: cheese_store, cheese_store.part is not installed" in capsys.readouterr().out


def test_a_process_leaves_what_it_measured_before_it_failed(prepared: Prepared, tmp_path: Path) -> None:
    about = Subject("stores", "c", "m", "s")
    job = store_process.Job(
        "rarebit.cookbook.benchmarks.store_plain:Flat",
        {},
        str(prepared._folder),
        str(tmp_path),
        str(tmp_path / "out.jsonl"),
        vars(about),
        ["fill"],
        budget=0.1,
        limit=60,
    )
    job.save(tmp_path / "job.json")
    subprocess.run([sys.executable, "-m", stores.PROCESS, str(tmp_path / "job.json")], check=True)
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write('{"benchmark": "cut o')
    rows = list(stores._rows_in(tmp_path / "out.jsonl"))
    assert [row.metric for row in rows] == ["add_per_s", "disk"]


def some_rows() -> Iterator[Figure | Reason]:
    about = Subject("stores", "c", "rarebit via LangChain", "1,000 rows")
    for method, memory in (("rarebit via LangChain", 50.0), ("Chroma via LlamaIndex", 3000.0)):
        own = about.of(method)
        for metric, value in (("memory", memory), ("ratio_to_flat", 0.1), ("recall@10", 0.99)):
            yield own.counted(metric, value, 1000)
    yield from store_process.reasons(about.of("Slow via LangChain"), "open", "took more than 8 s")
    yield from store_process.reasons(store_process.setting_of(about, "correlated", 0.01, "a way"), "filters", "it cannot")


def test_reasons_stand_below_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(list(some_rows()), "title", ())
    lines = capsys.readouterr().out.splitlines()
    slow = next(line for line in lines if line.startswith("Slow"))
    assert slow.split()[3:] == ["(1)"] * 4
    assert next(line for line in lines if line.startswith("rarebit via LangChain, a way")).split()[-1] == "(2)"
    assert {"(1) took more than 8 s", "(2) it cannot"} < set(lines)


def test_points_are_methods_that_have_all_three_figures(tmp_path: Path) -> None:
    found = store_plot.points(list(some_rows()))
    assert found == {"1,000 rows": {"rarebit via LangChain": (50.0, 0.1, 0.99), "Chroma via LlamaIndex": (3000.0, 0.1, 0.99)}}
    heights = store_plot._apart({"a": 0.5, "b": 0.5, "c": 0.97, "d": 0.99})
    assert all(after - before > 0.04 for before, after in pairwise(sorted(heights.values())))


def test_two_threads_ask_each_query_once() -> None:
    asked: list[int] = []
    assert store_gauges.asked_by_two(asked.append, 100, 60)[0] == 100
    assert sorted(asked) == list(range(100))
