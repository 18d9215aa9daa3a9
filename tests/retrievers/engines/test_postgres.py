"""PostgreSQL beside what the contract suite asks of it: training, tenants by the database's own means, and what goes wrong."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql
from support.postgres import connected

from rarebit import And, Collection, Compare, Where
from rarebit.arrays import normalized
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
    MissingRowError,
    ReadOnlyError,
    SettingsError,
)
from rarebit.retrievers.engines.moving import move
from rarebit.retrievers.engines.postgres.connections import SETTINGS as SCAN
from rarebit.retrievers.engines.postgres.connections import Connections
from rarebit.retrievers.engines.postgres.filters import Condition
from rarebit.retrievers.engines.postgres.schema import PREFIX

DIM = 24
ROWS = 1500


@pytest.fixture
def collection(postgres: str) -> Iterator[Any]:
    with connected(postgres) as given:
        yield given


@pytest.fixture(scope="module")
def trained(postgres: str) -> Iterator[Any]:
    with connected(postgres, training_minimum=1000) as given:
        given.add(VECTORS, texts=TEXTS, metadatas=METADATAS, ids=IDS)
        yield given


VECTORS = normalized(np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32))
TEXTS = [f"passage number {row}" for row in range(ROWS)]
METADATAS: list[dict[str, Any]] = [{"row": row, "half": row % 2} for row in range(ROWS)]
IDS = [str(row) for row in range(ROWS)]
QUERIES = normalized(VECTORS[:40] + 0.3 * np.random.default_rng(1).standard_normal((40, DIM)).astype(np.float32))


def recall(collection: Any, rows: np.ndarray, **given: Any) -> float:
    """Give the share of the ten best of some rows that are found."""
    shares = []
    for query in QUERIES:
        best = rows[np.argsort(-(VECTORS[rows] @ query), kind="stable")[:10]]
        found = [int(hit.id) for hit in collection.search(query, 10, **given)]
        shares.append(len(set(found) & set(best.tolist())) / min(10, len(rows)))
    return float(np.mean(shares))


def admin(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)


def schema_of(collection: Any) -> str:
    return PREFIX + collection._engine.name


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
            assert recall(collection, np.arange(1200)) >= 0.98

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

    def test_copies_cannot_be_learned_from(self, collection: Any) -> None:
        with pytest.warns(UserWarning, match="cannot be learned"):
            collection.add(np.tile(VECTORS[:2], (600, 1)))
        assert collection.count() == 1200
        assert collection.search(VECTORS[0], 1)[0].score == pytest.approx(1.0, abs=1e-6)


class TestIndex:
    def test_many_rows_are_found_through_an_index(self, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.postgres.engine.INDEX_FROM", 1200)
        monkeypatch.setattr("rarebit.retrievers.engines.postgres.engine.FEW", 300)
        with connected(postgres, training_minimum=1000) as collection:
            for start in range(0, ROWS, 250):
                part = slice(start, start + 250)
                collection.add(VECTORS[part], texts=TEXTS[part], metadatas=METADATAS[part], ids=IDS[part])
            assert collection._engine.kept().indexed
            with admin(postgres) as server:
                server.execute("SET enable_seqscan = off")
                plan = "\n".join(
                    line
                    for (line,) in server.execute(
                        sql.SQL("EXPLAIN SELECT id FROM {}.rows ORDER BY (plane::bit(48)) <~> (%s)::bit(48) LIMIT 5").format(
                            sql.Identifier(schema_of(collection))
                        ),
                        ("01" * 24,),
                    )
                )
            assert "rows_plane" in plan
            assert recall(collection, np.arange(ROWS)) >= 0.98
            for least in (0, ROWS // 2, ROWS - 400, ROWS - 200, ROWS - 3):
                matching = np.arange(least, ROWS)
                assert recall(collection, matching, filter=Compare("row", "gte", least)) >= 0.98
                assert len(collection.search(QUERIES[0], 500, filter=Compare("row", "gte", least))) == min(500, len(matching))


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


def break_connections(url: str) -> None:
    """Let the server end every connection but this one."""
    with admin(url) as server:
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rarebit'")


class TestBesideOthers:
    """What other roles, other clients and other settings of the server must not do."""

    def test_rows_far_from_the_query_among_many_others(self, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.postgres.engine.INDEX_FROM", 1000)
        monkeypatch.setattr("rarebit.retrievers.engines.postgres.engine.FEW", 50)
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

    def test_functions_that_somebody_puts_into_public(self, postgres: str, collection: Any) -> None:
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
    def test_other_levels_of_isolation(self, postgres: str, level: str) -> None:
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

    def test_a_client_that_was_there_before_the_first_row(self, postgres: str, collection: Any) -> None:
        with Collection.connect(postgres, collection._engine.name) as early:
            collection.add([[1.0, 2.0]], ids=["a"])
            assert early.vectors(["a"]).shape == (1, 2)
            assert early.sample_vectors(1).shape == (1, 2)
            assert early.search([1.0, 2.0], 1)[0].id == "a"

    def test_the_model_is_told_while_another_adds_the_first_rows(self, postgres: str, collection: Any) -> None:
        name = collection._engine.name
        failures: list[BaseException] = []

        def tell(number: int) -> None:
            try:
                with Collection.connect(postgres, name, fingerprint="model") as other:
                    other.add(VECTORS[number : number + 1], ids=[str(number)])
            except BaseException as error:  # noqa: BLE001 -- told below
                failures.append(error)

        threads = [threading.Thread(target=tell, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert collection.settings.dim == DIM
        assert collection.settings.fingerprint.name == "model"
        assert collection.count() == 6

    def test_read_only_changes_nothing_at_all(self, postgres: str, collection: Any) -> None:
        with Collection.connect(postgres, collection._engine.name, read_only=True, dim=7, fingerprint="model") as reader:
            reader.check_fingerprint("model")
        assert collection.settings.dim is None
        assert collection.settings.fingerprint.name is None
        with (
            Collection.open() as source,
            Collection.connect(postgres, collection._engine.name, read_only=True) as reader,
            pytest.raises(ReadOnlyError),
        ):
            source.add([[1.0, 2.0]], ids=["a"])
            move(source, reader)
        assert collection.count() == 0

    def test_a_role_with_more_rights_than_it_needs_trains_nothing(self, postgres: str) -> None:
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

    def test_roles_that_no_policy_binds_get_no_tenant(self, postgres: str, collection: Any) -> None:
        with admin(postgres) as server:
            server.execute("DROP ROLE IF EXISTS passing_role")
            server.execute("CREATE ROLE passing_role LOGIN BYPASSRLS")
        for role in ("passing_role", "postgres", "nobody at all", ""):
            with pytest.raises(InputError, match="role="):
                collection.grant(role, "acme")

    def test_what_the_server_refuses_is_no_broken_connection(self, collection: Any) -> None:
        with pytest.raises(InputError, match=r"8,000 bytes"):
            collection.add([[1.0, 2.0]], ids=["x" * 8000])
        with pytest.raises(InputError, match="beside the tenant"):
            collection.tenant("日" * 800).add([[1.0, 2.0]], ids=["x" * 200])
        assert collection.count() == 0
        words = " ".join(f"{number:x}é{number}" for number in range(60_000))
        collection.add([[1.0, 2.0]], ids=["long"], texts=[words])
        assert collection.search_lexical("5é5", 1)[0].id == "long"

    def test_a_deletion_whose_answer_is_lost_is_said(
        self, postgres: str, collection: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
    def test_nothing_of_an_address_that_is_none_is_shown(self, url: str) -> None:
        with pytest.raises(InputError) as caught:
            Collection.connect(url)
        assert "secret" not in str(caught.value)

    def test_keys_are_passwords_too(self, postgres: str) -> None:
        connections = Connections(f"{postgres}&scram_client_key=secret", 2.0)
        assert "secret" not in connections.where
        assert b"secret" not in pickle.dumps(connections)

    def test_generators_and_other_arguments(self, collection: Any) -> None:
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

    def test_every_public_name_of_an_embedded_collection(self, collection: Any) -> None:
        classmethods = {"open", "load", "connect"}
        wanted = {name for name in dir(Collection) if not name.startswith("_")} - classmethods
        assert wanted <= {name for name in dir(collection) if not name.startswith("_")}
