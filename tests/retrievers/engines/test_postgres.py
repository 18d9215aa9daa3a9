"""PostgreSQL beside what the contract suite asks of it: training, tenants by the database's own means, and what goes wrong."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="PostgreSQL needs the extra postgres")

import psycopg
from psycopg import sql
from support.postgres import (
    IDS,
    METADATAS,
    QUERIES,
    ROWS,
    TEXTS,
    VECTORS,
    admin,
    break_connections,
    connected,
    recall,
    schema_of,
)

from rarebit import And, Collection, Compare, Where
from rarebit.errors import (
    AccessError,
    ClosedError,
    CollectionNotFoundError,
    DimensionError,
    EngineLimitError,
    EngineUnreachableError,
    FingerprintError,
    ForeignFileError,
    FormatVersionError,
    InputError,
    LockedError,
    MissingRowError,
    ReadOnlyError,
    SettingsError,
)
from rarebit.retrievers.engines.coding import Coding, Recoder


@pytest.fixture(scope="module")
def trained(postgres: str) -> Iterator[Any]:
    with connected(postgres, training_minimum=1000) as given:
        given.add(VECTORS, texts=TEXTS, metadatas=METADATAS, ids=IDS)
        yield given


class TestTraining:
    def test_enough_rows_train_codes_and_bits(self, trained: Any) -> None:
        assert trained.stats().trained
        assert trained.stats().count == ROWS
        kept = trained._engine.kept()
        assert kept.generation != 0
        assert kept.candidates >= 100

    def test_the_nearest_are_found(self, trained: Any) -> None:
        assert recall(trained, np.arange(ROWS)) >= 0.98

    def test_scores_are_the_cosines(self, trained: Any) -> None:
        for hit in trained.search(QUERIES[0], 5):
            assert hit.score == pytest.approx(float(VECTORS[int(hit.id)] @ QUERIES[0]), abs=2e-3)

    @pytest.mark.parametrize("least", [0, ROWS - 5, ROWS // 2, 10])
    def test_filters_are_answered_in_full(self, trained: Any, least: int) -> None:
        matching = np.arange(least, ROWS)
        given = Compare("row", "gte", least)
        assert recall(trained, matching, filter=given) >= 0.98
        assert len(trained.search(QUERIES[0], 20, filter=given)) == min(20, len(matching))

    def test_predicates_of_python(self, trained: Any) -> None:
        found = trained.search(
            QUERIES[0], 5, filter=And(Where(lambda row: row.metadata["row"] % 7 == 0), Compare("half", "eq", 1))
        )
        assert len(found) == 5
        assert all(int(hit.id) % 7 == 0 and int(hit.id) % 2 for hit in found)

    def test_batches_answer_as_single_queries_do(self, trained: Any) -> None:
        single = [trained.search(query, 7) for query in QUERIES]
        assert trained.search_many(QUERIES, 7) == single

    def test_vectors_come_from_the_finest_tier(self, trained: Any) -> None:
        assert np.abs(trained.vectors(IDS[:50]) - VECTORS[:50]).max() < 0.01
        with pytest.raises(MissingRowError, match="'none'"):
            trained.vectors(["0", "none"])

    def test_it_means_the_same_as_an_embedded_collection(self, trained: Any) -> None:
        with Collection.open(training_minimum=1000) as embedded:
            embedded.add(VECTORS, texts=TEXTS, metadatas=METADATAS, ids=IDS)
            for query in QUERIES[:10]:
                here, there = (each.search(query, 10, candidates=ROWS) for each in (trained, embedded))
                assert [hit.id for hit in here[:3]] == [hit.id for hit in there[:3]]
                assert [hit.score for hit in here] == pytest.approx([hit.score for hit in there], abs=3e-3)

    def test_another_client_follows_a_training(self, postgres: str) -> None:
        with connected(postgres, training_minimum=500) as writer:
            name = writer._engine.name
            with Collection.connect(postgres, name) as reader:
                writer.add(VECTORS[:400], ids=IDS[:400])
                assert reader.search(VECTORS[7], 1)[0].id == "7"
                writer.add(VECTORS[400:800], ids=IDS[400:800])
                assert writer.stats().trained
                assert reader.search(VECTORS[777], 1)[0].id == "777"  # with the codes of before, asked again with the new ones
                reader.add(VECTORS[800:900], ids=IDS[800:900])
                assert writer.search(VECTORS[850], 1)[0].id == "850"

    def test_writers_that_meet_a_training(self, postgres: str) -> None:
        with connected(postgres, training_minimum=600) as collection:
            failures: list[BaseException] = []

            def write(number: int) -> None:
                try:
                    with Collection.connect(postgres, collection._engine.name) as own:
                        for start in range(number * 300, number * 300 + 300, 50):
                            own.add(VECTORS[start : start + 50], ids=IDS[start : start + 50])
                except BaseException as error:  # noqa: BLE001 -- told below
                    failures.append(error)

            threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not failures
            assert collection.count() == 1200
            assert collection.stats().trained
            assert np.abs(collection.vectors(IDS[:1200]) - VECTORS[:1200]).max() < 0.01
            assert recall(collection, np.arange(1200)) >= 0.95  # candidates were measured among half as many rows

    @pytest.mark.parametrize("codec", ["float32", "sq8", "trellis"])
    def test_every_kind_of_codec(self, postgres: str, codec: str) -> None:
        with connected(postgres, codec=codec) as collection:
            for start in range(0, ROWS, 300):
                part = slice(start, start + 300)
                collection.add(VECTORS[part], ids=IDS[part])
                query = VECTORS[start + 5]
                assert collection.search(query, 1)[0].id == str(start + 5)
            assert collection.stats().trained
            assert recall(collection, np.arange(ROWS)) >= 0.97

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

    @pytest.mark.parametrize("name", ["", "x" * 41, "a\0b"])
    def test_names_that_cannot_be(self, postgres: str, name: str) -> None:
        with pytest.raises(InputError, match="name="):
            Collection.connect(postgres, name)

    def test_names_are_never_statements(self, postgres: str) -> None:
        with Collection.connect(postgres, 'x"; DROP SCHEMA public; --') as collection:
            collection.add([[1.0, 2.0]], ids=["a"], metadatas=[{"k": 1}])
            assert collection.search([1.0, 2.0], 1, filter=Compare("k') OR ('' = '", "eq", "{}%s")) == []
            assert collection.search([1.0, 2.0], 1, filter=Compare("k", "eq", 1))[0].id == "a"

    def test_a_collection_that_must_exist(self, postgres: str) -> None:
        for given in ({"create": False}, {"read_only": True}):
            with pytest.raises(CollectionNotFoundError, match="no collection"):
                Collection.connect(postgres, "nothing here", **given)

    def test_settings_and_models_of_another(self, postgres: str) -> None:
        with connected(postgres, metric="inner_product", fingerprint="model-a") as collection:
            name = collection._engine.name
            with pytest.raises(SettingsError, match="metric"):
                Collection.connect(postgres, name, metric="cosine")
            with pytest.raises(FingerprintError, match="model-b"):
                Collection.connect(postgres, name, fingerprint="model-b")
            with Collection.connect(postgres, name) as same:
                assert same.settings.metric == "inner_product"

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

    @pytest.mark.unchecked
    def test_wrong_rows_change_nothing(self, collection: Any) -> None:
        collection.add([[1.0, 2.0]], ids=["a"])
        with pytest.raises(DimensionError):
            collection.add([[1.0, 2.0, 3.0]])
        with pytest.raises(InputError):
            collection.add(np.ones((3000, 2)), texts=["x"] * 2999 + [None], ids=[f"x{row}" for row in range(3000)])
        with pytest.raises(DimensionError):
            collection.search([1.0, 2.0, 3.0])
        assert collection.count() == 1

    def test_read_only(self, postgres: str, collection: Any) -> None:
        collection.add([[1.0, 2.0]], ids=["a"])
        with Collection.connect(postgres, collection._engine.name, read_only=True) as reader:
            assert reader.search([1.0, 2.0], 1)[0].id == "a"
            for write in (lambda: reader.add([[1.0, 2.0]]), lambda: reader.delete(["a"]), reader.delete_all, reader.train):
                with pytest.raises(ReadOnlyError):
                    write()

    def test_closed(self, collection: Any) -> None:
        collection.close()
        with pytest.raises(ClosedError):
            collection.count()

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
