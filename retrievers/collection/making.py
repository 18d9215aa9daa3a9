"""Making the tables in a new file, and telling a file of ours from another."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TypeAlias

from rarebit.errors import DamagedFileError, ForeignFileError, FormatVersionError
from rarebit.retrievers.collection.schema import APPLICATION_ID, FORMAT_VERSION, LEXICAL, TABLES, lexical_table

Connection: TypeAlias = sqlite3.Connection


def make_or_check(connection: Connection, name: str, tokenizer: str, *, must_exist: bool) -> None:
    """Make the tables in an empty file, and check that any other is a collection of this format.

    Args:
        connection: outside a transaction.
        name: of the file, for messages.
        tokenizer: of the lexical index, if the tables are made now.
        must_exist: make nothing.

    Raises:
        ForeignFileError: the file is another database, or is empty and must exist.
        FormatVersionError: it is of another version.
    """
    if _is_empty(connection):
        if must_exist:
            raise ForeignFileError(f"{name} is empty, wanted a Rarebit collection: check the path")
        _make(connection, tokenizer)
    application, version = _header(connection)
    if application != APPLICATION_ID:
        raise ForeignFileError(
            f"{name} is an SQLite database but not a Rarebit collection, and was left as it is: choose another path"
        )
    if version != FORMAT_VERSION:
        which, advice = ("a newer", "upgrade rarebit")
        if version < FORMAT_VERSION:
            which, advice = ("an older", "export the rows with that version, or make the collection anew")
        raise FormatVersionError(
            f"{name} has format {version} of {which} version, this version of Rarebit reads format {FORMAT_VERSION}: {advice}"
        )


def stored_tokenizer(connection: Connection) -> str:
    """Tell which tokenizer the lexical index was made with."""
    found = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'lexical'").fetchone()
    for tokenizer in LEXICAL:
        if found == (lexical_table(tokenizer),):
            return tokenizer
    raise DamagedFileError("the collection's lexical index is missing or another: restore the file from a backup")


def _make(connection: Connection, tokenizer: str) -> None:
    """Make the tables; two processes may do so at once, and the second finds them made."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_empty(connection):
            for statement in (*TABLES.split(";\n"), lexical_table(tokenizer)):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _header(connection: Connection) -> tuple[int, int]:
    return (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
    )


def _is_empty(connection: Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return bool(tables == 0) and _header(connection) == (0, 0)
