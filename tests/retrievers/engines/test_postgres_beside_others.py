"""What other roles, other clients and other settings of the server must not do to a collection."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="PostgreSQL needs the extra postgres")

from psycopg import sql
from support.postgres import admin, connected, schema_of
from support.servers import DIM, IDS, VECTORS

from rarebit import Collection, Compare
from rarebit.arrays import normalized
from rarebit.errors import (
    EngineLimitError,
    EngineUnreachableError,
    InputError,
    ReadOnlyError,
)
from rarebit.retrievers.engines.moving import move
from rarebit.retrievers.engines.postgres.connections import SETTINGS as SCAN
from rarebit.retrievers.engines.postgres.connections import Connections
from rarebit.retrievers.engines.postgres.filters import Condition
from rarebit.retrievers.engines.searching import Choice


def test_rows_far_from_the_query_among_many_others(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarebit.retrievers.engines.postgres.indexes.FROM", 1000)
    monkeypatch.setattr("rarebit.retrievers.engines.postgres.searching.FEW", 50)
    monkeypatch.setitem(SCAN, "hnsw.max_scan_tuples", "200")
    near = normalized(np.abs(np.random.default_rng(2).standard_normal((3000, DIM))).astype(np.float32))
    with connected(postgres, training_minimum=1000) as collection:
        collection.tenant("crowd").add(near)
        collection.add(-near[:300], ids=[f"own {row}" for row in range(300)], metadatas=[{"n": row} for row in range(300)])
        collection.tenant("small").add(-near[:200])
        with admin(postgres) as server:
            server.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema_of(collection), "rows")))
        for k in (10, 120):
            assert len(collection.search(near[0], k)) == k
            assert len(collection.search(near[0], k, filter=Compare("n", "gte", 100))) == k
            assert len(collection.tenant("small").search(near[0], k)) == k
            assert [len(found) for found in collection.search_many(near[:3], k)] == [k] * 3
        best = np.argsort(-(-near[:300] @ near[0]), kind="stable")[0]
        assert collection.search(near[0], 1)[0].id == f"own {best}"


@pytest.mark.parametrize("trained", [False, True])
def test_rows_that_are_replaced_while_they_are_searched(
    postgres: str, monkeypatch: pytest.MonkeyPatch, *, trained: bool
) -> None:
    with connected(postgres, training_minimum=100 if trained else 10_000) as collection:
        collection.add(VECTORS[:200], texts=["0"] * 200, ids=IDS[:200])
        before = [collection.search(query, 5) for query in VECTORS[:3]]
        asked: list[int] = []

        def chosen_late(self: Any, found: Any, *, choose: Any = Choice.__call__) -> Any:
            asked.append(1)
            best = choose(self, found)
            with Collection.connect(postgres, collection._engine.name) as other:
                if len(asked) == 1:
                    other.delete([before[0][1].id])
                other.add(VECTORS[:3], texts=[str(len(asked))] * 3, ids=IDS[:3])
            return best

        monkeypatch.setattr(Choice, "__call__", chosen_late)
        after = collection.search_many(VECTORS[:3], 5)
        assert len(asked) == 2
        gone = before[0][1].id
        assert [[hit.id for hit in own if hit.id != gone][:4] for own in before] == [
            [hit.id for hit in own][:4] for own in after
        ]
        assert [own[0].text for own in after] == ["1"] * 3  # as of the second time, before what was written in it
        assert {hit.text for own in after for hit in own if hit.id not in IDS[:3]} == {"0"}


def test_functions_that_somebody_puts_into_public(postgres: str, collection: Any) -> None:
    with admin(postgres) as server:
        for name, arguments in (
            ("hashtextextended", "text, integer"),
            ("hashtextextended", "text, bigint"),
            ("to_tsvector", "text, text"),
            ("strpos", "text, text"),
        ):
            server.execute(
                f"CREATE OR REPLACE FUNCTION public.{name}({arguments}) RETURNS bigint LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'somebody else was called'; END $$"
            )
        try:
            with connected(postgres) as other:
                for each in (other, collection):
                    each.add([[1.0, 2.0]], ids=["a"], texts=["the kettle"], metadatas=[{"k": "tea"}])
                    assert each.search_lexical("kettle", 1)[0].id == "a"
                    assert each.search([1.0, 2.0], 1, filter=Compare("k", "text_match", "e"))[0].id == "a"
        finally:
            server.execute("DROP FUNCTION public.hashtextextended(text, integer), public.hashtextextended(text, bigint)")
            server.execute("DROP FUNCTION public.to_tsvector(text, text), public.strpos(text, text)")


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_other_levels_of_isolation(postgres: str, level: str) -> None:
    with admin(postgres) as server:
        server.execute(f"ALTER DATABASE postgres SET default_transaction_isolation = '{level}'")
        try:
            with connected(postgres, training_minimum=500) as collection:
                with Collection.connect(postgres, collection._engine.name) as other:
                    other.add(VECTORS[:400], ids=IDS[:400])
                    collection.add(VECTORS[400:600], ids=IDS[400:600])
                    other.add(VECTORS[600:605], ids=IDS[600:605])
                assert collection.search(VECTORS[602], 1)[0].id == "602"
        finally:
            server.execute("ALTER DATABASE postgres RESET default_transaction_isolation")


def test_a_client_that_was_there_before_the_first_row(postgres: str, collection: Any) -> None:
    with Collection.connect(postgres, collection._engine.name) as early:
        collection.add([[1.0, 2.0]], ids=["a"])
        assert early.vectors(["a"]).shape == (1, 2)
        assert early.sample_vectors(1).shape == (1, 2)
        assert early.search([1.0, 2.0], 1)[0].id == "a"


def test_read_only_changes_nothing_at_all(postgres: str, collection: Any) -> None:
    with Collection.connect(postgres, collection._engine.name, read_only=True, dim=7, fingerprint="model") as reader:
        reader.check_fingerprint("model")
    assert collection.settings.dim is None
    assert collection.settings.fingerprint.name is None
    with Collection.open() as source, Collection.connect(postgres, collection._engine.name, read_only=True) as reader:
        source.add([[1.0, 2.0]], ids=["a"])
        with pytest.raises(ReadOnlyError):
            move(source, reader)
    assert collection.count() == 0


def test_a_role_with_more_rights_than_it_needs_trains_nothing(postgres: str) -> None:
    with connected(postgres, training_minimum=300) as collection:
        collection.tenant("other").add(VECTORS[:200], ids=IDS[:200])
        with admin(postgres) as server:
            server.execute("DROP ROLE IF EXISTS eager_role")
            server.execute("CREATE ROLE eager_role LOGIN")
        collection.grant("eager_role", "acme")
        with admin(postgres) as server:
            grant = sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA {} TO eager_role")
            server.execute(grant.format(sql.Identifier(schema_of(collection))))
        url = postgres.replace("postgres:@", "eager_role:@")
        with Collection.connect(url, collection._engine.name) as theirs:
            theirs.tenant("acme").add(VECTORS[200:800], ids=IDS[200:800])
        assert not collection.stats().trained
        assert collection.tenant("other").search(VECTORS[5], 1)[0].id == "5"


def test_roles_that_no_policy_binds_get_no_tenant(postgres: str, collection: Any) -> None:
    with admin(postgres) as server:
        server.execute("DROP ROLE IF EXISTS passing_role")
        server.execute("CREATE ROLE passing_role LOGIN BYPASSRLS")
    for role in ("passing_role", "postgres", "nobody at all", ""):
        with pytest.raises(InputError, match="role="):
            collection.grant(role, "acme")


def test_what_the_server_refuses_is_no_broken_connection(collection: Any) -> None:
    with pytest.raises(InputError, match=r"8,000 bytes"):
        collection.add([[1.0, 2.0]], ids=["x" * 8000])
    with pytest.raises(InputError, match="beside the tenant"):
        collection.tenant("日" * 800).add([[1.0, 2.0]], ids=["x" * 200])
    assert collection.count() == 0
    words = " ".join(f"{number:x}é{number}" for number in range(60_000))
    collection.add([[1.0, 2.0]], ids=["long"], texts=[words])
    assert collection.search_lexical("5é5", 1)[0].id == "long"


def test_a_deletion_whose_answer_is_lost_is_said(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    collection.add(VECTORS[:5], ids=IDS[:5])
    plain = Condition.__init__

    def breaking(self: Condition, tree: Any, schema: str) -> None:
        plain(self, tree, schema)
        self.sql = f"{self.sql} AND pg_terminate_backend(pg_backend_pid())"

    monkeypatch.setattr(Condition, "__init__", breaking)
    with pytest.raises(EngineUnreachableError, match="unknown"):
        collection.delete(["0"])
    monkeypatch.undo()
    assert collection.count() == 5


@pytest.mark.parametrize("url", ["host=localhost password=secret dbname=x", "postgresql:/u:secret@h/x", "u:secret@h"])
def test_nothing_of_an_address_that_is_none_is_shown(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Collection.connect(url)
    assert "secret" not in str(caught.value)


def test_keys_are_passwords_too(postgres: str) -> None:
    connections = Connections(f"{postgres}&scram_client_key=secret", 2.0)
    assert "secret" not in connections.where
    assert b"secret" not in pickle.dumps(connections)


@pytest.mark.unchecked
def test_generators_and_other_arguments(collection: Any) -> None:
    texts, metadatas = (text for text in ["x", "y"]), ({"n": n} for n in range(2))
    assert collection.add([[1.0, 2.0], [2.0, 1.0]], texts=texts, metadatas=metadatas, ids=["a", "b"]) == ["a", "b"]
    assert collection.get(["b"])[0].metadata == {"n": 1}
    with pytest.raises(InputError, match="near_duplicates"):
        collection.add([[1.0, 2.0]], near_duplicates="what")
    for call in (
        lambda: collection.search([1.0, 2.0], explain=True),
        collection.recompress,
        collection.check,
        collection.compact,
    ):
        with pytest.raises(EngineLimitError):
            call()
    assert collection.search_lexical("\ud800", 3) == []


def test_every_public_name_of_an_embedded_collection(collection: Any) -> None:
    classmethods = {"open", "load", "connect"}
    wanted = {name for name in dir(Collection) if not name.startswith("_")} - classmethods
    assert wanted <= {name for name in dir(collection) if not name.startswith("_")}
