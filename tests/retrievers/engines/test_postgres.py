"""PostgreSQL beside what the contract suite asks of it: training, tenants by the database's own means, and what goes wrong."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="PostgreSQL needs the extra postgres")

import psycopg
from psycopg import sql
from support.postgres import admin, break_connections, connected, schema_of
from support.servers import IDS, VECTORS

from rarebit import Collection, Compare
from rarebit.errors import (
    AccessError,
    CollectionNotFoundError,
    EngineLimitError,
    EngineUnreachableError,
    ForeignFileError,
    FormatVersionError,
    InputError,
    LockedError,
)
from rarebit.retrievers.engines.coding import Coding, Recoder


class TestTraining:
    def test_a_model_that_is_told_while_codes_are_learned(self, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with connected(postgres, training_minimum=400) as collection:
            collection.add(VECTORS[:450], ids=IDS[:450])
            engine = collection._engine
            before, sample = engine.kept(), engine.sample

            def draw(generation: int, most: int) -> Any:
                monkeypatch.undo()  # only once: candidates are measured on a sample, too
                Collection.connect(postgres, engine.name, fingerprint="model").close()
                return sample(generation, most)

            monkeypatch.setattr(engine, "sample", draw)
            collection.train()
            after = engine.kept()
            assert after.generation != before.generation
            assert collection.settings.fingerprint.name == "model"
            other = replace(after, settings=replace(after.settings, trained_rows=1))
            assert not engine.retrain(other, other, Recoder(Coding(after), Coding(after)))  # settings that are not those
            assert engine.kept(fresh=True).settings == after.settings

    def test_one_that_was_refused_says_so(self, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with connected(postgres, training_minimum=40) as collection:
            monkeypatch.setattr(collection._engine, "retrain", lambda *_: False)
            collection.add(VECTORS[:50], ids=IDS[:50])  # due, and left to a later write
            with pytest.raises(LockedError, match="train it again"):
                collection.train()

    def test_copies_cannot_be_learned_from(self, collection: Any) -> None:
        with pytest.warns(UserWarning, match="cannot be learned"):
            collection.add(np.tile(VECTORS[:2], (600, 1)))
        assert collection.count() == 1200
        assert collection.search(VECTORS[0], 1)[0].score == pytest.approx(1.0, abs=1e-6)


class TestTenants:
    def test_a_role_sees_its_tenant_alone(self, postgres: str, collection: Any) -> None:
        for name in ("acme", "other"):
            collection.tenant(name).add([[1.0, 0.0], [0.0, 1.0]], texts=[name, name], ids=["a", "b"])
        collection.add([[1.0, 1.0]], ids=["own"])
        rows = sql.Identifier(schema_of(collection), "rows")
        with admin(postgres) as server:
            server.execute("DROP ROLE IF EXISTS acme_role")
            server.execute("CREATE ROLE acme_role LOGIN")
        collection.grant("acme_role", "acme")
        url = postgres.replace("postgres:@", "acme_role:@")
        with psycopg.connect(url, autocommit=True) as own:
            select = sql.SQL("SELECT tenant, id, text FROM {} ORDER BY id").format(rows)
            assert own.execute(select).fetchall() == [("acme", "a", "acme"), ("acme", "b", "acme")]
            insert = sql.SQL("INSERT INTO {} (tenant, id, text, metadata, code) VALUES ('other', 'z', '', '{{}}', '')").format(
                rows
            )
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                own.execute(insert)
            assert own.execute(sql.SQL("UPDATE {} SET text = 'x' WHERE tenant = 'other'").format(rows)).rowcount == 0
            assert own.execute(sql.SQL("DELETE FROM {} WHERE tenant <> 'acme'").format(rows)).rowcount == 0
        with Collection.connect(url, collection._engine.name) as theirs:
            acme = theirs.tenant("acme")
            assert [hit.id for hit in acme.search([1.0, 0.1], 3)] == ["a", "b"]
            assert acme.add([[0.5, 0.5]], ids=["c"]) == ["c"]
            assert theirs.tenant("other").search([1.0, 0.0], 3) == []
            assert theirs.tenant("other").delete_all() == 0
            assert theirs.count() == 0
            assert theirs.tenants() == ["acme"]
            with pytest.raises(AccessError, match="row-level security"):
                theirs.tenant("other").add([[1.0, 0.0]])
        assert collection.tenant("acme").count() == 3
        assert collection.tenant("other").count() == 2

    def test_partitions_hold_tenants(self, postgres: str) -> None:
        with connected(postgres, partitions=4, training_minimum=400) as collection:
            for number in range(8):
                part = slice(number * 100, number * 100 + 100)
                collection.tenant(f"tenant {number}").add(VECTORS[part], ids=IDS[:100])
            assert collection.stats().trained
            assert collection.tenants() == [f"tenant {number}" for number in range(8)]
            for number in range(8):
                assert collection.tenant(f"tenant {number}").search(VECTORS[number * 100 + 3], 1)[0].id == "3"
            assert collection.delete_tenant("tenant 3") == 100
            assert collection.stats().count == 700


class TestWhatGoesWrong:
    def test_a_server_that_is_not_there(self) -> None:
        with pytest.raises(EngineUnreachableError, match="is it running") as caught:
            Collection.connect("postgresql://someone:secret@127.0.0.1:1/none", timeout=2)
        assert "secret" not in str(caught.value)

    def test_a_role_that_is_unknown(self, postgres: str) -> None:
        with pytest.raises(AccessError, match="nobody in") as caught:
            Collection.connect(postgres.replace("postgres:@", "nobody:secret@"))
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["mysql://localhost/x", "", "postgresql://a:secret@[broken/x", "postgresql://h/x?what=secret"]
    )
    def test_addresses_that_mean_nothing(self, url: str) -> None:
        with pytest.raises(InputError) as caught:
            Collection.connect(url)
        assert "secret" not in str(caught.value)

    def test_names_are_never_statements(self, postgres: str) -> None:
        with Collection.connect(postgres, 'x"; DROP SCHEMA public; --') as collection:
            collection.add([[1.0, 2.0]], ids=["a"], metadatas=[{"k": 1}])
            assert collection.search([1.0, 2.0], 1, filter=Compare("k') OR ('' = '", "eq", "{}%s")) == []
            assert collection.search([1.0, 2.0], 1, filter=Compare("k", "eq", 1))[0].id == "a"

    def test_what_it_cannot_do_is_said(self, postgres: str, collection: Any) -> None:
        with pytest.raises(EngineLimitError, match="trigram"):
            connected(postgres, tokenizer="trigram")
        with pytest.raises(EngineLimitError, match="shares no rows"):
            collection.share()
        with pytest.raises(EngineLimitError, match="backup"):
            collection.backup("somewhere")
        with pytest.raises(EngineLimitError, match="near_duplicates"):
            collection.add([[1.0]], near_duplicates="skip")

    def test_another_format(self, postgres: str, collection: Any) -> None:
        with admin(postgres) as server:
            server.execute(sql.SQL("UPDATE {}.collection SET format = 99").format(sql.Identifier(schema_of(collection))))
        with pytest.raises(FormatVersionError, match="99"):
            Collection.connect(postgres, collection._engine.name)

    def test_a_schema_of_somebody_else(self, postgres: str) -> None:
        with admin(postgres) as server:
            server.execute("CREATE SCHEMA rarebit_foreign")
        with pytest.raises(ForeignFileError, match="no Rarebit collection"):
            Collection.connect(postgres, "foreign")

    def test_a_collection_that_was_dropped(self, postgres: str, collection: Any) -> None:
        collection.add([[1.0, 2.0]])
        with admin(postgres) as server:
            server.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema_of(collection))))
        with pytest.raises(CollectionNotFoundError, match="dropped"):
            collection.search([1.0, 2.0])

    def test_connections_that_break_are_made_again(self, postgres: str, collection: Any) -> None:
        collection.add([[1.0, 2.0]], ids=["a"])
        for _ in range(3):
            break_connections(postgres)
            assert collection.search([1.0, 2.0], 1)[0].id == "a"
        break_connections(postgres)
        collection.add([[2.0, 1.0]], ids=["b"])
        assert collection.count() == 2

    def test_a_connection_that_breaks_in_a_write_leaves_all_or_nothing(self, postgres: str, collection: Any) -> None:
        collection.add([[1.0, 2.0]], ids=["a"])
        broken = []

        class Breaking(list[Any]):
            """Vectors of which the later ones break the connection, the first time that they are read."""

            def __getitem__(self, place: Any) -> Any:
                if isinstance(place, slice) and place.start and not broken:
                    broken.append(place)
                    break_connections(postgres)
                return super().__getitem__(place)

        texts = Breaking(f"text {row}" for row in range(4000))
        vectors = np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32)
        collection.add(vectors, texts=texts, ids=[f"n{row}" for row in range(4000)], batch_size=500)
        assert broken
        assert collection.count() == 4001
        assert [row.text for row in collection.get(["n0", "n3999"])] == ["text 0", "text 3999"]

    def test_credentials_are_shown_nowhere(self, postgres: str) -> None:
        url = postgres.replace("postgres:@", "postgres:secret@")
        with Collection.connect(url, "shown") as collection:
            collection.add([[1.0, 2.0]], ids=["a"])
            assert "secret" not in repr(collection)
            assert "secret" not in repr(collection.tenant("t"))
            assert "secret" not in collection.identity
            kept = pickle.dumps(collection)
            assert b"secret" not in kept
            with pickle.loads(kept) as again:
                assert again.search([1.0, 2.0], 1)[0].id == "a"
