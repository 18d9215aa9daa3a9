"""The table of bands beside rows, in plain SQLite: what is found, what is written, what is forgotten."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.near_duplicates import edited, families, passage, plain_jaccard

from rarebit.errors import DamagedFileError, InputError
from rarebit.retrievers.near_duplicates import NearDuplicateIndex, jaccard, normalized, shingles
from rarebit.retrievers.near_duplicates.stored import READ_PER_BAND, TABLE, note

KETTLE = "The kettle is on the stove, and the water in it will boil in a quarter of an hour."
CAT = "The cat is out in the garden, and will not come back before the birds have gone to sleep."


class Rows:
    """The least that a collection does with its rows: ids that overwrite, row ids that are never used again."""

    def __init__(self, threshold: float = 0.8) -> None:
        self.connection = sqlite3.connect(":memory:")
        rows = "CREATE TABLE rows (row_id INTEGER PRIMARY KEY, tenant INTEGER, id TEXT, text TEXT, UNIQUE (tenant, id));"
        self.connection.executescript(rows + TABLE)
        self.index = NearDuplicateIndex(threshold)
        self.next = 1
        self.tenant = 0

    def keep(self, new: dict[str, str]) -> None:
        self.delete(list(new))
        row_ids = range(self.next, self.next + len(new))
        self.next = row_ids.stop
        rows = zip(row_ids, repeat(self.tenant), new, new.values(), strict=False)
        self.connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows)
        note(self.connection, self.tenant, row_ids, self.index.bands(list(new.values())))

    def delete(self, ids: list[str]) -> None:
        where = f"WHERE tenant = {self.tenant} AND id IN ({','.join('?' * len(ids))})"
        self.index.remove(
            self.connection, self.connection.execute(f"SELECT row_id, tenant, text FROM rows {where}", ids).fetchall()
        )
        self.connection.execute(f"DELETE FROM rows {where}", ids)

    def skip(self, new: dict[str, str], part: int = 1000) -> list[str]:
        """Add rows but for near-duplicates, a part at a time."""
        intake = self.index.intake(self.connection, self.tenant, new.keys() & self.texts().keys())
        items, answered = list(new.items()), []
        for start in range(0, len(items), part):
            ids, texts = [key for key, _ in items[start : start + part]], [text for _, text in items[start : start + part]]
            stands = intake.stand_ins(ids, texts, self.index.bands(texts))
            self.keep({key: text for key, text, own in zip(ids, texts, stands, strict=True) if own == key})
            answered += stands
        return answered

    def texts(self) -> dict[str, str]:
        found = self.connection.execute("SELECT id, text FROM rows WHERE tenant = ? ORDER BY row_id", (self.tenant,))
        return dict(found.fetchall())

    def bands(self) -> list[tuple[int, int, int]]:
        return self.connection.execute("SELECT * FROM near_duplicates ORDER BY tenant, band, row_id").fetchall()

    def bands_of_rows(self) -> list[tuple[int, int, int]]:
        return self.index.entries(self.connection.execute("SELECT row_id, tenant, text FROM rows").fetchall())


@pytest.fixture
def rows() -> Iterator[Rows]:
    made = Rows()
    yield made
    made.connection.close()


class TestSkipping:
    def test_a_stored_row_stands_for_its_near_duplicates(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE, "c": CAT})
        assert rows.skip({"1": KETTLE + "..", "2": CAT.upper(), "3": KETTLE[:40]}) == ["k", "c", "3"]
        assert [*rows.texts()] == ["k", "c", "3"]

    def test_an_earlier_row_of_the_call_stands_for_later_ones(self, rows: Rows) -> None:
        new = {"1": KETTLE, "2": CAT, "3": KETTLE + "!", "4": CAT}
        for part in (1, 2, 3, 4):
            assert rows.skip(new, part) == ["1", "2", "1", "2"]
            rows.delete([*new])

    def test_an_update_is_no_duplicate(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE, "c": CAT})
        assert rows.skip({"k": KETTLE}) == ["k"]
        assert rows.skip({"k": KETTLE + "!"}) == ["k"]
        assert rows.skip({"c": KETTLE}) == ["c"]
        assert rows.texts() == {"k": KETTLE + "!", "c": KETTLE}

    @pytest.mark.parametrize("part", [1, 2])
    def test_a_row_that_is_replaced_stands_for_nothing(self, rows: Rows, part: int) -> None:
        rows.keep({"k": KETTLE})
        assert rows.skip({"new": KETTLE, "k": CAT}, part) == ["new", "k"]
        assert rows.texts() == {"new": KETTLE, "k": CAT}

    @pytest.mark.parametrize("part", [1, 2])
    def test_a_row_that_has_been_replaced_stands_for_what_it_is_now(self, rows: Rows, part: int) -> None:
        rows.keep({"k": KETTLE})
        assert rows.skip({"k": CAT, "new": CAT, "old": KETTLE}, part) == ["k", "k", "old"]

    def test_blank_texts_are_all_kept(self, rows: Rows) -> None:
        rows.keep({"0": ""})
        assert rows.skip({"1": "", "2": " ", "3": "\u00ad"}) == ["1", "2", "3"]
        assert rows.bands() == []

    def test_nothing(self, rows: Rows) -> None:
        assert rows.skip({}) == []
        assert rows.index.intake(rows.connection, 0, []).stand_ins([], [], []) == []

    def test_what_is_deleted_stands_for_nothing(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE})
        rows.delete(["k"])
        assert rows.bands() == []
        assert rows.skip({"1": KETTLE}) == ["1"]

    def test_tenants_know_nothing_of_each_other(self, rows: Rows) -> None:
        rows.keep({f"k{number}": KETTLE for number in range(3 * READ_PER_BAND)})
        rows.tenant = 7
        assert rows.skip({"1": KETTLE, "k2": KETTLE}) == ["1", "1"]
        assert rows.skip({"k1": KETTLE.upper()}) == ["1"]
        rows.tenant = 0
        rows.delete(list(rows.texts()))
        assert rows.skip({"1": KETTLE}) == ["1"]
        assert rows.bands() == rows.bands_of_rows()

    def test_thousands_of_the_same_text(self, rows: Rows) -> None:
        rows.keep({f"k{number}": KETTLE for number in range(3 * READ_PER_BAND)})
        rows.keep({"c": CAT})
        assert rows.skip({"1": KETTLE, "2": CAT}) == ["k0", "c"]

    @pytest.mark.parametrize("threshold", [0.6, 0.8, 0.95])
    def test_it_finds_what_brute_force_finds(self, threshold: float) -> None:
        """But for one in a hundred at the threshold itself, as the bands are chosen."""
        rows = Rows(threshold)
        texts = [" ".join(text.split()) for text in families(random.Random(4), count=40, members=5, most_edits=30)]
        stands = rows.skip({str(place): text for place, text in enumerate(texts)}, part=64)
        missed = 0
        for place, own in enumerate(stands):
            kept = [earlier for earlier in range(place) if stands[earlier] == str(earlier)]
            alike = [str(earlier) for earlier in kept if plain_jaccard(texts[earlier], texts[place]) >= threshold]
            if own == str(place):
                missed += bool(alike)
            else:
                assert own in alike
        assert missed <= 3
        assert rows.bands() == rows.bands_of_rows()
        rows.connection.close()

    def test_a_transaction_that_fails_leaves_nothing(self, rows: Rows) -> None:
        rows.connection.commit()
        rows.skip({"k": KETTLE})
        rows.connection.rollback()
        assert rows.bands() == []
        assert rows.skip({"1": KETTLE}) == ["1"]

    def test_bands_without_their_row_are_damage(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE})
        rows.connection.execute("DELETE FROM rows")
        with pytest.raises(DamagedFileError, match="row 1 has bands"):
            rows.skip({"1": KETTLE})

    def test_a_text_that_is_none_is_damage_and_can_be_deleted(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE, "c": CAT})
        rows.connection.execute("UPDATE rows SET text = CAST(text AS BLOB) WHERE row_id = 1")
        with pytest.raises(DamagedFileError, match="row 1 of the file is no text"):
            rows.skip({"1": KETTLE})
        rows.delete(["k"])
        assert rows.skip({"1": KETTLE, "2": CAT}) == ["1", "c"]
        assert rows.bands() == rows.bands_of_rows()

    def test_the_threshold_is_checked(self) -> None:
        with pytest.raises(InputError, match="threshold=80"):
            NearDuplicateIndex(80)


class TestTable:
    def test_a_row_takes_one_entry_a_band(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE})
        entries = rows.bands()
        assert len(entries) == rows.index.hasher.n_bands
        assert all(tenant == 0 and row_id == 1 and -(2**31) <= band < 2**31 for tenant, band, row_id in entries)

    def test_bands_that_are_not_those_of_the_text_go_with_their_row_too(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE, "c": CAT})
        rows.connection.execute("UPDATE near_duplicates SET band = band + 1 WHERE row_id = 1")
        rows.delete(["k"])
        assert {row_id for _, _, row_id in rows.bands()} == {2}
        assert rows.bands() == rows.bands_of_rows()

    def test_missing_entries_are_counted(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE, "c": CAT, "": ""})
        found = [(1, 0, KETTLE), (2, 0, CAT), (3, 0, "")]
        count = len(rows.bands())
        assert rows.index.missing(rows.connection, found) == (count, 0)
        rows.connection.execute("DELETE FROM near_duplicates WHERE row_id = 2")
        assert rows.index.missing(rows.connection, found) == (count, count // 2)
        assert rows.index.missing(rows.connection, [(1, 3, KETTLE)]) == (count // 2, count // 2)

    def test_creating_it_again_changes_nothing(self, rows: Rows) -> None:
        rows.keep({"k": KETTLE})
        before = rows.bands()
        rows.connection.executescript(TABLE)
        assert rows.bands() == before


WORDS = st.sampled_from([KETTLE, KETTLE + "!", KETTLE.upper(), CAT, CAT[5:], CAT + " " + KETTLE, "tea", "Tea", "", " "])
CALLS = st.tuples(
    st.sampled_from(["keep", "skip", "delete"]), st.dictionaries(st.sampled_from("abcdef"), WORDS, min_size=1, max_size=4)
)


@given(st.lists(CALLS, max_size=8), st.sampled_from([1, 2, 5]))
def test_any_sequence_of_calls_keeps_the_table_right(calls: list[tuple[str, dict[str, str]]], part: int) -> None:
    rows = Rows()
    for verb, new in calls:
        before = rows.texts()
        if verb == "delete":
            rows.delete([*new])
        elif verb == "keep":
            rows.keep(new)
        else:
            for (key, text), own in zip(new.items(), rows.skip(new, part), strict=True):
                after = rows.texts()
                assert own in after
                assert own == key or key not in after
                assert own == key or jaccard(shingles(text), shingles(after[own])) >= 0.8
                assert own == key or key not in before
                assert own == key or normalized(text)
        assert rows.bands() == rows.bands_of_rows()
    rows.connection.close()


def test_a_small_edit_is_found_wherever_it_is() -> None:
    rows = Rows()
    rng = random.Random(8)
    stored = {f"s{number}": passage(rng) for number in range(300)}
    rows.keep(stored)
    new = {f"n{number}": edited(rng, text, 3) for number, text in enumerate(stored.values())}
    assert rows.skip(new) == [*stored]
    rows.connection.close()
