"""Near-duplicates at ingest: which rows are skipped and which are not, for whom, and what the file holds of it."""

from __future__ import annotations

import pickle
import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.near_duplicates import edited, families, passage, plain_jaccard
from support.vectors import clustered

from rarebit import Collection, Compare
from rarebit.errors import DuplicateIdError, InputError, SettingsError, VectorError
from rarebit.retrievers.collection.tenant import Tenant
from rarebit.retrievers.near_duplicates import jaccard, normalized, shingles
from rarebit.retrievers.near_duplicates.stored import READ_PER_BAND

KETTLE = "The kettle is on the stove, and the water in it will boil in a quarter of an hour."
CAT = "The cat is out in the garden, and will not come back before the birds have gone to sleep."


@pytest.fixture
def collection() -> Iterator[Collection]:
    with Collection.open(near_duplicates=0.8) as made:
        yield made


def add(to: Collection | Tenant, new: dict[str, str], **keywords: Any) -> list[str]:
    return to.add(clustered(len(new), 8), texts=list(new.values()), ids=list(new), **keywords)


def texts(of: Collection | Tenant) -> dict[str, str]:
    return {row.id: row.text for row in of}


def bands(path: Path) -> list[Any]:
    raw = sqlite3.connect(path)
    found = raw.execute("SELECT * FROM near_duplicates ORDER BY tenant, band, row_id").fetchall()
    raw.close()
    return found


class TestSkipping:
    def test_the_row_that_stands_for_it_is_the_answer(self, collection: Collection) -> None:
        assert add(collection, {"k": KETTLE, "c": CAT}) == ["k", "c"]
        assert add(collection, {"1": KETTLE + "..", "2": CAT.upper(), "3": KETTLE[:40]}) == ["k", "c", "3"]
        assert texts(collection) == {"k": KETTLE, "c": CAT, "3": KETTLE[:40]}
        assert collection.check() == []

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
    def test_the_vectors_of_those_that_stay_are_theirs(self, batch_size: int) -> None:
        """With a code, a fine tier, and a training in between: dropping rows must not shift what belongs to the others."""
        rng, vectors = random.Random(1), clustered(120, 16)
        given = {str(number): passage(rng) for number in range(40)}
        given |= {f"{number}'": edited(rng, given[str(number)], 2) for number in range(40)}
        given |= {str(number): passage(rng) for number in range(40, 80)}
        with Collection.open(near_duplicates=0.8, codec="sq8", training_minimum=30) as collection:
            stands = collection.add(vectors, texts=list(given.values()), ids=list(given), batch_size=batch_size)
            kept = [str(number) for number in range(80)]
            assert stands == kept[:40] * 2 + kept[40:]
            assert [*texts(collection)] == kept
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            wanted = np.concatenate([unit[:40], unit[80:]])
            assert np.allclose(collection.vectors(kept), wanted, atol=0.02)
            assert [collection.search(vector, 1)[0].id for vector in wanted[::7]] == kept[::7]
            assert collection.stats().trained
            assert collection.check() == []

    @pytest.mark.parametrize("batch_size", [1, 2, 4])
    def test_nothing_is_left_of_a_part_or_of_a_call(self, collection: Collection, batch_size: int) -> None:
        add(collection, {"k": KETTLE})
        new = {"1": KETTLE, "2": KETTLE, "3": CAT, "4": CAT}
        assert add(collection, new, batch_size=batch_size) == ["k", "k", "3", "3"]
        assert add(collection, {"5": CAT, "6": KETTLE}, batch_size=batch_size) == ["3", "k"]
        assert collection.add([], texts=[]) == []
        assert len(collection.search(np.ones(8), 5)) == 2
        assert collection.search_lexical("kettle cat", 5)
        assert collection.check() == []

    def test_a_replaced_row_is_always_written_and_stands_for_nothing(self, collection: Collection) -> None:
        add(collection, {"k": KETTLE, "c": CAT})
        assert add(collection, {"c": KETTLE + "!"}) == ["c"]
        assert add(collection, {"1": CAT, "k": CAT}, batch_size=1) == ["1", "k"]
        assert texts(collection) == {"c": KETTLE + "!", "1": CAT, "k": CAT}
        assert add(collection, {"2": KETTLE}) == ["c"]

    def test_ids_that_json_of_sqlite_cuts_off_are_known(self, collection: Collection) -> None:
        add(collection, {"a\0b": KETTLE, "c": CAT})
        assert add(collection, {"a\0b": CAT}) == ["a\0b"]
        assert texts(collection)["a\0b"] == CAT

    def test_deletion_frees_a_text(self, collection: Collection) -> None:
        add(collection, {"k": KETTLE, "c": CAT})
        collection.delete(["k"])
        assert add(collection, {"1": KETTLE, "2": CAT}) == ["1", "c"]
        collection.delete(filter=Compare("id", "exists", False))
        assert add(collection, {"3": KETTLE, "4": CAT}) == ["3", "4"]
        collection.delete_all()
        assert collection.stats().disk["near_duplicates"] == 0
        assert add(collection, {"5": KETTLE}) == ["5"]
        assert collection.check() == []

    def test_rows_without_text_are_all_kept(self, collection: Collection) -> None:
        assert collection.add(clustered(3, 8), ids=["1", "2", "3"]) == ["1", "2", "3"]
        assert add(collection, {"4": " ", "5": ""}) == ["4", "5"]

    @pytest.mark.parametrize("threshold", [0.6, 0.8, 0.95])
    def test_it_finds_what_brute_force_finds(self, threshold: float) -> None:
        """But for one in a hundred at the threshold itself, as the bands are chosen."""
        given = families(random.Random(5), count=40, members=5, most_edits=30)
        given = [" ".join(text.split()) for text in given]
        with Collection.open(near_duplicates=threshold) as collection:
            stands = add(collection, {str(place): text for place, text in enumerate(given)}, batch_size=64)
            assert [*texts(collection)] == [str(place) for place, own in enumerate(stands) if own == str(place)]
        missed = 0
        for place, own in enumerate(stands):
            kept = [earlier for earlier in range(place) if stands[earlier] == str(earlier)]
            alike = [str(earlier) for earlier in kept if plain_jaccard(given[earlier], given[place]) >= threshold]
            if own == str(place):
                missed += bool(alike)
            else:
                assert own in alike
        assert missed <= 3

    def test_asking_before_embedding_gives_the_same_answer(self, collection: Collection) -> None:
        add(collection, {"k": KETTLE})
        new = {"1": KETTLE, "2": CAT, "3": CAT + "!", "k": CAT, "4": ""}
        asked = collection.stand_ins(list(new.values()), list(new))
        assert asked == ["1", "2", "2", "k", "4"]
        assert texts(collection) == {"k": KETTLE}
        assert add(collection, new) == asked
        assert collection.stand_ins([], []) == []

    @pytest.mark.unchecked
    def test_asking_wrongly(self, collection: Collection) -> None:
        with pytest.raises(InputError, match="got 1 ids and 2 texts"):
            collection.stand_ins(["a", "b"], ["1"])
        with pytest.raises(DuplicateIdError):
            collection.stand_ins(["a", "b"], ["1", "1"])
        with pytest.raises(InputError, match="type int"):
            collection.stand_ins([1], ["1"])  # type: ignore[list-item]


class TestTenants:
    def test_two_tenants_keep_the_same_text(self, collection: Collection) -> None:
        """Also where others have so many of it that the first of a band would all be theirs."""
        many = {str(number): KETTLE for number in range(2 * READ_PER_BAND)}
        add(collection, many, near_duplicates="keep")
        ann, bob = collection.tenant("ann"), collection.tenant("bob")
        assert ann.stand_ins([KETTLE], ["7"]) == ["7"]
        assert add(ann, {"7": KETTLE}) == ["7"]
        assert add(bob, {"8": KETTLE, "9": KETTLE}) == ["8", "8"]
        assert add(ann, {"8": KETTLE + "!"}) == ["7"]
        assert ann.stand_ins([KETTLE], ["9"]) == ["7"]
        assert (texts(ann), texts(bob)) == ({"7": KETTLE}, {"8": KETTLE})
        assert collection.check() == []

    def test_what_others_do_frees_and_takes_nothing(self, collection: Collection) -> None:
        ann, bob = collection.tenant("ann"), collection.tenant("bob")
        for each in (ann, bob, collection):
            add(each, {"k": KETTLE})
        ann.delete(["k"])
        assert add(bob, {"1": KETTLE}) == ["k"]
        assert add(ann, {"1": KETTLE}) == ["1"]
        bob.delete_all()
        assert add(ann, {"2": KETTLE}) == ["1"]
        collection.delete_tenant("ann")
        assert add(collection.tenant("ann"), {"3": KETTLE}) == ["3"]
        assert add(collection, {"4": KETTLE}) == ["k"]
        assert collection.check() == []

    def test_a_shared_row_stands_for_nothing_and_is_replaced(self, collection: Collection) -> None:
        ann = collection.tenant("ann")
        add(collection, {"k": KETTLE, "c": CAT})
        collection.share(["k", "c"])
        assert add(ann, {"1": KETTLE}) == ["1"]
        assert add(ann, {"c": KETTLE}) == ["c"]  # an update of what it sees, though it nearly duplicates row 1
        assert texts(ann) == {"k": KETTLE, "1": KETTLE, "c": KETTLE}
        assert texts(collection) == {"k": KETTLE, "c": CAT}
        ann.delete(["k"])
        assert add(ann, {"k": KETTLE}) == ["1"]  # it does not see k any more, so nothing is replaced


class TestSetting:
    def test_without_it_nothing_is_skipped_or_noted(self) -> None:
        with Collection.open() as collection:
            assert add(collection, {"1": KETTLE, "2": KETTLE}) == ["1", "2"]
            assert add(collection, {"3": KETTLE}, near_duplicates="keep") == ["3"]
            assert collection.stand_ins([KETTLE], ["4"]) == ["4"]
            assert collection.stats().disk["near_duplicates"] == 0
            for new in ({"4": KETTLE}, {}):
                with pytest.raises(SettingsError, match=r"near_duplicates='skip'.*Collection.open"):
                    add(collection, new, near_duplicates="skip")

    def test_what_is_kept_on_purpose_stands_for_what_comes(self, collection: Collection) -> None:
        assert add(collection, {"1": KETTLE, "2": KETTLE}, near_duplicates="keep") == ["1", "2"]
        assert add(collection, {"3": KETTLE}, near_duplicates="skip") == ["1"]
        collection.delete(["1"])
        assert add(collection, {"3": KETTLE}) == ["2"]

    @pytest.mark.unchecked
    def test_wrong_words_and_thresholds(self, collection: Collection) -> None:
        with pytest.raises(InputError, match=r"near_duplicates='drop', wanted one of \['skip', 'keep'\]"):
            add(collection, {"1": KETTLE}, near_duplicates="drop")
        for wrong in (0, 80, -0.5, float("nan"), "much", True):
            with pytest.raises(InputError, match=r"got near_duplicates=.*above 0 and at most 1"):
                Collection.open(near_duplicates=wrong)  # type: ignore[arg-type]

    def test_the_file_keeps_it(self, tmp_path: Path) -> None:
        path = tmp_path / "c.rarebit"
        with Collection.open(path, near_duplicates=0.9) as collection:
            add(collection, {"k": KETTLE})
        with Collection.open(path) as collection:
            assert collection.settings.near_duplicates == 0.9
            assert add(collection, {"1": KETTLE}) == ["k"]
        with pytest.raises(
            SettingsError, match=r"made with near_duplicates=0.9 .*near_duplicates=0.8: .*make a new collection"
        ):
            Collection.open(path, near_duplicates=0.8)
        Collection.open(tmp_path / "without").close()
        with pytest.raises(SettingsError, match=r"near_duplicates=None .*near_duplicates=0.9"):
            Collection.open(tmp_path / "without", near_duplicates=0.9)
        Collection.open(path, near_duplicates=0.9).close()

    def test_copies_keep_it(self, tmp_path: Path) -> None:
        rng = random.Random(2)
        original = {str(number): passage(rng) for number in range(200)}
        with Collection.open(tmp_path / "c", near_duplicates=0.8, codec="sq8", training_minimum=100) as collection:
            add(collection, original)
            collection.recompress(codec="trellis4")
            collection.backup(tmp_path / "backup")
            in_memory = Collection.load(tmp_path / "c")
            copies = [collection, in_memory, Collection.open(tmp_path / "backup"), pickle.loads(pickle.dumps(in_memory))]
            copies.append(pickle.loads(pickle.dumps(collection)))
            for copy in copies:
                assert copy.settings.near_duplicates == 0.8
                assert add(copy, {"x": original["7"] + "!", "y": original["8"]}) == ["7", "8"]
                assert copy.check() == []
                copy.close()

    def test_its_bytes_are_counted(self, tmp_path: Path) -> None:
        rng = random.Random(3)
        with Collection.open(tmp_path / "c", near_duplicates=0.8) as collection:
            add(collection, {str(number): passage(rng, 20) for number in range(500)})
            counted = collection.stats().disk["near_duplicates"]
        entries = len(bands(tmp_path / "c"))
        assert entries == 500 * 9
        assert counted == entries * 10


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "problem"),
        [
            ("DELETE FROM near_duplicates WHERE row_id = 2", "9 bands of texts are missing"),
            ("INSERT INTO near_duplicates VALUES (0, 12345, 1)", "1 entries of near_duplicates belong to no text"),
            ("INSERT INTO near_duplicates VALUES (0, 12345, 99)", "1 entries of near_duplicates belong to no text"),
            ("UPDATE near_duplicates SET tenant = 3 WHERE row_id = 1", "9 bands of texts are missing"),
        ],
    )
    def test_what_is_damaged_is_named(self, tmp_path: Path, damage: str, problem: str) -> None:
        with Collection.open(tmp_path / "c", near_duplicates=0.8) as collection:
            add(collection, {"k": KETTLE, "c": CAT})
            assert collection.check() == []
        raw = sqlite3.connect(tmp_path / "c")
        raw.execute(damage)
        raw.commit()
        raw.close()
        with Collection.open(tmp_path / "c") as collection:
            found = collection.check()
            assert any(problem in sentence for sentence in found), found

    def test_an_add_that_fails_leaves_everything_as_it_was(self, tmp_path: Path) -> None:
        rng = random.Random(4)
        new = {str(number): passage(rng) for number in range(20)}
        vectors = clustered(20, 8)
        vectors[-1, 0] = np.nan
        with Collection.open(tmp_path / "c", near_duplicates=0.8, dim=8) as collection:
            add(collection, {"k": KETTLE, "3": CAT})
            before = bands(tmp_path / "c")
            with pytest.raises(VectorError):
                collection.add(vectors, texts=list(new.values()), ids=list(new), batch_size=3)
            assert bands(tmp_path / "c") == before
            assert texts(collection) == {"k": KETTLE, "3": CAT}
            assert add(collection, {f"{key}'": text for key, text in new.items()}) == [f"{key}'" for key in new]


WORDS = st.sampled_from([KETTLE, KETTLE + "!", KETTLE.upper(), CAT, CAT[5:], CAT + " " + KETTLE, "tea", "Tea", "", " "])
CALLS = st.tuples(
    st.sampled_from(["keep", "skip", "delete"]),
    st.sampled_from([None, "ann", "bob"]),
    st.dictionaries(st.sampled_from("abcdef"), WORDS, min_size=1, max_size=4),
)


@given(st.lists(CALLS, max_size=8), st.sampled_from([1, 2, 5]))
@settings(max_examples=60)
def test_any_sequence_of_calls(calls: Sequence[tuple[Any, str | None, dict[str, str]]], batch_size: int) -> None:
    with Collection.open(near_duplicates=0.8) as collection:
        for verb, name, new in calls:
            subject = collection if name is None else collection.tenant(name)
            others = [
                texts(each) for each in everyone(collection) if each is not subject and getattr(each, "name", None) != name
            ]
            before = texts(subject)
            if verb == "delete":
                subject.delete(list(new))
            else:
                stands = add(subject, new, near_duplicates=verb, batch_size=batch_size)
                after = texts(subject)
                assert set(after) == set(before) | set(stands)
                for (key, text), own in zip(new.items(), stands, strict=True):
                    if own == key:
                        assert after[key] == text
                    else:
                        assert verb == "skip"
                        assert key not in before
                        assert normalized(text)
                        assert jaccard(shingles(text), shingles(after[own])) >= 0.8
            assert others == [texts(each) for each in everyone(collection) if getattr(each, "name", None) != name]
            assert collection.check() == []


def everyone(collection: Collection) -> list[Collection | Tenant]:
    return [collection, collection.tenant("ann"), collection.tenant("bob")]
