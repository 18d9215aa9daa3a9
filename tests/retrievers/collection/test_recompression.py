"""Another code for a collection in use: chosen by measuring, whole or not at all, nothing embedded again."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from support.vectors import clustered, exact_ids

from rarebit import Collection
from rarebit.errors import CodecError, CollectionError, FingerprintError, InputError, ReadOnlyError, SettingsError
from rarebit.retrievers.collection import training
from rarebit.retrievers.collection.checksums import CHECKSUM_BYTES
from rarebit.retrievers.collection.code_index import View
from rarebit.retrievers.collection.recompression import Recompression

COUNT = 3000


def filled(path: Path | None = None, count: int = COUNT, **settings: object) -> tuple[Collection, np.ndarray]:
    vectors = clustered(count)
    collection = Collection.open(path, **settings)  # type: ignore[arg-type]
    collection.add(vectors, ids=[str(number) for number in range(count)], texts=[f"text {number}" for number in range(count)])
    return collection, vectors


def recall(collection: Collection, vectors: np.ndarray, queries: np.ndarray) -> float:
    found = collection.search_many(queries, 10)
    pairs = zip(queries, found, strict=True)
    return float(np.mean([len({hit.id for hit in hits} & set(exact_ids(vectors, query, 10))) / 10 for query, hits in pairs]))


@pytest.mark.parametrize("in_file", [False, True])
def test_another_codec_finds_the_same_rows(tmp_path: Path, in_file: bool) -> None:
    collection, vectors = filled(tmp_path / "c.rarebit" if in_file else None)
    before = {row.id: row.text for row in collection}
    stats = collection.recompress(codec="sq8")
    assert (stats.codec, stats.trained, stats.disk["codes"], stats.disk["fine"]) == (
        "sq8",
        True,
        COUNT * (64 + CHECKSUM_BYTES),
        COUNT * (68 + CHECKSUM_BYTES),
    )
    assert {row.id: row.text for row in collection} == before
    assert recall(collection, vectors, clustered(300, seed=1)) > 0.98
    collection.add(clustered(10, seed=5), ids=[f"new {number}" for number in range(10)])
    assert collection.search(clustered(10, seed=5)[3], 1)[0].id == "new 3"
    collection.close()
    if in_file:
        with Collection.open(tmp_path / "c.rarebit") as again:
            assert again.stats().codec == "sq8"
            assert recall(again, vectors, clustered(300, seed=1)) > 0.98


def test_others_who_have_it_open_follow(tmp_path: Path) -> None:
    collection, vectors = filled(tmp_path / "c.rarebit")
    other = Collection.open(tmp_path / "c.rarebit")
    pinned = Collection.open(tmp_path / "c.rarebit", codec="trellis", read_only=True)
    query = clustered(1, seed=1)[0]
    first = [hit.id for hit in other.search(query, 10)]
    collection.recompress(codec="sq4", fine="float16")
    assert len({hit.id for hit in other.search(query, 10)} & set(exact_ids(vectors, query, 10))) >= 9
    assert len(set(first) & set(exact_ids(vectors, query, 10))) >= 9
    assert (other.stats().codec, other.stats().fine, other.settings.fine) == ("sq4", "float16", "float16")
    assert pinned.stats().codec == "sq4"
    other.add([query], ids=["mine"])
    assert collection.search(query, 1)[0].id == "mine"


def test_fine_tiers_change_too() -> None:
    collection, vectors = filled(fine="float32")
    assert collection.recompress(fine="int4").disk["fine"] == COUNT * (32 + 4 + CHECKSUM_BYTES)
    assert recall(collection, vectors, clustered(30, seed=1)) > 0.8
    assert collection.recompress(codec="trellis4").disk["fine"] == COUNT * (36 + CHECKSUM_BYTES)
    assert collection.recompress(codec="float16").disk["fine"] == 0, "half floats need none"
    assert collection.recompress(codec="trellis").disk["fine"] == COUNT * (68 + CHECKSUM_BYTES)
    assert collection.recompress(fine="none").disk["fine"] == 0
    with pytest.raises(SettingsError, match="keeps no fine tier"):
        collection.recompress(codec="sq8")


def test_a_budget_is_kept_and_what_was_measured_is_told() -> None:
    collection, vectors = filled(memory_per_vector=16)
    stats = collection.stats()
    assert stats.choice is not None
    chosen, measured = stats.choice["chosen"], stats.choice["measured"]
    assert stats.codec == chosen["codec"]
    assert chosen["code_size"] <= 8
    assert stats.disk["codes"] == COUNT * (chosen["code_size"] + CHECKSUM_BYTES)
    assert {trial["codec"] for trial in measured} >= {"trellis8", "variance8", "pq8", "pca8,sq8"}
    assert chosen["recall_of_codes"] == max(trial["recall_of_codes"] for trial in measured)
    again = collection.recompress().choice  # of all rows now, and not of the first thousand
    assert again is not None
    assert abs(recall(collection, vectors, clustered(100, seed=1)) - again["chosen"]["recall"]) < 0.05
    assert stats.as_dict()["choice"]["rows"] == stats.choice["rows"]


def test_a_target_is_reached_with_the_smallest_code() -> None:
    low, _ = filled(target_recall=0.6, fine="none")
    high, vectors = filled(target_recall=0.99)
    high.recompress()
    assert low.stats().disk["codes"] < high.stats().disk["codes"] or low.stats().disk["fine"] == 0
    chosen = high.stats().choice["chosen"]  # type: ignore[index]
    assert chosen["recall"] >= 0.99
    assert recall(high, vectors, clustered(50, seed=1)) > 0.97
    exact, _ = filled(target_recall=1.0, count=1500)
    assert exact.stats().choice["chosen"]["recall"] <= 1.0  # type: ignore[index]
    assert "recall 1.0" in exact.stats().choice["reason"]  # type: ignore[index]


def test_asked_again_it_measures_again(tmp_path: Path) -> None:
    collection, _ = filled(tmp_path / "c.rarebit", memory_per_vector=16)
    with pytest.raises(SettingsError, match="recompress"):
        Collection.open(tmp_path / "c.rarebit", memory_per_vector=28)
    stats = collection.recompress(memory_per_vector=28, queries=clustered(100, seed=1))
    assert stats.choice is not None
    assert stats.choice["queries"] == 100
    assert 8 < stats.choice["chosen"]["code_size"] <= 20
    Collection.open(tmp_path / "c.rarebit", memory_per_vector=28).close()
    assert collection.recompress(codec="variance8").choice is None
    assert collection.settings.memory_per_vector is None


def test_rows_that_come_and_go_meanwhile_are_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    collection, vectors = filled(tmp_path / "c.rarebit")
    monkeypatch.setattr(training, "BATCH_ROWS", 500)
    other = Collection.open(tmp_path / "c.rarebit")
    encoded, turn = training.encoded, iter(range(100))

    def encoded_while_others_write(*arguments: object) -> object:
        number = next(turn)
        with monkeypatch.context() as others:
            others.setattr(training, "encoded", encoded)  # rows on their way in are encoded as well
            other.add(clustered(1, seed=100 + number), ids=[f"new {number}"])
        other.delete([str(number * 3)])
        assert other.search(vectors[1], 1)[0].id == "1", "readers go on"
        return encoded(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(training, "encoded", encoded_while_others_write)
        collection._engine.storage.lock_timeout = 1
        run = Recompression(collection._engine, {"codec": "sq8"}, None, progress=False)
        change_over = run._change_over

        def quietly(*arguments: object) -> None:
            patched.setattr(training, "encoded", encoded)  # nobody else can write inside the last transaction
            change_over(*arguments)  # type: ignore[arg-type]

        patched.setattr(run, "_change_over", quietly)
        run.run()
    done = next(turn)
    assert done >= 6
    assert collection.count() == COUNT
    for number in range(done):
        assert collection.search(clustered(1, seed=100 + number)[0], 1)[0].id == f"new {number}"
        assert str(number * 3) not in {hit.id for hit in collection.search(vectors[number * 3], 50)}
    assert other.stats().codec == "sq8"


def test_two_at_once_one_of_them_says_so(tmp_path: Path) -> None:
    collection, vectors = filled(tmp_path / "c.rarebit")
    other = Collection.open(tmp_path / "c.rarebit")
    run = Recompression(collection._engine, {"codec": "sq8"}, None, progress=False)
    begin = run._begin

    def overtaken() -> None:
        begin()
        other.recompress(codec="sq4")

    run._begin = overtaken  # type: ignore[method-assign]
    with pytest.raises(CollectionError, match="changed by another call"):
        run.run()
    assert collection.stats().codec == "sq4"
    assert recall(collection, vectors, clustered(20, seed=1)) > 0.95


def test_learning_that_fails_changes_nothing(tmp_path: Path) -> None:
    collection, vectors = filled(tmp_path / "c.rarebit")
    for bad in ({"codec": "trellis500"}, {"codec": "matryoshka100,sq8"}):
        with pytest.raises((CodecError, InputError)):
            collection.recompress(**bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one or the other"):
        collection.recompress(codec="sq8", memory_per_vector=14)
    with pytest.raises(CodecError, match="no rows"):
        Collection.open(dim=3).recompress()
    assert collection.search(vectors[3], 1)[0].id == "3"
    assert collection.stats().codec == "trellis"


def test_it_trains_again_when_it_has_grown_eightfold(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(4000)
    collection = Collection.open(training_minimum=200)
    collection.add(vectors[:200])
    assert collection.settings.trained_rows == 200
    collection.add(vectors[200:1500])
    assert collection.settings.trained_rows == 200
    collection.add(vectors[1500:1700])
    assert collection.settings.trained_rows == 1700
    monkeypatch.setattr(training, "SAMPLE_ROWS", 1000)
    collection.add(np.tile(vectors, (4, 1)))
    assert collection.settings.trained_rows == 1700, "the sample is full: there is nothing more to learn"
    bare = Collection.open(training_minimum=200, fine="none")
    bare.add(vectors)
    assert bare.settings.trained_rows < 4000, "without a fine tier another training would lose more"


KILLED = """
import sys
from rarebit import Collection
from rarebit.retrievers.collection import training
from rarebit.retrievers.collection.code_index import View
training.BATCH_ROWS = 100
collection = Collection.open(sys.argv[1])
print("ready", flush=True)
while True:
    collection.recompress(codec=sys.argv[2])
    print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(8))
def test_killed_at_any_moment_it_is_the_old_code_or_the_new(tmp_path: Path, kill: int) -> None:
    path = tmp_path / "c.rarebit"
    collection, vectors = filled(path)
    collection.close()
    command = [sys.executable, "-c", KILLED, str(path), "sq8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.03 + 0.06 * kill)
        process.kill()
    with Collection.open(path) as again:
        assert again.count() == COUNT
        assert again.stats().codec in {"trellis", "sq8"}
        assert recall(again, vectors, clustered(10, seed=1)) > 0.95
        assert again.recompress(codec="sq4").disk["codes"] == COUNT * (32 + CHECKSUM_BYTES)
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not raw.execute("SELECT name FROM sqlite_master WHERE name LIKE 'new_%' OR name = 'recompression'").fetchall()
    raw.close()


def test_searches_go_on_in_other_threads(tmp_path: Path) -> None:
    collection, vectors = filled(tmp_path / "c.rarebit")
    failures: list[BaseException] = []
    stop = False

    def search() -> None:
        turn = 0
        try:
            while not stop:
                turn = (turn + 7) % COUNT
                assert collection.search(vectors[turn], 1)[0].id == str(turn)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for codec in ("sq8", "sq4", "variance"):
        collection.recompress(codec=codec)
    stop = True
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_exact_codes_give_way_to_small_ones_with_a_fine_tier(codec: str) -> None:
    collection, _ = filled(codec=codec, count=300)
    stats = collection.recompress(memory_per_vector=16)
    assert (stats.fine, stats.disk["fine"]) == ("residual8", 300 * (68 + CHECKSUM_BYTES))
    assert collection.recompress(target_recall=0.9, fine="int4").fine != "none"


@pytest.mark.parametrize("fine", ["residual8", "int8"])
def test_vectors_stay_near_what_they_were_through_many_codes(fine: str) -> None:
    collection, vectors = filled(count=1500, fine=fine)

    def error() -> float:
        own = collection.vectors([str(number) for number in range(0, 1500, 7)])
        return float(np.linalg.norm(own - vectors[::7], axis=1).mean())

    first = error()
    for turn, codec in enumerate(("variance4", "pq16", "rabitq", "trellis"), start=2):
        collection.recompress(codec=codec)
        # Residuals are rounded anew each time, some of them of rougher codes; vectors are not.
        assert error() <= (2 * first * turn**0.5 if fine == "residual8" else first)
    assert collection.recompress(fine="float32").fine == "float32"
    assert np.abs(collection.vectors(["3"]) - vectors[[3]]).max() < 5e-3
    assert collection.recompress(fine="residual4").disk["fine"] == 1500 * (36 + CHECKSUM_BYTES)


def test_with_no_wish_everything_stays_as_it_is() -> None:
    collection, _ = filled(count=60, fine="none")
    assert collection.recompress().fine == "none"


def test_opened_again_with_the_words_that_made_it(tmp_path: Path) -> None:
    words = {"target_recall": 1.0, "fine": "int8"}
    collection, _ = filled(tmp_path / "c.rarebit", count=1500, **words)
    collection.close()
    Collection.open(tmp_path / "c.rarebit", **words).close()  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="fine"):
        Collection.open(tmp_path / "c.rarebit", fine="none")


def test_a_generous_budget_is_met_without_compression() -> None:
    collection, vectors = filled(count=1200, memory_per_vector=2 * 64 + 8)
    assert (collection.stats().codec, collection.stats().fine) == ("float16", "none")
    assert recall(collection, vectors, clustered(20, seed=1)) > 0.98


def test_a_fingerprint_that_is_learned_meanwhile_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    collection, _ = filled(tmp_path / "c.rarebit", count=200)
    begin = Recompression._begin

    def begun_while_another_opens(run: Recompression) -> None:
        begin(run)
        Collection.open(tmp_path / "c.rarebit", fingerprint="model-a").close()

    monkeypatch.setattr(Recompression, "_begin", begun_while_another_opens)
    collection.recompress(codec="sq8")
    with pytest.raises(FingerprintError, match="model-b"):
        Collection.open(tmp_path / "c.rarebit", fingerprint="model-b")


def test_a_run_that_fails_gives_its_space_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    collection, _ = filled(tmp_path / "c.rarebit", count=200)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recompression, "_change_over", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collection.recompress(codec="sq8")
    with sqlite3.connect(tmp_path / "c.rarebit") as file:
        names = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
    assert not {"new_codes", "new_fine", "recompression"} & names
    assert collection.stats().codec == "trellis"


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Collection:
    """A collection of two tenants whose recompression died before it changed over."""
    collection = Collection.open(tmp_path / "c.rarebit", training_minimum=100)
    for seed, name in enumerate("ab"):
        collection.tenant(name).add(clustered(200, seed=seed), ids=[str(n) for n in range(200)])
    with monkeypatch.context() as patch:
        patch.setattr(training, "BATCH_ROWS", 50)
        for step in ("_change_over", "_abandon"):
            patch.setattr(Recompression, step, lambda *_: None)
        collection.recompress(codec="float16", fine="none")
    assert sorted(left_in(collection.path)) == ["new_codes", "new_fine"]
    return collection


def left_in(path: Path | None) -> dict[str, int]:
    """Count what is in the tables of a recompression."""
    assert path is not None
    with sqlite3.connect(path) as file:
        names = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE name LIKE 'new_%'")]
        counts = {name: file.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    file.close()
    return counts


def test_a_copy_for_a_tenant_has_nothing_of_a_recompression(killed: Collection, tmp_path: Path) -> None:
    killed.tenant("a").backup(tmp_path / "copy")
    assert not left_in(tmp_path / "copy")
    with Collection.open(tmp_path / "copy") as copy:
        assert copy.check() == []
        assert copy.tenant("a").count() == 200


def test_nothing_of_a_deleted_tenant_stays_in_a_recompression(killed: Collection) -> None:
    assert left_in(killed.path)["new_codes"] == 400
    assert killed.delete_tenant("b") == 200
    killed.compact()
    assert left_in(killed.path)["new_codes"] == 200
    assert killed.check() == []
    assert killed.recompress(codec="sq8").codec == "sq8"
    assert not left_in(killed.path)


def test_a_recompression_goes_on_over_a_compaction(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    collection, _ = filled(tmp_path / "c.rarebit", count=200)
    change_over = Recompression._change_over

    def compacted_before(run: Recompression, *rest: object) -> None:
        collection.delete([str(number) for number in range(50)])
        collection.compact()
        change_over(run, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "BATCH_ROWS", 30)
    monkeypatch.setattr(Recompression, "_change_over", compacted_before)
    assert collection.recompress(codec="sq8").codec == "sq8"
    assert (collection.count(), collection.check()) == (150, [])


def test_the_choice_says_what_it_was_measured_against() -> None:
    collection, _ = filled(count=1200)
    choice = collection.recompress(memory_per_vector=16, queries=[]).choice
    assert choice is not None
    assert choice["reason"].endswith("measured against the vectors as residual8 keeps them")


def test_the_number_of_candidates_that_was_measured_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    collection, vectors = filled(count=1500, codec="pq2")
    collection.recompress(memory_per_vector=10, target_recall=0.999)
    measured = collection.settings.candidates
    assert measured is not None
    assert measured > 100
    asked: list[int] = []
    search = View.search

    def watched(view: View, queries: np.ndarray, k: int, *rest: object, **more: object) -> object:
        asked.append(k)
        return search(view, queries, k, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(View, "search", watched)
    for k in (3, 10, 50):
        collection.search(vectors[0], k)
    assert asked == [measured, measured, max(measured, 500)]


def test_what_may_not_be_written_is_not_even_learned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    filled(tmp_path / "c.rarebit", count=100)[0].close()
    monkeypatch.setattr(training, "learned", None)
    with pytest.raises(ReadOnlyError):
        Collection.open(tmp_path / "c.rarebit", read_only=True).recompress()


def test_another_handle_knows_the_settings_at_once(tmp_path: Path) -> None:
    collection, _ = filled(tmp_path / "c.rarebit", count=100)
    other = Collection.open(tmp_path / "c.rarebit")
    collection.recompress(codec="sq8")
    assert other.settings.codec == "sq8"
    other.close()
    assert other.settings.codec == "sq8"
