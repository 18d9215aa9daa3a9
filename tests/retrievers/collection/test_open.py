"""Opening: creation, settings, fingerprints, foreign and newer files, read-only."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from rarebit import Collection, EmbeddingFingerprint
from rarebit.errors import (
    ClosedError,
    CollectionNotFoundError,
    DimensionError,
    FingerprintError,
    ForeignFileError,
    FormatVersionError,
    InputError,
    ReadOnlyError,
    SettingsError,
    StorageError,
)
from rarebit.retrievers.collection.storage import Storage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docs.rarebit"


def test_created_on_first_use_and_found_again(path: Path) -> None:
    with Collection.open(path) as collection:
        collection.add([[1, 2, 3]], texts=["one"], ids=["a"])
    with Collection.open(path) as collection:
        assert [(row.id, row.text) for row in collection] == [("a", "one")]
        assert collection.settings.dim == 3


def test_settings_are_kept_and_cannot_be_changed(path: Path) -> None:
    Collection.open(path, metric="inner_product", codec="sq8", fine="float16", tokenizer="trigram", dim=4).close()
    with Collection.open(path) as collection:
        settings = collection.settings
        assert (settings.metric, settings.codec, settings.fine) == ("inner_product", "sq8", "float16")
        assert (settings.tokenizer, settings.dim) == ("trigram", 4)
    for changed in ({"metric": "cosine"}, {"codec": "rabitq"}, {"fine": "none"}, {"tokenizer": "porter"}, {"dim": 5}):
        with pytest.raises(SettingsError, match=next(iter(changed))):
            Collection.open(path, **changed)  # type: ignore[arg-type]
    Collection.open(path, metric="inner_product", codec="sq8", dim=4).close()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "setting",
    [
        {"metric": "l2"},
        {"codec": "pq"},
        {"codec": "int8"},
        {"codec": "pca16"},
        {"memory_per_vector": 9},
        {"target_recall": 1.5},
        {"codec": "sq8", "memory_per_vector": 48},
        {"fine": "int3"},
        {"tokenizer": "x"},
        {"dim": 0},
        {"training_minimum": 0},
    ],
)
def test_unknown_settings_are_refused_before_a_file_is_made(path: Path, setting: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        Collection.open(path, **setting)  # type: ignore[arg-type]
    assert not path.exists()


def test_the_dimension_can_be_given(path: Path) -> None:
    with Collection.open(path, dim=3) as collection, pytest.raises(DimensionError, match="dimension 2, wanted 3"):
        collection.add([[1, 2]])
    with Collection.open(path) as collection:
        assert collection.count() == 0


def test_fingerprints_that_differ_are_refused(path: Path) -> None:
    Collection.open(path, fingerprint=EmbeddingFingerprint("minilm", revision="1")).close()
    with pytest.raises(FingerprintError, match="'bge' instead of 'minilm'"):
        Collection.open(path, fingerprint="bge")
    with pytest.raises(FingerprintError, match="revision"):
        Collection.open(path, fingerprint=EmbeddingFingerprint("minilm", revision="2"))


def test_unknown_parts_of_a_fingerprint_agree_and_are_filled_in(path: Path) -> None:
    Collection.open(path).close()
    Collection.open(path, fingerprint="minilm").close()
    Collection.open(path, fingerprint=EmbeddingFingerprint("minilm", prompts={"query": "q: "})).close()
    with Collection.open(path) as collection:
        assert collection.settings.fingerprint == EmbeddingFingerprint("minilm", prompts={"query": "q: "})
    with pytest.raises(FingerprintError, match="prompts"):
        Collection.open(path, fingerprint=EmbeddingFingerprint("minilm", prompts={"query": "other"}))


def test_one_model_has_many_names(path: Path) -> None:
    with Collection.open(path, fingerprint="sentence-transformers/all-MiniLM-L6-v2") as collection:
        collection.check_fingerprint("all-minilm-l6-v2:latest")
        collection.check_fingerprint("/models/all-MiniLM-L6-v2/")
        with pytest.raises(FingerprintError, match="bge"):
            collection.check_fingerprint("bge")
        collection.check_fingerprint(EmbeddingFingerprint(revision="1"))
        assert collection.settings.fingerprint.name == "sentence-transformers/all-MiniLM-L6-v2"
    with pytest.raises(FingerprintError, match="revision"):
        Collection.open(path, fingerprint=EmbeddingFingerprint(revision="2"))


def test_not_created_when_not_wanted(path: Path) -> None:
    with pytest.raises(CollectionNotFoundError, match="no file"):
        Collection.open(path, create=False)
    assert not path.exists()


def test_a_copy_is_opened_with_a_log_of_its_own(path: Path, tmp_path: Path) -> None:
    with Collection.open(path) as collection:
        collection.add([[1.0, 2.0]])
        collection.backup(tmp_path / "copy")
    with Collection.open(tmp_path / "copy") as copy:
        assert copy._engine.storage._main.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_dimension_is_known_after_the_first_rows(path: Path) -> None:
    with Collection.open(path) as collection:
        assert collection.settings.dim is None
        collection.add([[1.0, 2.0]])
        assert collection.settings.dim == 2


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    content = b"this is a text file, and a rather long one" * 100
    path.write_bytes(content)
    with pytest.raises(ForeignFileError, match="no SQLite file"):
        Collection.open(path)
    assert path.read_bytes() == content


def test_another_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ForeignFileError, match="not a Rarebit collection"):
        Collection.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("version", "advice"), [(99, "upgrade rarebit"), (3, "make the collection anew")])
def test_another_format_is_refused(path: Path, version: int, advice: str) -> None:
    Collection.open(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {version}")
    raw.close()
    with pytest.raises(FormatVersionError, match=f"format {version}.*{advice}$"):
        Collection.open(path)


def test_an_empty_file_is_filled(path: Path) -> None:
    path.touch()
    with Collection.open(path) as collection:
        collection.add([[1.0]])
    with Collection.open(path) as collection:
        assert collection.count() == 1


def test_a_creation_that_was_killed_keeps_its_tokenizer(path: Path) -> None:
    """The tables are there, and the settings are not."""
    Storage(path, read_only=False, tokenizer="trigram", lock_timeout=1.0).close()
    with pytest.raises(SettingsError, match="tokenizer='trigram'"):
        Collection.open(path, tokenizer="porter")
    with Collection.open(path) as collection:
        assert collection.settings.tokenizer == "trigram"
        collection.add([[1.0]], texts=["foxes"], ids=["a"])
        assert [hit.id for hit in collection.search_lexical("oxe")] == ["a"]


def test_a_reader_follows_a_writer_that_comes_where_it_may_not_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vectors(count: int) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((count, 4))

    with Collection.open(path) as collection:
        collection.add(vectors(50))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Collection.open(path, read_only=True) as reader:
        storage = reader._engine.storage
        with storage.read(), storage.read():  # two connections that know of no log
            assert len(reader.search([1.0] * 4, 100)) == 50
        with reader._engine.snapshot() as before, Collection.open(path) as writer:
            writer.add(vectors(20))
            assert len(reader.search([1.0] * 4, 100)) == 70
            assert len(before.live) == 50
            for _ in range(4):
                with storage.read():
                    assert len(reader.search([1.0] * 4, 100)) == 70
        assert len(reader.search([1.0] * 4, 100)) == 70


def test_read_only(path: Path) -> None:
    with pytest.raises(CollectionNotFoundError, match="only a writable open creates one"):
        Collection.open(path, read_only=True)
    assert not path.exists()
    with Collection.open(path) as collection:
        collection.add([[1, 0], [0, 1]], ids=["a", "b"])
        with Collection.open(path, read_only=True) as reader:
            assert [hit.id for hit in reader.search([0, 1], 1)] == ["b"]
            collection.add([[1, 1]], ids=["c"])
            assert reader.count() == 3
            for write in (lambda: reader.add([[1, 1]]), lambda: reader.delete(["a"]), reader.delete_all):
                with pytest.raises(ReadOnlyError, match="read_only"):
                    write()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_in_a_folder_that_cannot_be_written(path: Path) -> None:
    with Collection.open(path) as collection:
        collection.add([[1, 0]])
    path.parent.chmod(0o500)
    try:
        with Collection.open(path, read_only=True) as reader:
            assert reader.count() == 1
    finally:
        path.parent.chmod(0o700)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="folder"):
        Collection.open(tmp_path / "nowhere" / "docs.rarebit")


def test_closed_means_closed(path: Path) -> None:
    for collection in (Collection.open(path), Collection.open()):
        collection.close()
        collection.close()
        with pytest.raises(ClosedError, match="open it again"):
            collection.count()
        with pytest.raises(ClosedError, match="open it again"):
            collection.search([1.0])
        with pytest.raises(ClosedError, match="open it again"):
            collection.add([[1.0]])
        with pytest.raises(ClosedError, match="open it again"):
            collection.stats()


def test_names_with_odd_characters(tmp_path: Path) -> None:
    for name in ("with space", "per%20cent", "question?mark=1", "hash#tag", "日本語"):
        with Collection.open(tmp_path / name) as collection:
            collection.add([[1.0]])
        assert (tmp_path / name).exists()
        with Collection.open(str(tmp_path / name), read_only=True) as collection:
            assert collection.count() == 1
