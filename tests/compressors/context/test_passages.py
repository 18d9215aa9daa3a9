"""Passages behind references: the vectors that the store has, or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rarebit import Collection
from rarebit.compressors.context import Passage, Passages, PassageSource, Reference, passages
from rarebit.errors import InputError, MissingRowError, VectorError

pytest.importorskip("torch", reason="the helpers need the extra models")

from support.tiny_language_model import CountingEmbed, embed

TEXTS = ["bab teck lidge", "gull mong", "tull peck"]
IDS = ["a", "b", "c"]


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "rows.rarebit") as opened:
        opened.add(embed(TEXTS), texts=TEXTS, ids=IDS)
        yield opened


def found(own: Passages, written: Sequence[str]) -> list[Passage]:
    """Resolve references, all of which have to be genuine."""
    read = [part for text in written for part in own.read(text)]
    return own.resolve([part for part in read if isinstance(part, Reference)])


def test_a_collection_and_a_tenant_are_sources(collection: Collection) -> None:
    assert isinstance(collection, PassageSource)
    assert isinstance(collection.tenant("t"), PassageSource)


def test_vectors_are_those_of_the_store_in_the_order_asked_for(collection: Collection) -> None:
    own = Passages.of(collection)
    written = own.refer([TEXTS[2], TEXTS[0], TEXTS[2]], ["c", "a", "c"], ["third", "first", "again"])
    assert written[0].endswith("|third]]")
    given = found(own, written)
    assert [passage.text for passage in given] == [TEXTS[2], TEXTS[0], TEXTS[2]]
    assert [passage.reference.written for passage in given] == written
    np.testing.assert_array_equal(np.concatenate([passage.vectors for passage in given]), collection.vectors(["c", "a", "c"]))


def test_a_row_that_is_replaced_while_it_is_read_is_missed(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Passages.of(collection)
    written = own.refer(TEXTS[:1], IDS[:1])
    plain = collection.vectors

    def replacing(ids: Sequence[str]) -> np.ndarray:
        collection.add(embed(["new"]), texts=["new"], ids=IDS[:1])
        return plain(ids)

    monkeypatch.setattr(collection, "vectors", replacing)
    with pytest.raises(MissingRowError, match="has another text now"):
        found(own, written)


def test_references_are_bound_to_the_collection(collection: Collection, tmp_path: Path) -> None:
    (written,) = Passages.of(collection).refer(TEXTS[:1], IDS[:1])
    with Collection.open() as one, Collection.open() as other, Collection.open(tmp_path / "rows.rarebit") as again:
        for each in (one, other):
            each.add(embed(TEXTS), texts=TEXTS, ids=IDS)
        (in_one,) = Passages.of(one).refer(TEXTS[:1], IDS[:1])
        assert Passages.of(other).read(in_one) == [in_one]
        assert isinstance(Passages.of(one).read(in_one)[0], Reference)
        assert isinstance(Passages.of(again).read(written)[0], Reference)
        assert Passages.of(again.tenant("t")).read(written) == [written]
        assert isinstance(
            Passages.of(one, belonging="named").read(Passages.of(other, belonging="named").refer(TEXTS, IDS)[0])[0], Reference
        )


def test_nothing_asked_for_is_nothing(collection: Collection) -> None:
    own = Passages.of(collection)
    assert own.resolve([]) == []
    assert own.refer([], []) == []
    assert own.read("") == [""]
    assert own.pieces("") == 1


def test_a_replaced_row_is_missed_and_so_is_a_deleted_one(collection: Collection) -> None:
    own = Passages.of(collection)
    first, second, third = own.refer(TEXTS, IDS)
    collection.add(embed(["another"]), texts=["another"], ids=["a"])
    with pytest.raises(MissingRowError, match=r"passage 'a'.*another text now.*retrieve it again"):
        found(own, [third, first])
    collection.delete(["b"])
    with pytest.raises(MissingRowError, match=r"passage 'b'.*not there any more"):
        found(own, [second])
    assert found(own, [third])[0].text == TEXTS[2]


def test_a_row_that_is_as_it_was_again_is_found_again(collection: Collection) -> None:
    own = Passages.of(collection)
    (written,) = own.refer(TEXTS[:1], IDS[:1])
    collection.add(embed(["another"]), texts=["another"], ids=["a"])
    collection.add(embed(["moved"]), texts=TEXTS[:1], ids=["a"])
    np.testing.assert_array_equal(found(own, [written])[0].vectors, collection.vectors(["a"]))


def test_references_of_other_tenants_and_files_are_text(collection: Collection, tmp_path: Path) -> None:
    one, other = collection.tenant("one"), collection.tenant("other")
    for tenant in (one, other):
        tenant.add(embed(TEXTS), texts=TEXTS, ids=IDS)
    with Collection.open(tmp_path / "others.rarebit") as another:
        another.add(embed(TEXTS), texts=TEXTS, ids=IDS)
        sources = [Passages.of(rows) for rows in (collection, one, other, another)]
        for writer in sources:
            written = writer.refer(TEXTS, IDS)
            for reader in sources:
                read = [reader.read(text) for text in written]
                if reader is writer:
                    assert [passage.text for passage in found(reader, written)] == TEXTS
                else:
                    assert read == [[text] for text in written]


def test_another_handle_of_the_same_rows_reads_them(collection: Collection) -> None:
    tenant = collection.tenant("one")
    tenant.add(embed(["its own"]), texts=["its own"], ids=["x"])
    collection.share(["a"], tenants=["one"])
    written = Passages.of(tenant).refer(["its own", TEXTS[0]], ["x", "a"])
    given = found(Passages.of(collection.tenant("one")), written)
    np.testing.assert_array_equal(np.concatenate([passage.vectors for passage in given]), tenant.vectors(["x", "a"]))


def test_what_is_not_in_the_store_is_embedded_once(collection: Collection) -> None:
    counting = CountingEmbed()
    own = Passages.of(collection, embed=counting)
    texts = ["loose", TEXTS[0], "loose", "changed on the way"]
    ids = [None, "a", "nowhere", "b"]
    written = own.refer(texts, ids)
    assert counting.calls == [["loose", "changed on the way"]]
    for _ in range(2):
        given = found(own, [*written, written[0]])
        np.testing.assert_array_equal(
            np.concatenate([passage.vectors for passage in given]),
            np.concatenate([embed(["loose"]), collection.vectors(["a"]), embed(["loose", "changed on the way", "loose"])]),
        )
    own.refer(texts, ids)
    assert len(counting.calls) == 1
    assert own.refer(["loose"], [None]) == written[:1] == [written[2]]


def test_without_a_source_all_is_embedded() -> None:
    own = Passages(embed=embed)
    given = found(own, own.refer(["one", "two"], [None, "an id"]))
    np.testing.assert_array_equal(np.concatenate([passage.vectors for passage in given]), embed(["one", "two"]))


def test_what_cannot_be_embedded_is_refused(collection: Collection) -> None:
    own = Passages.of(collection)
    for text, key in (("loose", None), ("changed", "a"), (TEXTS[0], "b"), (TEXTS[0], None)):
        with pytest.raises(InputError, match="does not hold with this text"):
            own.refer([TEXTS[0], text], ["a", key])
    with pytest.raises(InputError, match="neither source nor embed"):
        Passages()
    with pytest.raises(InputError, match="split without embed"):
        Passages.of(collection, split=str.split)


def test_a_loose_passage_that_is_forgotten_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "KEPT", 2)
    own = Passages(embed=embed)
    first, second = own.refer(["one", "two"], [None, None])
    found(own, [first])
    (third,) = own.refer(["three"], [None])
    assert [passage.text for passage in found(own, [first, third])] == ["one", "three"]
    with pytest.raises(MissingRowError, match="newest 2"):
        found(own, [second])
    with pytest.raises(MissingRowError, match="in no store"):
        found(Passages(embed=embed), [first])


def test_an_id_like_that_of_a_loose_passage_stands_for_no_row(collection: Collection) -> None:
    own = Passages.of(collection, embed=embed)
    (loose,) = own.refer(["loose"], [None])
    (reference,) = [part for part in own.read(loose) if isinstance(part, Reference)]
    collection.add(embed(["planted"]), texts=["loose"], ids=[reference.id])
    assert own.refer(["loose"], [reference.id]) == [loose]
    np.testing.assert_array_equal(found(own, [loose])[0].vectors, embed(["loose"]))


def test_long_passages_have_a_vector_for_each_piece(collection: Collection) -> None:
    counting = CountingEmbed()
    own = Passages.of(collection, embed=counting, split=lambda text: text.split("."))
    long = "one. two.  .three."
    collection.add(embed([long]), texts=[long], ids=["long"])
    written = own.refer([long, TEXTS[0], "four.five"], ["long", "a", None])
    assert [own.pieces(text) for text in (long, TEXTS[0], "four.five", "...", "")] == [3, 1, 2, 1, 1]
    given = found(own, written)
    np.testing.assert_array_equal(given[0].vectors, embed(["one", " two", "three"]))
    np.testing.assert_array_equal(given[1].vectors, collection.vectors(["a"]))
    np.testing.assert_array_equal(given[2].vectors, embed(["four", "five"]))
    assert sorted(text for call in counting.calls for text in call) == sorted(["one", " two", "three", "four", "five"])
    collection.add(embed(["short"]), texts=["short"], ids=["long"])
    with pytest.raises(MissingRowError, match="another text now"):
        found(own, written[:1])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_vectors_as_texts_are_wanted(count: int) -> None:
    own = Passages(embed=lambda texts: embed([*texts, "more"])[:count])
    with pytest.raises(InputError, match=f"{count} vectors of embed, wanted 2"):
        own.refer(["one", "two"], [None, None])


@pytest.mark.unchecked
def test_vectors_that_are_none_are_refused() -> None:
    own = Passages(embed=lambda texts: np.full((len(texts), 3), np.nan))
    with pytest.raises(VectorError, match=r"nan|NaN|finite"):
        own.refer(["one"], [None])


def test_many_threads_refer_and_resolve(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "KEPT", 40)
    own = Passages.of(collection, embed=embed)

    def work(number: int) -> bool:
        texts, ids = [f"loose {number % 5}", TEXTS[number % 3]], [None, IDS[number % 3]]
        vectors = np.concatenate([passage.vectors for passage in found(own, own.refer(texts, ids))])
        return np.array_equal(vectors, np.concatenate([embed(texts[:1]), collection.vectors([IDS[number % 3]])]))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))


def test_the_source_is_named(collection: Collection) -> None:
    assert "Passages of" in repr(Passages.of(collection))
