"""The statements of a collection in PostgreSQL. Braces are filled with the schema and with numbers, the rest are parameters."""

from __future__ import annotations

from typing import Final


def braced(condition: str) -> str:
    """Keep a condition's braces from being read as places to fill."""
    return condition.replace("{", "{{").replace("}", "}}")


def any_word(configuration: str) -> str:
    """Ask for any of the words of a text, as a word list knows them."""
    lexemes = f"unnest(to_tsvector('{configuration}'::regconfig, %(words)s::text)) AS word"
    return f"(SELECT string_agg(quote_literal(word.lexeme), ' | ')::tsquery FROM {lexemes})"


WRITTEN: Final = ("\\u0000", "\\u0001")
"""What JSON writes for the characters that are escaped."""

ROW: Final = "row_id, id, text, coalesce(written, metadata::text)"
GENERATION: Final = "(SELECT generation FROM {schema}.collection) AS generation"
DISTANCE: Final = "(plane::bit({bits})) OPERATOR({extension}.<~>) %(plane)s::text::bit({bits})"
CANDIDATE: Final = f"{GENERATION}, row_id, code, fine"
"""Behind a column that says whether all that match were compared. Texts are not asked for: most candidates are not chosen, and
long texts lie elsewhere."""

CHOSEN: Final = f"SELECT {ROW} FROM {{schema}}.rows WHERE tenant = %(tenant)s AND row_id = ANY(%(row_ids)s::bigint[])"

NEAREST: Final = f"SELECT FALSE, {CANDIDATE} FROM {{schema}}.rows WHERE tenant = %(tenant)s ORDER BY {DISTANCE} LIMIT %(count)s"


def everything(condition: str, order: str) -> str:
    """Give all rows that match, in an order."""
    return f"SELECT TRUE, {CANDIDATE} FROM {{schema}}.rows WHERE tenant = %(tenant)s AND {braced(condition)} ORDER BY {order}"


def exact(condition: str) -> str:
    """Compare all rows that match, one by one; no index is asked."""
    return f"""
        WITH matching AS MATERIALIZED (
                SELECT row_id, plane FROM {{schema}}.rows WHERE tenant = %(tenant)s AND {braced(condition)}
            ),
            nearest AS MATERIALIZED (SELECT row_id FROM matching ORDER BY {DISTANCE}, row_id LIMIT %(count)s)
        SELECT TRUE, {CANDIDATE} FROM {{schema}}.rows WHERE tenant = %(tenant)s AND row_id IN (SELECT row_id FROM nearest)
    """


def narrow(condition: str) -> str:
    """Search among what matches: few are compared one by one, of many the index finds the nearest."""
    matching = f"tenant = %(tenant)s AND {braced(condition)}"
    return f"""
        WITH few AS MATERIALIZED (SELECT row_id, plane FROM {{schema}}.rows WHERE {matching} LIMIT %(few)s + 1),
            size AS MATERIALIZED (SELECT count(*) AS matching FROM few),
            nearest AS (
                SELECT row_id FROM few WHERE (SELECT matching FROM size) <= %(few)s ORDER BY {DISTANCE}, row_id LIMIT %(count)s
            )
        (SELECT TRUE, {CANDIDATE} FROM {{schema}}.rows WHERE tenant = %(tenant)s AND row_id IN (SELECT row_id FROM nearest))
        UNION ALL
        (SELECT FALSE, {CANDIDATE} FROM {{schema}}.rows WHERE (SELECT matching FROM size) > %(few)s AND {matching}
            ORDER BY {DISTANCE} LIMIT %(count)s)
    """


INCOMING: Final = """
    CREATE TEMPORARY TABLE IF NOT EXISTS rarebit_incoming (
        place bigint, id text, text text, metadata text, code bytea, fine bytea, plane bytea, written text
    ) ON COMMIT DELETE ROWS
"""
COPY: Final = "COPY pg_temp.rarebit_incoming FROM STDIN (FORMAT BINARY)"
UPSERT: Final = """
    INSERT INTO {schema}.rows (tenant, id, text, metadata, code, fine, plane, written)
    SELECT %(tenant)s, id, text, metadata::jsonb, code, fine, ('x' || encode(plane, 'hex'))::bit varying, written
    FROM pg_temp.rarebit_incoming ORDER BY place
    ON CONFLICT (tenant, id) DO UPDATE SET row_id = DEFAULT, text = excluded.text, metadata = excluded.metadata,
        code = excluded.code, fine = excluded.fine, plane = excluded.plane, written = excluded.written
"""
RECODE: Final = """
    UPDATE {schema}.rows SET code = new.code, fine = new.fine, plane = ('x' || encode(new.plane, 'hex'))::bit varying
    FROM unnest(%(tenants)s::text[], %(row_ids)s::bigint[], %(codes)s::bytea[], %(fines)s::bytea[], %(planes)s::bytea[])
        AS new (tenant, row_id, code, fine, plane)
    WHERE rows.tenant = new.tenant AND rows.row_id = new.row_id
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
REINDEX: Final = "REINDEX INDEX CONCURRENTLY {schema}.rows_plane"
FORGET: Final = """
    UPDATE {schema}.collection SET settings = %(new)s, generation = 0, codec = NULL, learned = NULL, plane = NULL,
        candidates = 0, tuned_rows = 0
"""
MAY_TRAIN: Final = """
    SELECT pg_has_role(current_user, relowner, 'USAGE') AND NOT row_security_active(%(rows)s::text)
    FROM pg_class WHERE oid = to_regclass(%(table)s::text)
"""
CANNOT_BE_BOUND: Final = """
    SELECT rolsuper OR rolbypassrls OR pg_has_role(rolname, relowner, 'USAGE')
    FROM pg_roles, pg_class WHERE rolname = %(role)s AND pg_class.oid = to_regclass(%(table)s::text)
"""
INDEX: Final = """
    CREATE INDEX rows_plane ON {schema}.rows USING hnsw ((plane::bit({bits})) {extension}.bit_hamming_ops)
    WITH (m = 16, ef_construction = 128)
"""
"""With 11 neighbours a sixth of the memory is saved, and twice as many rows have to be looked at for as many of the nearest;
built with pgvector's usual 64, a third more."""

FIELD_INDEX: Final = """
    CREATE INDEX IF NOT EXISTS {name} ON {schema}.rows (tenant, (metadata -> {field}::text))
    WHERE jsonb_typeof(metadata -> {field}::text) = 'number'
"""
"""Over numbers alone: an entry of a B-tree has no room for long values."""
FIELD_KINDS: Final = "CREATE STATISTICS IF NOT EXISTS {name} ON (jsonb_typeof(metadata -> {field}::text)) FROM {schema}.rows"
"""Without, PostgreSQL takes numbers in that field for rare, and reads all on one side of a bound in place of the few of another
filter."""
ANALYZE: Final = "ANALYZE {schema}.rows"
"""The server does this by itself some time after a load; until then it may read every row for a filter that matches few."""
ANALYZE_FIELDS: Final = "ANALYZE {schema}.rows (tenant, row_id, id, metadata)"
"""Without words, which take longer than all the rest."""
AT_LEAST: Final = "SELECT 1 FROM {schema}.rows OFFSET %(least)s - 1 LIMIT 1"
KEPT: Final = "SELECT settings, generation, codec, learned, plane, candidates, tuned_rows FROM {schema}.collection"
SETTINGS: Final = "UPDATE {schema}.collection SET settings = %(new)s"
TUNE: Final = (
    "UPDATE {schema}.collection SET candidates = %(candidates)s, tuned_rows = %(rows)s WHERE generation = %(generation)s"
)
SOME_PLANES: Final = (
    "SELECT plane::bit({bits})::text FROM {schema}.rows WHERE random() < %(share)s ORDER BY random() LIMIT %(some)s"
)
FARTHEST: Final = f"""
    SELECT {DISTANCE} FROM {{schema}}.rows WHERE plane IS NOT NULL ORDER BY {DISTANCE} LIMIT %(count)s
"""
"""Distances of the nearest bits, of whatever tenant."""
GUESSED_ROWS: Final = """
    SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class
    WHERE relnamespace = to_regnamespace(%(name)s::text) AND relkind = 'r' AND relname ~ '^rows(_[0-9]+)?$'
"""
TENANTS: Final = "SELECT tenant FROM {schema}.rows WHERE tenant <> '' GROUP BY tenant ORDER BY min(row_id)"
SIZES: Final = """
    SELECT CASE WHEN relkind = 'r' THEN 'tables' WHEN relname LIKE '%%plane%%' THEN 'plane_index' ELSE 'other_indexes' END,
        sum(CASE WHEN relkind = 'r' THEN pg_table_size(oid) ELSE pg_relation_size(oid) END)
    FROM pg_class WHERE relnamespace = to_regnamespace(%(name)s::text) AND relkind IN ('r', 'i') GROUP BY 1
"""
TO_RECODE: Final = """
    SELECT tenant, row_id, code, fine FROM {schema}.rows WHERE (tenant, row_id) > (%(tenant)s, %(last)s)
    ORDER BY tenant, row_id LIMIT %(batch)s
"""
