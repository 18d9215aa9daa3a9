"""Flipped bits in every table and index of a file: what is asked is answered right, or refused with an error of ours."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import damage
from support.vectors import clustered

from rarebit import Collection, Compare
from rarebit.errors import RarebitError
from rarebit.retrievers.collection import index_cache

pytestmark = [pytest.mark.slow, pytest.mark.unchecked]

FLIPS = 24
"""Of each region; most regions have few pages."""

DIM, COUNT = 32, 1200
QUERY = clustered(1, DIM, seed=3)[0]
THIRD = Compare("n", "eq", 3)

QUESTIONS: dict[str, Callable[[Collection], object]] = {
    "search": lambda c: c.search(QUERY, 10),
    "filtered search": lambda c: c.search(QUERY, 10, filter=THIRD),
    "search by a long field": lambda c: c.search(QUERY, 10, filter=Compare("long", "like", "y%")),
    "count": lambda c: c.count(),
    "filtered count": lambda c: c.count(THIRD),
    "rows by filter": lambda c: c.get(filter=THIRD),
    "every row": list,
    "vectors": lambda c: c.vectors(["1", "900"]).tolist(),
    "names of tenants": lambda c: c.tenants(),
    "rows by id": lambda c: c.get(["7", "77", "1150", "nothing"]),
    "presence": lambda c: ["55" in c, "nothing" in c],
    "search of a tenant": lambda c: c.tenant("ann").search(QUERY, 10),
    "filtered search of a tenant": lambda c: c.tenant("bob").search(QUERY, 10, filter=THIRD),
    "rows of a tenant by id": lambda c: c.tenant("ann").get(["7", "17", "250"]),
    "every row of a tenant": lambda c: list(c.tenant("ann")),
    "counts of a tenant": lambda c: [c.tenant("ann").count(), c.tenant("bob").count(THIRD)],
    "lexical search": lambda c: c.search_lexical("word3 text", 10),
    "lexical search of a tenant": lambda c: c.tenant("ann").search_lexical("ann", 10),
}

LEXICAL = {name for name in QUESTIONS if name.startswith("lexical")}
OF_TENANTS = {name for name in QUESTIONS if "of a tenant" in name}
BY_ID = {"rows by id", "presence", "rows of a tenant by id", "vectors"}

LIMITS: dict[str, set[str]] = {
    "sqlite_autoindex_rows_1": BY_ID,
    "sqlite_autoindex_tenants_1": OF_TENANTS,
    "shared": OF_TENANTS,
    **dict.fromkeys(("lexical_data", "lexical_idx", "lexical_docsize", "lexical_config"), LEXICAL),
}
"""Region -> what can be answered wrongly from it without an error; check() names each."""


@pytest.fixture(scope="module", autouse=True)
def _codes_beside_the_database() -> Iterator[None]:
    """Files have an index beside them from fewer rows than usual."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_cache, "FEWEST_ROWS", 100)
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, _codes_beside_the_database: None) -> Path:
    path = tmp_path_factory.mktemp("flips") / "c.rarebit"
    ids = [str(n) for n in range(COUNT)]
    texts = [f"text {n} word{n % 11}" + " long" * (2000 if n == 77 else 0) for n in range(COUNT)]
    metadatas = [
        {"n": n % 7, "tags": ["a"], "name": f"name {n}", "long": "y" * (300 if n % 5 == 0 else 3)} for n in range(COUNT)
    ]
    with Collection.open(path, training_minimum=300) as collection:
        collection.add(clustered(COUNT, DIM), texts, metadatas, ids)
        for name in ("ann", "bob"):
            texts = [f"{name} {n}" for n in range(60)]
            collection.tenant(name).add(clustered(60, DIM, seed=ord(name[0])), texts, metadatas[:60], ids[:60])
        collection.share(ids[:200])
        collection.share(ids[200:300], tenants=["ann"])
        collection.tenant("ann").delete(["103", "104"])
        collection.delete([*ids[1000:1040], "40"])
    return path


@pytest.fixture(scope="module")
def right(file: Path) -> dict[str, object]:
    with Collection.open(file) as collection:
        assert collection.check() == []
        answers = {name: ask(collection) for name, ask in QUESTIONS.items()}
    assert [part.name for part, _ in damage.files_of(file)] == ["c.rarebit", "c.rarebit-index"]
    assert [hit.score for hit in answers["search"]]  # type: ignore[attr-defined]
    return answers


def wrong_answers(path: Path, right: dict[str, object]) -> Iterator[str]:
    """Ask a damaged file everything; what goes wrong otherwise than by an error of ours goes through."""
    try:
        collection = Collection.open(path)
    except RarebitError:
        return
    with collection:
        for name, ask in QUESTIONS.items():
            try:
                if ask(collection) != right[name]:
                    yield name
            except RarebitError:
                pass


def problems(path: Path) -> list[str]:
    try:
        with Collection.open(path) as collection:
            return collection.check()
    except RarebitError as error:
        return [str(error)]


def regions() -> list[str]:
    """Name the regions that a file has: those of a new one, and pages of deleted rows."""
    collection = Collection.open()
    tables = collection._engine.storage._main.execute("SELECT name FROM sqlite_master WHERE rootpage > 0")  # type: ignore[union-attr]
    return [".rarebit-index", "header", "sqlite_schema", "unused", *sorted(name for (name,) in tables)]


@pytest.mark.parametrize("region", regions())
def test_a_flipped_bit_is_no_wrong_answer(file: Path, right: dict[str, object], tmp_path: Path, region: str) -> None:
    parts = {part.name: part.read_bytes() for part, _ in damage.files_of(file)}
    for part, find in damage.files_of(file):
        where, copy = find(part).get(region, []), tmp_path / file.name
        for turn, flipped in enumerate(damage.flips(parts[part.name], where, random.Random(region), FLIPS) if where else ()):
            for name, content in {**parts, part.name: flipped}.items():
                (tmp_path / name).write_bytes(content)
            wrong = set(wrong_answers(copy, right))
            assert wrong <= LIMITS.get(region, set()), f"flip {turn} of {region}"
            assert not wrong or problems(copy), f"check() does not see flip {turn} of {region}, and wrong are {wrong}"


LENGTHS = [2, 99, 100, 101, 4095, 4096, 4097, *(4096 * page for page in (2, 3, 5, 8, 13, 21, 34, 55)), -4096, -4095, -1]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_file_that_was_cut_off_is_no_wrong_answer(file: Path, right: dict[str, object], tmp_path: Path, length: int) -> None:
    content, copy = file.read_bytes(), tmp_path / file.name
    copy.write_bytes(content[:length])
    assert not set(wrong_answers(copy, right))
    assert problems(copy)


def test_every_page_belongs_to_a_region(file: Path) -> None:
    places = sorted(place for where in damage.of_database(file).values() for part in where for place in (part.start, part.stop))
    assert places[0] == 0
    assert places[-1] == file.stat().st_size
    assert {*damage.of_database(file), ".rarebit-index"} == set(regions())
