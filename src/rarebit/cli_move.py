"""``rarebit move``: a collection goes from a file to an engine, or back; nothing is embedded again."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from rarebit.retrievers.collection import Collection
from rarebit.retrievers.engines import RemoteCollection
from rarebit.retrievers.engines.moving import move

SCHEME = "://"


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Move; gives the counts, and a sentence about them."""
    with (
        _opened(arguments.source, arguments.name, create=False) as source,
        _opened(arguments.target, arguments.name, tokenizer=source.settings.tokenizer) as target,
    ):
        moved = move(source, target, overwrite=arguments.overwrite, progress=not arguments.json)
        where = repr(target)
    return asdict(moved), (
        f"{moved.rows} passages on both sides, {moved.copied} of them copied now, {moved.deleted} deleted there; checksum "
        f"{moved.checksum}\n{where}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    engines = "postgresql://user@host/database (the password: PGPASSWORD) or milvus://host (the token: MILVUS_TOKEN)"
    address = f"a file, or an address such as {engines}"
    parser.add_argument("source", metavar="SOURCE", help=address)
    parser.add_argument("target", metavar="TARGET", help="likewise; made if it is not there")
    parser.add_argument("--name", default="rarebit", help="of the collection on the engine (default: %(default)s)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace and delete rows of the target that the source has not"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _opened(place: str, name: str, *, create: bool = True, tokenizer: str | None = None) -> Collection | RemoteCollection:
    if SCHEME in place:
        return Collection.connect(place, name, create=create, tokenizer=tokenizer)
    return Collection.open(place, create=create, tokenizer=tokenizer)
