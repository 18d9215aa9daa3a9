"""Indexes in PostgreSQL: over bits, searched as wide as that takes, and over fields that filters ask for."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="PostgreSQL needs the extra postgres")

from psycopg import sql
from support.postgres import admin, connected, schema_of
from support.servers import FOUND, IDS, METADATAS, QUERIES, ROWS, TEXTS, VECTORS, recall

from rarebit import And, Collection, Compare
from rarebit.errors import InputError
from rarebit.retrievers.engines.postgres.filters import Condition


class TestIndex:
    def test_many_rows_are_found_through_an_index(self, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.postgres.indexes.FROM", 1200)
        monkeypatch.setattr("rarebit.retrievers.engines.postgres.searching.FEW", 300)
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
                        sql.SQL("EXPLAIN SELECT id FROM {}.rows ORDER BY (plane::bit(72)) <~> (%s)::bit(72) LIMIT 5").format(
                            sql.Identifier(schema_of(collection))
                        ),
                        ("01" * 36,),
                    )
                )
            assert "rows_plane" in plan
            assert recall(collection, np.arange(ROWS)) >= FOUND
            for least in (0, ROWS // 2, ROWS - 400, ROWS - 200, ROWS - 3):
                matching = np.arange(least, ROWS)
                assert recall(collection, matching, filter=Compare("row", "gte", least)) >= FOUND
                assert len(collection.search(QUERIES[0], 500, filter=Compare("row", "gte", least))) == min(500, len(matching))

    def test_how_wide_the_index_is_searched_is_measured(self, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.postgres.indexes.FROM", 500)
        monkeypatch.setattr("rarebit.retrievers.engines.training.AUTOMATIC", 0)  # is not trained a second time
        with connected(postgres, training_minimum=500) as collection:
            collection.add(VECTORS[:600], ids=IDS[:600])
            engine = collection._engine
            few = engine.kept().candidates
            assert (engine.kept().indexed, engine.kept().tuned_rows) == (True, 600)
            monkeypatch.setattr("rarebit.retrievers.engines.postgres.indexes.SHARE", 1.1)  # which nothing reaches
            collection.add(VECTORS[600:1100], ids=IDS[600:1100])
            assert engine.kept().tuned_rows == 600
            collection.add(VECTORS[1100:], ids=IDS[1100:])
            assert engine.kept().tuned_rows == ROWS
            assert engine.kept().candidates > 2 * few
            collection.search(QUERIES[0], 10)
            with engine._connections._connection() as connection:
                assert connection.execute("SHOW hnsw.ef_search").fetchone() == (str(engine.kept().candidates),)
            assert recall(collection, np.arange(ROWS)) >= FOUND

    def test_what_was_measured_for_other_bits_is_not_kept(self, postgres: str) -> None:
        with connected(postgres, training_minimum=500) as collection:
            collection.add(VECTORS[:600], ids=IDS[:600])
            before = collection._engine.kept()
            collection._engine.tune(before.generation + 1, 777, 5)
            after = collection._engine.kept(fresh=True)
            assert (after.candidates, after.tuned_rows) == (before.candidates, before.tuned_rows) != (777, 5)

    def test_somebody_who_counts_the_rows_is_not_waited_for(self, postgres: str) -> None:
        with connected(postgres, training_minimum=500, timeout=1) as collection, admin(postgres) as other:
            collection.add(VECTORS[:600], ids=IDS[:600])
            other.autocommit = False
            other.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema_of(collection), "rows")))
            collection._engine.tune(collection._engine.kept().generation, 777, 600)
            assert collection._engine.kept().candidates == 777

    def test_those_who_come_anew_know_how_much_there_is(self, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rarebit.retrievers.engines.training.AUTOMATIC", 0)
        with connected(postgres, training_minimum=500) as collection:
            collection.add(VECTORS[:600], ids=IDS[:600])
            collection.add(VECTORS[600:1150], ids=IDS[600:1150])
            collection.add(VECTORS[600:1150], ids=IDS[600:1150])
            assert collection._engine.kept().tuned_rows == 600
            assert collection._engine.size == 1150  # what was written twice is counted once
            with admin(postgres) as server:
                server.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema_of(collection), "rows")))
            with Collection.connect(postgres, collection._engine.name) as later:
                assert later._engine.size == 1150
                later.add(VECTORS[1150:1200], ids=IDS[1150:1200])
                assert later._engine.kept().tuned_rows == 1200

    def test_one_of_very_many_values(self, postgres: str) -> None:
        with connected(postgres) as collection:
            collection.add(VECTORS[:4], ids=IDS[:4], metadatas=[{"n": 1}, {"n": True}, {"n": 69_999}, {"n": "5"}])
            asked = Compare("n", "in", list(range(1, 70_000)))
            assert [row.id for row in collection.iterate(asked)] == ["0", "1", "2"]
            assert [row.id for row in collection.iterate(Compare("n", "nin", list(range(1, 70_000))))] == ["3"]

    def test_numbers_of_a_field_are_found_by_an_index(self, postgres: str) -> None:
        values: list[Any] = [*range(400), True, False, None, 1.5, -2, "3", [4], {"a": 5}, float(2**70), "x" * 10_000]
        with connected(postgres) as collection:
            vectors = np.ones((len(values), 2), np.float32)
            collection.add(vectors, ids=list(map(str, range(len(values)))), metadatas=[{"it's": value} for value in values])
            bounds = [
                ("gte", 397),
                ("lt", 2),
                ("gt", -0.5),
                ("lte", 0),
                ("gt", 1e300),
                ("lt", True),
            ]
            asked: list[Any] = [Compare("it's", sign, bound) for sign, bound in bounds]  # type: ignore[arg-type]
            before = [{row.id for row in collection.iterate(each)} for each in asked]
            assert before == [{str(at) for at, value in enumerate(values) if holds(value, *bound)} for bound in bounds]
            collection.index_field("it's")
            collection.index_field("it's")
            assert [{row.id for row in collection.iterate(each)} for each in asked] == before
            for one, other in combinations(range(len(asked)), 2):
                both = {row.id for row in collection.iterate(And(asked[one], asked[other], Compare("it's", "ne", 3)))}
                assert both == (before[one] & before[other]) - {"3"}
            condition = Condition(And(Compare("it's", "gte", 300), Compare("it's", "lt", 310)), "")
            with admin(postgres) as server:
                server.execute("SET enable_seqscan = off")
                select = sql.SQL("EXPLAIN SELECT id FROM {}.rows WHERE tenant = '' AND ").format(
                    sql.Identifier(schema_of(collection))
                )
                plan = server.execute(select + sql.SQL(condition.sql), condition.parameters).fetchall()  # type: ignore[arg-type]
            (index,) = [line for (line,) in plan if "Index Cond" in line]
            assert "field_" in str(plan)
            assert ">= '300'" in index
            assert "< '310'" in index
            collection.add([[1.0, 0.0]], ids=["long"], metadatas=[{"it's": "y" * 100_000}])
            for wrong in ("", "a.b"):
                with pytest.raises(InputError, match="wanted the name of a field"):
                    collection.index_field(wrong)

    def test_the_server_knows_at_once_what_fields_hold(self, postgres: str) -> None:
        with connected(postgres, training_minimum=500) as collection, admin(postgres) as server:
            schema = schema_of(collection)

            def known() -> set[str]:
                """Name the columns, and the indexes over expressions, whose values have been counted."""
                counted = server.execute("SELECT tablename, attname FROM pg_stats WHERE schemaname = %s", (schema,)).fetchall()
                return {column if table == "rows" else table.partition("_")[0] for table, column in counted}

            collection.add(VECTORS[:600], ids=IDS[:600], metadatas=METADATAS[:600])
            assert "metadata" in known()
            assert "field" not in known()
            collection.index_field("row")
            assert "field" in known()


def holds(value: Any, sign: str, bound: float) -> bool:
    if not isinstance(value, bool | int | float):
        return False
    return {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[sign]
