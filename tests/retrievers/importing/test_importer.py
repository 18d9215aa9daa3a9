"""Any source into a collection: what is added, skipped, replaced; and going on after a run that was cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import import_until_killed
from support.vectors import clustered, exact_ids

from rarebit import Collection
from rarebit.errors import DimensionError, InputError, MetadataError, TransferWarning, VectorError
from rarebit.retrievers.importing import ImportReport, NumpySource, Rows, Source, import_into

SUPPORT = Path(import_until_killed.__file__).parent


@dataclass
class Listed:
    """A source made of rows (id, vector, text, metadata); fails once ``fails_after`` batches were given."""

    rows: list[tuple[str, list[float], str | None, dict[str, Any] | None]]
    name: str = "elsewhere"
    ranked_by: Any = None
    fails_after: int | None = None
    given: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.rows)

    def batches(self, size: int) -> Iterator[Rows]:
        for number, start in enumerate(range(0, len(self.rows), size)):
            if number == self.fails_after:
                raise KeyboardInterrupt
            ids, vectors, texts, metadatas = zip(*self.rows[start : start + size], strict=True)
            self.given.append(len(ids))
            yield Rows(ids, np.array(vectors, dtype=np.float32), texts, metadatas)


def listed(count: int, dim: int = 8, **keywords: Any) -> Listed:
    vectors = clustered(count, dim).tolist()
    return Listed([(str(row), vectors[row], f"text {row}", {"row": row}) for row in range(count)], **keywords)


def content(collection: Collection) -> dict[str, tuple[str, dict[str, Any]]]:
    return {row.id: (row.text, row.metadata) for row in collection}


def test_every_row_comes_over_and_is_found_as_in_the_source() -> None:
    source = listed(500, 32)
    collection = Collection.open()
    assert import_into(collection, source, batch_size=64) == ImportReport(read=500, added=500)
    assert source.given == [64] * 7 + [52]
    assert content(collection) == {key: (text, metadata) for key, _, text, metadata in source.rows}
    assert [row.id for row in collection] == [key for key, *_ in source.rows]
    vectors = np.array([row[1] for row in source.rows], dtype=np.float32)
    assert np.allclose(collection.vectors(["3", "499"]), vectors[[3, 499]], atol=0.02)
    for query in clustered(10, 32, seed=9):
        hits = [hit.id for hit in collection.search(query, k=10)]
        assert len(set(hits) & set(exact_ids(vectors, query, 10))) >= 9


def test_importing_again_changes_nothing() -> None:
    collection = Collection.open()
    import_into(collection, listed(50), batch_size=20)
    before = collection.check(), content(collection), collection.stats().disk
    assert import_into(collection, listed(50), batch_size=7) == ImportReport(read=50, unchanged=50)
    assert (collection.check(), content(collection), collection.stats().disk) == before


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    with Collection.open(path) as collection, pytest.raises(KeyboardInterrupt):
        import_into(collection, listed(50, fails_after=3), batch_size=10)
    with Collection.open(path) as collection:
        assert list(content(collection)) == [str(row) for row in range(30)]
        collection.delete(["7"])
        assert import_into(collection, listed(50), batch_size=25) == ImportReport(read=50, added=21, unchanged=29)
        assert content(collection).keys() == {str(row) for row in range(50)}
        assert collection.check() == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_process_that_was_killed_loses_no_batch(tmp_path: Path) -> None:
    path = tmp_path / "c.rarebit"
    script = SUPPORT / "import_until_killed.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT.parent), *filter(None, sys.path)])}
    code = subprocess.run([sys.executable, script, path, "3"], check=False, env=environment).returncode
    assert code == -signal.SIGKILL
    with Collection.open(path) as collection:
        assert collection.count() == 300
        source = import_until_killed.source()
        assert isinstance(source, Source)
        assert import_into(collection, source) == ImportReport(read=600, added=300, unchanged=300)
        assert collection.check() == []


def test_what_is_there_with_other_content_is_kept_and_said() -> None:
    collection = Collection.open()
    collection.add([[1.0] * 8, [2.0] * 8], texts=["mine", "text 1"], metadatas=[{"row": 0}, {"row": "other"}], ids=["0", "1"])
    with pytest.warns(TransferWarning, match=r"elsewhere: 2 of 4 rows .* \(such as '[01]'\).*overwrite=True"):
        assert import_into(collection, listed(4)) == ImportReport(read=4, added=2, differing=2)
    assert content(collection)["0"] == ("mine", {"row": 0})
    assert content(collection)["1"] == ("text 1", {"row": "other"})


def test_overwrite_replaces_what_is_there() -> None:
    collection = Collection.open()
    collection.add([[1.0] * 8, [2.0] * 8], texts=["mine", "stays"], ids=["0", "own"])
    assert import_into(collection, listed(3), overwrite=True) == ImportReport(read=3, added=2, replaced=1)
    assert content(collection)["0"] == ("text 0", {"row": 0})
    assert content(collection)["own"] == ("stays", {})


SMALL_ROWS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y"])), max_size=12)


@given(SMALL_ROWS, st.integers(1, 5), st.booleans())
@pytest.mark.filterwarnings("ignore::rarebit.errors.TransferWarning")
def test_an_import_is_adding_rows_one_after_another(rows: list[tuple[str, str]], size: int, overwrite: bool) -> None:
    """Ids may come twice, in one batch or in two: a dictionary says what must come out."""
    collection = Collection.open()
    source = Listed([(key, [float(place + 1), 1.0], text, None) for place, (key, text) in enumerate(rows)])
    wanted: dict[str, tuple[str, int]] = {}
    counts = {"added": 0, "replaced": 0, "unchanged": 0, "differing": 0}
    for place, (key, text) in enumerate(rows):
        if key not in wanted or overwrite:
            counts["replaced" if key in wanted else "added"] += 1
            wanted[key] = (text, place)
        else:
            counts["unchanged" if wanted[key][0] == text else "differing"] += 1
    assert import_into(collection, source, batch_size=size, overwrite=overwrite) == ImportReport(read=len(rows), **counts)
    assert content(collection) == {key: (text, {}) for key, (text, _) in wanted.items()}
    for key, (_, place) in wanted.items():
        direction = np.array([place + 1, 1.0]) / np.hypot(place + 1, 1.0)
        assert np.allclose(collection.vectors([key])[0], direction, atol=1e-3)


def test_a_row_without_a_text_is_kept_and_counted() -> None:
    collection = Collection.open()
    rows: Any = [("a", [1.0, 0.0], None, None), ("b", [0.0, 1.0], "", {})]
    assert import_into(collection, Listed(rows)) == ImportReport(read=2, added=2, without_text=1)
    assert content(collection) == {"a": ("", {}), "b": ("", {})}
    assert import_into(collection, Listed(rows)) == ImportReport(read=2, unchanged=2, without_text=1)


def test_an_empty_source_is_no_error() -> None:
    assert import_into(Collection.open(), Listed([])) == ImportReport()


def test_a_bad_row_is_named_and_the_batches_before_are_kept() -> None:
    collection, source = Collection.open(), listed(30)
    source.rows[25] = ("bad", [1.0] * 8, "t", {"when": {1, 2}})
    with pytest.raises(
        MetadataError, match=r"elsewhere, in the rows from 20 on: row 'bad' .*'when'.*The 20 rows before are kept"
    ):
        import_into(collection, source, batch_size=10)
    assert collection.count() == 20
    source.rows[25] = ("bad", [1.0] * 8, "t", {})
    assert import_into(collection, source, batch_size=10) == ImportReport(read=30, added=10, unchanged=20)


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (("a", [np.nan] * 8, "t", {}), VectorError, "1 of 2 vectors hold NaN.*Nothing was imported"),
        (("a", [1.0] * 8, 7, {}), InputError, "int"),
        ((3, [1.0] * 8, "t", {}), InputError, r"3 \(int\)"),
        (("a", [1.0] * 8, "t", {1: 2}), MetadataError, "1 is a int"),
        (("a", [1.0] * 8, "\ud800", {}), InputError, "Unicode"),
        (("a", [1.0] * 8, "t", ["x"]), MetadataError, "list as metadata"),
    ],
)
@pytest.mark.unchecked
def test_rows_that_cannot_be_kept(row: Any, error: type[Exception], message: str) -> None:
    collection = Collection.open()
    with pytest.raises(error, match=message):
        import_into(collection, Listed([("good", [1.0] * 8, "t", {}), row]))
    assert collection.count() == 0


def test_another_dimension_is_refused_before_anything_is_written() -> None:
    collection = Collection.open()
    collection.add([[1.0, 2.0]], ids=["own"])
    with pytest.raises(DimensionError, match="dimension 8, wanted 2"):
        import_into(collection, listed(5))
    assert collection.count() == 1


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
@pytest.mark.unchecked
def test_a_batch_has_a_size(size: Any) -> None:
    with pytest.raises(InputError, match="batch_size"):
        import_into(Collection.open(), listed(3), batch_size=size)


LONG: Any = [("a", [1.0, 0.0], "t", None), ("b", [0.0, 3.0], "t", None)]


@pytest.mark.parametrize(("ranked_by", "advice"), [("l2", "cannot rank by l2"), ("inner_product", "metric='inner_product'")])
def test_vectors_whose_lengths_mattered_are_warned_of_once(ranked_by: str, advice: str) -> None:
    source = Listed(LONG * 3, ranked_by=ranked_by)
    with pytest.warns(TransferWarning, match=rf"ranks by {ranked_by}.*\(1 and 3\).*{advice}") as caught:
        import_into(Collection.open(), source, batch_size=1)
    assert len(caught) == 1


@pytest.mark.parametrize("ranked_by", ["l2", "inner_product"])
def test_where_lengths_do_not_matter_nothing_is_said(ranked_by: str) -> None:
    import_into(Collection.open(), Listed([(key, [2 * x for x in vector], t, m) for key, vector, t, m in listed(20).rows]))
    import_into(Collection.open(), listed(20, ranked_by=ranked_by))
    import_into(Collection.open(), Listed(LONG, ranked_by="cosine"))
    import_into(Collection.open(), Listed(LONG, ranked_by=None))
    import_into(Collection.open(), Listed([*LONG[:1], ("z", [0.0, 0.0], "t", None)], ranked_by=ranked_by))
    import_into(Collection.open(metric="inner_product"), Listed(LONG, ranked_by="inner_product"))


def test_inner_product_keeps_lengths_and_cosine_does_not() -> None:
    for metric, length in (("inner_product", 3.0), ("cosine", 1.0)):
        collection = Collection.open(metric=metric)  # type: ignore[arg-type]
        import_into(collection, Listed(LONG))
        assert np.linalg.norm(collection.vectors(["b"])[0]) == pytest.approx(length, abs=0.02)


def test_the_progress_bar_counts_rows(capsys: pytest.CaptureFixture[str]) -> None:
    import_into(Collection.open(), listed(30), batch_size=10)
    assert capsys.readouterr().err == ""
    import_into(Collection.open(), listed(30), batch_size=10, progress=True)
    shown = capsys.readouterr().err
    assert "importing elsewhere" in shown
    assert "30/30" in shown


def test_ids_of_arrays_survive_a_run_that_was_cut_off_and_lose_no_double() -> None:
    vectors = np.repeat(clustered(5, 8), 2, axis=0)
    texts = [f"text {row // 2}" for row in range(10)]
    collection = Collection.open()
    for part in (6, 10):
        import_into(collection, NumpySource(vectors[:part], texts[:part]), batch_size=4)
    assert sorted(row.text for row in collection) == texts
    assert import_into(collection, NumpySource(vectors + 1, texts)).added == 10


def test_near_duplicates_are_counted_and_skipped_again_when_resumed() -> None:
    texts = ["A kettle is on the stove.", "A cat is in the garden.", "a kettle is on  the STOVE.", "", ""]
    source = Listed([(str(row), [1.0, row], text, None) for row, text in enumerate(texts)])
    collection = Collection.open(near_duplicates=0.9)
    for size in (2, 5):
        assert import_into(collection, source, batch_size=size).skipped == 1
        assert [*content(collection)] == ["0", "1", "3", "4"]
    assert import_into(collection, source) == ImportReport(read=5, unchanged=4, skipped=1)
    report = import_into(collection, source, overwrite=True)
    assert (report.replaced, report.skipped, report.added) == (4, 1, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_id_that_comes_again_is_judged_by_what_became_of_it(size: int, overwrite: bool) -> None:
    """Row b is skipped at first, is something else then, and something else again."""
    kettle, cat, dog = "A kettle is on the stove.", "A cat is in the garden.", "A dog is in the house."
    given = [("a", kettle), ("b", kettle), ("b", cat), ("b", dog), ("c", dog), ("c", dog)]
    collection = Collection.open(near_duplicates=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferWarning)
        source = Listed([(key, [1.0, 0.0], text, None) for key, text in given])
        report = import_into(collection, source, batch_size=size, overwrite=overwrite)
    if overwrite:
        assert report == ImportReport(read=6, added=2, replaced=1, skipped=3)
        assert content(collection) == {"a": (kettle, {}), "b": (dog, {})}
    else:
        assert report == ImportReport(read=6, added=3, differing=1, skipped=1, unchanged=1)
        assert content(collection) == {"a": (kettle, {}), "b": (cat, {}), "c": (dog, {})}
