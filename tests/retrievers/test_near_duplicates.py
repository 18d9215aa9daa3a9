"""Near-duplicates: similarity, signatures, bands, and what is found, against brute force."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.near_duplicates import edited, families, passage, plain_jaccard

from rarebit.errors import InputError
from rarebit.retrievers.near_duplicates import MinHasher, jaccard, near_duplicate_of, normalized, shingles, unique
from rarebit.retrievers.near_duplicates.minhash import EMPTY

BLANK = ["", " ", "\n\t ", "\u00ad", "\ufeff\u200b"]
SAMPLES = [
    "The kettle is on the stove, and the water in it will boil in a quarter of an hour.",
    "Der Kessel steht auf dem Herd; das Wasser kocht in einer Viertelstunde. Straße, weiß, Öl.",
    "壺は炉の上にあり、その中の水は十五分で沸く。彼女はそう言って窓を閉めた。",
    "水",
    "a",
    "🫖🫖",
    "",
]
FOLDED = [
    ("The  KETTLE\n is on. ", "the kettle is on."),
    ("Straße", "STRASSE"),
    ("Cafe\u0301", "café"),
    ("ﬁne ½ ＡＢ", "fine 1⁄2 ab"),  # noqa: RUF001
    ("co\u00adoperate\ufeff", "cooperate"),
    ("\u1fb3", "\u03b1\u03b9"),
]

KNOWN = [
    [1194636789, 746679096, 1774325613, -536860610, -1862822298, -22517727, -166009817, -1319993455, -450660631],
    [1287184036, -1357969353, -58914504, 1087383480, -1924517020, -66543692, 144807553, -58432325, 572444679],
    [],
]
"""Bands at 0.8: files hold such, so another value here needs another format version."""


class TestSimilarity:
    @pytest.mark.parametrize(("given", "same"), FOLDED)
    def test_spelling_that_means_the_same_is_the_same(self, given: str, same: str) -> None:
        assert normalized(given) == normalized(same)
        assert jaccard(shingles(given), shingles(same)) == 1

    @given(st.text())
    def test_normal_is_normal(self, text: str) -> None:
        once = normalized(text)
        assert normalized(once) == once
        assert jaccard(shingles(text), shingles(once)) == (1 if once else 0)

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_it_is_a_similarity(self, a: str, b: str) -> None:
        left, right = shingles(a), shingles(b)
        assert jaccard(left, right) == jaccard(right, left)
        assert 0 <= jaccard(left, right) <= 1
        assert (jaccard(left, right) == 1) or normalized(a) != normalized(b) or not normalized(a)

    def test_it_is_that_of_sets_of_strings(self) -> None:
        rng = random.Random(0)
        for edits in range(0, 60, 5):
            original = passage(rng)
            copy = edited(rng, original, edits)
            copy = " ".join(copy.split())
            assert jaccard(shingles(original), shingles(copy)) == plain_jaccard(original, copy)

    @pytest.mark.parametrize("text", BLANK)
    def test_no_content_has_nothing_in_common(self, text: str) -> None:
        assert len(shingles(text)) == 0
        assert jaccard(shingles(text), shingles(text)) == 0

    @pytest.mark.parametrize("text", ["a", "水", "🫖", "yes", "12345678"])
    def test_a_short_text_is_one_shingle(self, text: str) -> None:
        assert jaccard(shingles(text), shingles(text)) == 1
        assert jaccard(shingles(text), shingles(text + "!")) < 1
        assert len(shingles(text)) == 1

    def test_surrogates_do_not_stop_it(self) -> None:
        assert len(shingles("\ud800 broken")) > 0


class TestMinHasher:
    @pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.999, 1.0])
    @pytest.mark.parametrize("recall", [0.9, 0.99, 0.999999])
    def test_the_bands_keep_the_recall(self, threshold: float, recall: float) -> None:
        hasher = MinHasher(threshold, recall=recall)
        assert hasher.detection_probability(threshold) >= recall
        fewer = 1 - (1 - threshold**hasher.rows) ** (hasher.n_bands - 1)
        assert fewer < recall, "one band less would do"
        assert hasher.permutations == hasher.rows * hasher.n_bands

    def test_what_is_in_files_stays(self) -> None:
        hasher = MinHasher(0.8)
        assert (hasher.rows, hasher.n_bands) == (4, 9)
        assert hasher.keys(["The kettle is on the stove.", "水", ""]) == KNOWN

    def test_shapes_and_dtypes(self) -> None:
        hasher = MinHasher()
        signatures = hasher.signatures(SAMPLES)
        assert signatures.shape == (len(SAMPLES), hasher.permutations)
        assert signatures.dtype == np.uint64
        bands = hasher.bands(signatures)
        assert bands.shape == (len(SAMPLES), hasher.n_bands)
        assert bands.dtype == np.int64
        assert np.abs(bands).max() <= 2**31
        assert hasher.signatures([]).shape == (0, hasher.permutations)
        assert hasher.bands(hasher.signatures([])).shape == (0, hasher.n_bands)
        assert hasher.keys([]) == []

    def test_only_what_is_blank_is_empty(self) -> None:
        hasher = MinHasher()
        texts = [*SAMPLES, *BLANK, "b" * 10_000]
        empty = hasher.signatures(texts) == EMPTY
        blank = [not normalized(text) for text in texts]
        assert empty.any(axis=1).tolist() == empty.all(axis=1).tolist() == blank
        assert [not keys for keys in hasher.keys(texts)] == blank

    @given(st.lists(st.one_of(st.sampled_from(SAMPLES), st.text(max_size=40)), max_size=8))
    def test_company_does_not_matter(self, texts: list[str]) -> None:
        hasher = MinHasher(0.5)
        together = hasher.signatures(texts)
        for text, signature in zip(texts, together, strict=True):
            assert np.array_equal(hasher.signatures([text])[0], signature)

    def test_many_parts_are_as_one(self) -> None:
        rng = random.Random(1)
        texts = [passage(rng, rng.randint(0, 4000)) for _ in range(40)]
        hasher = MinHasher()
        assert hasher.keys(texts) == [hasher.keys([text])[0] for text in texts]

    @pytest.mark.parametrize("words", [3, 8, 80])
    def test_the_estimate_is_unbiased(self, words: int) -> None:
        rng = random.Random(words)
        hasher = MinHasher(0.8, recall=0.999999)
        off, variance = 0.0, 0.0
        for _ in range(400):
            original = passage(rng, words)
            copy = " ".join(edited(rng, original, rng.randint(0, words // 3 + 1)).split())
            exact = plain_jaccard(original, copy)
            off += hasher.similarity(*hasher.signatures([original, copy])) - exact
            variance += exact * (1 - exact) / hasher.permutations
        assert abs(off) < 4 * math.sqrt(variance)

    def test_the_estimate_has_the_error_that_is_promised(self) -> None:
        rng = random.Random(5)
        hasher = MinHasher(0.8, recall=0.999999)
        errors = []
        for _ in range(400):
            original = passage(rng)
            copy = " ".join(edited(rng, original, 8).split())
            exact = plain_jaccard(original, copy)
            spread = math.sqrt(exact * (1 - exact) / hasher.permutations)
            errors.append((hasher.similarity(*hasher.signatures([original, copy])) - exact) / spread)
        assert np.std(errors) < 1.1

    @pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
    def test_pairs_are_detected_as_the_s_curve_says(self, threshold: float) -> None:
        rng = random.Random(9)
        hasher = MinHasher(threshold, recall=0.9)
        pairs = []
        for _ in range(800):
            original = passage(rng, 60)
            pairs.append((original, " ".join(edited(rng, original, rng.randint(0, 40)).split())))
        left, right = (hasher.keys(texts) for texts in zip(*pairs, strict=True))
        found = sum(not set(a).isdisjoint(b) for a, b in zip(left, right, strict=True))
        chances = [hasher.detection_probability(plain_jaccard(*pair)) for pair in pairs]
        assert abs(found - sum(chances)) < 4 * math.sqrt(sum(chance * (1 - chance) for chance in chances))

    def test_every_process_says_the_same(self) -> None:
        code = (
            "import json, sys; from rarebit.retrievers.near_duplicates import MinHasher; "
            "print(json.dumps(MinHasher(0.9).keys(json.loads(sys.argv[1]))))"
        )
        for seed in ("1", "2"):
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            done = subprocess.run(
                [sys.executable, "-c", code, json.dumps(SAMPLES)], env=environment, capture_output=True, text=True, check=True
            )
            assert json.loads(done.stdout) == MinHasher(0.9).keys(SAMPLES)

    @pytest.mark.parametrize("unit", ["a", "ab", "水", "The kettle is on. "])
    def test_a_megabyte(self, unit: str) -> None:
        huge = unit * (2**20 // len(unit))
        assert near_duplicate_of([huge, "The kettle", huge + "!", huge[: len(huge) // 2]], 0.3) == [None, None, 0, 0]

    def test_a_megabyte_of_different_words(self) -> None:
        rng = random.Random(3)
        huge = passage(rng, 160_000)
        assert near_duplicate_of([huge, edited(rng, huge, 1000), passage(rng, 160_000)], 0.9) == [None, 0, None]

    @pytest.mark.unchecked
    @pytest.mark.parametrize("wrong", [0, -0.1, 1.01, 80, math.nan, math.inf, "high", None, True, [0.8]])
    def test_a_threshold_out_of_range_is_refused(self, wrong: object) -> None:
        for call in (lambda: MinHasher(wrong), lambda: near_duplicate_of(["a"], wrong), lambda: unique([], wrong)):  # type: ignore[arg-type]
            with pytest.raises(InputError, match=r"threshold=.*at most 1"):
                call()

    @pytest.mark.parametrize("wrong", [0.0, 1.0, -1.0, math.nan])
    def test_a_recall_that_cannot_be_is_refused(self, wrong: float) -> None:
        with pytest.raises(InputError, match="recall="):
            MinHasher(recall=wrong)

    def test_its_repr_says_what_was_chosen(self) -> None:
        assert repr(MinHasher(0.8)) == "MinHasher(threshold=0.8, rows=4, n_bands=9)"


class TestNearDuplicateOf:
    @pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
    def test_it_finds_what_brute_force_finds(self, threshold: float) -> None:
        texts = [" ".join(text.split()) for text in families(random.Random(11), count=40, members=5, most_edits=40)]
        kept: list[int] = []
        for position, original in enumerate(near_duplicate_of(texts, threshold)):
            alike = [earlier for earlier in kept if plain_jaccard(texts[earlier], texts[position]) >= threshold]
            assert original in alike if alike else original is None
            if original is None:
                kept.append(position)
        assert len(kept) < len(texts)

    @given(
        st.lists(st.one_of(st.sampled_from([*SAMPLES, *BLANK]), st.text(max_size=20)), max_size=12),
        st.sampled_from([0.3, 0.8, 1.0]),
    )
    def test_who_stands_for_another_stands_for_itself(self, texts: list[str], threshold: float) -> None:
        before = list(texts)
        originals = near_duplicate_of(texts, threshold)
        assert texts == before
        assert len(originals) == len(texts)
        for position, original in enumerate(originals):
            if original is None:
                continue
            assert original < position
            assert originals[original] is None
            assert jaccard(shingles(texts[original]), shingles(texts[position])) >= threshold
        groups = unique(texts, threshold)
        assert sorted(groups) == [*groups]
        assert sorted([*groups, *(later for rest in groups.values() for later in rest)]) == [*range(len(texts))]

    @given(st.lists(st.text(max_size=12), max_size=12), st.sampled_from([0.5, 1.0]))
    def test_the_same_text_again_is_a_duplicate(self, texts: list[str], threshold: float) -> None:
        again = near_duplicate_of([*texts, *texts], threshold)[len(texts) :]
        assert [original is None for original in again] == [not normalized(text) for text in texts]

    def test_blank_texts_duplicate_nothing(self) -> None:
        assert near_duplicate_of([*BLANK, *BLANK]) == [None] * 10

    def test_only_who_stays_stands_for_others(self) -> None:
        a = "".join(random.Random(2).choices("abcdefghij", k=400))
        b, c = a[30:] + "k" * 4, a[60:]
        assert jaccard(shingles(a), shingles(b)) > 0.85
        assert jaccard(shingles(b), shingles(c)) > 0.85
        assert jaccard(shingles(a), shingles(c)) < 0.87
        assert near_duplicate_of([a, b, c], 0.87) == [None, 0, None]

    def test_other_languages(self) -> None:
        japanese, german = SAMPLES[2], SAMPLES[1]
        changed = unicodedata.normalize("NFD", german).upper()
        assert near_duplicate_of([japanese, german, japanese + "了", changed], 0.8) == [None, None, 0, 1]

    def test_groups(self) -> None:
        assert unique(["tea", "coffee", "TEA ", "tea", ""]) == {0: [2, 3], 1: [], 4: []}
        assert unique([]) == {}

    def test_a_text_alone_is_refused(self) -> None:
        with pytest.raises(InputError, match="list of texts"):
            near_duplicate_of("The kettle is on.")
