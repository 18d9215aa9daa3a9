"""The statements of a collection in PostgreSQL. Braces are filled with the schema and with numbers, the rest are parameters."""

from __future__ import annotations

from typing import Final


def braced(condition: str) -> str:
    """Keep a condition's braces from being read as places to fill."""
    return condition.replace("{", "{{").replace("}", "}}")


def any_word(configuration: str) -> str:
    """Ask for any of the words of a text, as a word list knows them."""
    lexemes = f"unnest(to_tsvector('{configuration}', %(words)s)) AS word"
    return f"(SELECT string_agg(quote_literal(word.lexeme), ' | ')::tsquery FROM {lexemes})"


WRITTEN: Final = ("\\u0000", "\\u0001")
"""What JSON writes for the characters that are escaped."""

ROW: Final = "row_id, id, text, metadata"
GENERATION: Final = "(SELECT generation FROM {schema}.collection) AS generation"
DISTANCE: Final = "(plane::bit({bits})) <~> %(plane)s::text::bit({bits})"
CANDIDATE: Final = f"{GENERATION}, row_id, code, fine, id, text, metadata::text"

PLAIN: Final = f"SELECT {CANDIDATE} FROM {{schema}}.rows WHERE tenant = %(tenant)s ORDER BY {DISTANCE} LIMIT %(count)s"


def narrow(condition: str) -> str:
    """Search among what matches: few are compared one by one, of many the index finds the nearest."""
    matching = f"tenant = %(tenant)s AND {braced(condition)}"
    return f"""
        WITH few AS MATERIALIZED (SELECT row_id, plane FROM {{schema}}.rows WHERE {matching} LIMIT %(few)s + 1),
            size AS MATERIALIZED (SELECT count(*) AS matching FROM few),
            nearest AS (
                SELECT row_id FROM few WHERE (SELECT matching FROM size) <= %(few)s ORDER BY {DISTANCE}, row_id LIMIT %(count)s
            )
        (SELECT {CANDIDATE} FROM {{schema}}.rows WHERE tenant = %(tenant)s AND row_id IN (SELECT row_id FROM nearest))
        UNION ALL
        (SELECT {CANDIDATE} FROM {{schema}}.rows WHERE (SELECT matching FROM size) > %(few)s AND {matching}
            ORDER BY {DISTANCE} LIMIT %(count)s)
    """


INCOMING: Final = """
    CREATE TEMPORARY TABLE IF NOT EXISTS rarebit_incoming (
        place bigint, id text, text text, metadata text, code bytea, fine bytea, plane bytea
    ) ON COMMIT DELETE ROWS
"""
COPY: Final = "COPY pg_temp.rarebit_incoming FROM STDIN (FORMAT BINARY)"
UPSERT: Final = """
    INSERT INTO {schema}.rows (tenant, id, text, metadata, code, fine, plane)
    SELECT %(tenant)s, id, text, metadata::jsonb, code, fine, ('x' || encode(plane, 'hex'))::bit varying
    FROM pg_temp.rarebit_incoming ORDER BY place
    ON CONFLICT (tenant, id) DO UPDATE SET row_id = DEFAULT, text = excluded.text, metadata = excluded.metadata,
        code = excluded.code, fine = excluded.fine, plane = excluded.plane
"""
RECODE: Final = """
    UPDATE {schema}.rows SET code = new.code, fine = new.fine, plane = ('x' || encode(new.plane, 'hex'))::bit varying
    FROM unnest(%(row_ids)s::bigint[], %(codes)s::bytea[], %(fines)s::bytea[], %(planes)s::bytea[])
        AS new (row_id, code, fine, plane)
    WHERE rows.row_id = new.row_id
"""
TAKE_OVER: Final = """
    UPDATE {schema}.collection SET settings = %(settings)s, generation = 1 + floor(random() * 2147483000)::integer,
        codec = %(codec)s, learned = %(learned)s, plane = %(plane)s, candidates = 0, tuned_rows = 0
"""
GRANTS: Final = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT ON {schema}.collection, {schema}.members TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.rows TO {role}",
)
MEMBER: Final = """
    INSERT INTO {schema}.members (role, tenant) VALUES (%(role)s, %(tenant)s)
    ON CONFLICT (role) DO UPDATE SET tenant = excluded.tenant
"""
DROP_INDEX: Final = "DROP INDEX IF EXISTS {schema}.rows_plane"
INDEX: Final = "CREATE INDEX rows_plane ON {schema}.rows USING hnsw ((plane::bit({bits})) bit_hamming_ops)"
AT_LEAST: Final = "SELECT 1 FROM {schema}.rows OFFSET %(least)s - 1 LIMIT 1"
KEPT: Final = "SELECT settings, generation, codec, learned, plane, candidates, tuned_rows FROM {schema}.collection"
SETTINGS: Final = "UPDATE {schema}.collection SET settings = %(new)s"
TUNE: Final = "UPDATE {schema}.collection SET candidates = %(candidates)s, tuned_rows = %(rows)s"
TENANTS: Final = "SELECT tenant FROM {schema}.rows WHERE tenant <> '' GROUP BY tenant ORDER BY min(row_id)"
SIZES: Final = """
    SELECT CASE WHEN relkind = 'r' THEN 'tables' WHEN relname LIKE '%%plane%%' THEN 'plane_index' ELSE 'other_indexes' END,
        sum(CASE WHEN relkind = 'r' THEN pg_table_size(oid) ELSE pg_relation_size(oid) END)
    FROM pg_class WHERE relnamespace = to_regnamespace(%(name)s) AND relkind IN ('r', 'i') GROUP BY 1
"""
TO_RECODE: Final = "SELECT row_id, code, fine FROM {schema}.rows WHERE row_id > %(last)s ORDER BY row_id LIMIT %(batch)s"
