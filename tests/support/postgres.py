"""A PostgreSQL server of this machine's own, for as long as the tests run."""

from __future__ import annotations

import itertools
from typing import Any

import psycopg

from rarebit import Collection
from rarebit.retrievers.engines.postgres.schema import PREFIX

_NUMBERS = itertools.count()


def connected(url: str, **settings: Any) -> Any:
    """Make a collection of its own on a server that many tests use."""
    return Collection.connect(url, f"test {next(_NUMBERS)}", **settings)


def admin(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)


def schema_of(collection: Any) -> str:
    return PREFIX + collection._engine.name


def break_connections(url: str) -> None:
    """Let the server end every connection but this one."""
    with admin(url) as server:
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rarebit'")
