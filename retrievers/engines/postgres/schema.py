"""The tables of a collection in PostgreSQL: one schema, with a table of rows and one of what holds for all of them."""

from __future__ import annotations

from typing import Final

from psycopg import Connection, sql

from rarebit.errors import EngineLimitError, ForeignFileError, FormatVersionError

FORMAT: Final = 1
PREFIX: Final = "rarebit_"
LONGEST_INDEXED: Final = 50_000
"""Characters of a text that lexical search knows: PostgreSQL's word lists hold a megabyte."""

CONFIGURATIONS: Final = {"porter": "english", "unicode61": "simple"}
"""Our names of lexical search -> the text search configurations that are nearest."""

_TABLES: Final = """
CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;
CREATE SCHEMA {schema};

CREATE TABLE {schema}.collection (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format integer NOT NULL,
    settings jsonb NOT NULL,
    generation integer NOT NULL DEFAULT 0,
    codec jsonb,
    learned bytea,
    plane bytea,
    candidates integer NOT NULL DEFAULT 0,
    tuned_rows bigint NOT NULL DEFAULT 0
);

CREATE TABLE {schema}.rows (
    row_id bigint GENERATED ALWAYS AS IDENTITY,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    text text NOT NULL,
    metadata jsonb NOT NULL,
    code bytea NOT NULL,
    fine bytea,
    plane bit varying,
    written text,
    PRIMARY KEY (tenant, row_id),
    UNIQUE (tenant, id)
) {partitioned};

CREATE FUNCTION {schema}.lowered(given text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT pg_catalog.lower(given COLLATE {folding}) $$;

CREATE FUNCTION {schema}.plain(given jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN  -- booleans as numbers, as Python compares them
    CASE jsonb_typeof(given)
        WHEN 'boolean' THEN RETURN to_jsonb(given::boolean::integer);
        WHEN 'array' THEN RETURN (SELECT coalesce(jsonb_agg({schema}.plain(each.value) ORDER BY each.ordinality), '[]')
            FROM jsonb_array_elements(given) WITH ORDINALITY AS each);
        WHEN 'object' THEN RETURN (SELECT coalesce(jsonb_object_agg(each.key, {schema}.plain(each.value)), '{{}}')
            FROM jsonb_each(given) AS each);
        ELSE RETURN given;
    END CASE;
END $$;

-- A role sees the rows of its tenant, and no other line of this table; the owner sees everything.
CREATE TABLE {schema}.members (role name PRIMARY KEY, tenant text COLLATE "C" NOT NULL);
ALTER TABLE {schema}.members ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_line ON {schema}.members FOR SELECT USING (role = current_user);
ALTER TABLE {schema}.rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON {schema}.rows
    USING (tenant = (SELECT tenant FROM {schema}.members WHERE role = current_user))
    WITH CHECK (tenant = (SELECT tenant FROM {schema}.members WHERE role = current_user));

CREATE INDEX rows_metadata ON {schema}.rows USING gin (metadata jsonb_path_ops);
CREATE INDEX rows_words ON {schema}.rows USING gin (to_tsvector({configuration}::regconfig, left(text, {longest})));
"""

_FOLDINGS: Final = ("pg_unicode_fast", "und-x-icu", "pg_c_utf8")
"""Collations that know lower case of all letters, the best first; PostgreSQL 18 has the first."""


def extension_schema(connection: Connection) -> str | None:
    """Name the schema that pgvector is installed in; None where it is not."""
    found = connection.execute(
        "SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
    ).fetchone()
    return None if found is None else str(found[0])


def lock_key(name: str) -> str:
    """Name what writers share and a training has alone."""
    return f"rarebit {name}"


def create(connection: Connection, name: str, settings: str, tokenizer: str, partitions: int) -> None:
    """Create the tables, unless they are there; the one who comes second waits for the first.

    Raises:
        EngineLimitError: a tokenizer that PostgreSQL has not.
    """
    if tokenizer not in CONFIGURATIONS:
        raise EngineLimitError(
            f"got tokenizer={tokenizer!r} for PostgreSQL, wanted one of {list(CONFIGURATIONS)}: it has no other lexical search"
        )
    schema = sql.Identifier(PREFIX + name)
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s::text, 1::bigint))", (lock_key(name),))
    if exists(connection, name):
        return
    known = {found for (found,) in connection.execute("SELECT collname FROM pg_collation")}
    folding = next((each for each in _FOLDINGS if each in known), "default")
    tables = sql.SQL(_TABLES).format(
        schema=schema,
        partitioned=sql.SQL("PARTITION BY HASH (tenant)" if partitions else ""),
        folding=sql.Identifier("pg_catalog", folding),
        configuration=sql.Literal(CONFIGURATIONS[tokenizer]),
        longest=sql.Literal(LONGEST_INDEXED),
    )
    connection.execute(tables)
    for number in range(partitions):
        part = sql.SQL("CREATE TABLE {part} PARTITION OF {schema}.rows FOR VALUES WITH (MODULUS {count}, REMAINDER {number})")
        own = sql.Identifier(PREFIX + name, f"rows_{number}")
        connection.execute(part.format(part=own, schema=schema, count=sql.Literal(partitions), number=sql.Literal(number)))
    insert = sql.SQL("INSERT INTO {schema}.collection (format, settings) VALUES (%s, %s)").format(schema=schema)
    connection.execute(insert, (FORMAT, settings))


def exists(connection: Connection, name: str) -> bool:
    """Tell whether the collection is there.

    Raises:
        ForeignFileError: the schema is somebody else's.
        FormatVersionError: it was made by another version.
    """
    schema = PREFIX + name
    if connection.execute("SELECT to_regnamespace(%s::text)", (_quoted(schema),)).fetchone() == (None,):
        return False
    if connection.execute("SELECT to_regclass(%s::text)", (f"{_quoted(schema)}.collection",)).fetchone() == (None,):
        raise ForeignFileError(
            f"the schema {schema!r} is there and holds no Rarebit collection: name another collection, or drop the schema"
        )
    statement = sql.SQL("SELECT format FROM {}.collection").format(sql.Identifier(schema))
    found = connection.execute(statement).fetchone()
    if found != (FORMAT,):
        raise FormatVersionError(
            f"the collection {name!r} has format {found and found[0]}, wanted {FORMAT}: another version of Rarebit made it"
        )
    return True


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
