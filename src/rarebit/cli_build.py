"""``rarebit build``: a collection from files of passages, embedded here or by workers on Ray; a killed run is resumed."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rarebit.cli_move import SCHEME
from rarebit.encoders import DEFAULT_ENCODER
from rarebit.errors import CodecWarning, CollectionNotFoundError, InputError, StorageError, TransferWarning
from rarebit.retrievers.building import BuildReport, Columns, InProcess, OnRay, Recipe, Runner, SentenceEncoder, Shards
from rarebit.retrievers.building.building import SHARD_ROWS
from rarebit.retrievers.building.encoders import usual_device
from rarebit.retrievers.collection import Collection
from rarebit.retrievers.collection.settings import METRICS
from rarebit.retrievers.engines import RemoteCollection


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Build; gives the counts, and a sentence about them."""
    recipe = _recipe(arguments)
    with warnings.catch_warnings(), _runner(arguments) as runner:
        for kind in (TransferWarning, CodecWarning):
            warnings.simplefilter("always", kind)
        warnings.showwarning = _shown
        shards = Shards(recipe, arguments.work, runner, progress=not arguments.json)
        with _there_already(arguments) as target:
            shards.check_target(target, overwrite=arguments.overwrite)
        shards.make()
        with _opened(arguments) as target:
            found = shards.load_into(target, overwrite=arguments.overwrite)
            where = repr(target)
    return asdict(found), _sentences(found, where)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="a Parquet file, a file of lines of JSON (.jsonl, .jsonl.gz), or a folder of them",
    )
    parser.add_argument(
        "--to",
        required=True,
        dest="target",
        metavar="TARGET",
        help="a file, or an address such as postgresql://user@host/database (the password: PGPASSWORD); made if it is new",
    )
    parser.add_argument("--name", default="rarebit", help="of the collection on the engine (default: %(default)s)")
    parser.add_argument(
        "--work",
        required=True,
        type=Path,
        metavar="DIR",
        help="a folder for what is finished, from which a run that was cut off goes on; on a cluster, one that all nodes share",
    )
    parser.add_argument(
        "--model",
        help=f"a sentence-transformers model (default: {DEFAULT_ENCODER}); with --vector-column, the one that made the vectors",
    )
    parser.add_argument("--device", help="where the model runs, such as cpu or cuda (default: what torch finds here)")
    parser.add_argument("--vector-column", metavar="NAME", help="take the vectors from this field, and embed nothing")
    parser.add_argument("--text-column", metavar="NAME", help="the field of the texts")
    parser.add_argument("--id-column", metavar="NAME", help="the field of the ids")
    parser.add_argument("--metric", choices=METRICS, help="what to rank by (default: cosine)")
    parser.add_argument("--codec", help="its name, such as trellis24 (default: trellis)")
    parser.add_argument("--memory-per-vector", type=int, metavar="BYTES", help="choose the code for this memory")
    parser.add_argument("--target-recall", type=float, metavar="SHARE", help="choose the code for this recall@10")
    parser.add_argument(
        "--shard-rows", type=int, default=SHARD_ROWS, metavar="N", help="rows of a shard (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="in which one shard is embedded (default: 1)")
    parser.add_argument(
        "--ray", action="store_true", help="have workers do it, on Ray: on this machine, or the cluster of RAY_ADDRESS"
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="of a cluster, such as host:6379, or auto on one of its machines; means --ray"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="on Ray (default: as many as there are processors or GPUs for)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace and delete rows of the target that are none of these")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _recipe(arguments: argparse.Namespace) -> Recipe:
    given = arguments.vector_column is not None
    names = ("metric", "codec", "memory_per_vector", "target_recall")
    return Recipe(
        arguments.inputs,
        encoder=None if given else SentenceEncoder(arguments.model or DEFAULT_ENCODER, arguments.device or usual_device()),
        columns=Columns(arguments.text_column, arguments.id_column, arguments.vector_column),
        collection={name: getattr(arguments, name) for name in names},
        fingerprint=arguments.model if given else None,
        shard_rows=arguments.shard_rows,
        threads=arguments.threads,
    )


@contextmanager
def _runner(arguments: argparse.Namespace) -> Iterator[Runner]:
    if arguments.ray or arguments.ray_address:
        # What is printed to standard output is the report alone, and Ray prints there that a worker died.
        with redirect_stdout(sys.stderr), OnRay(arguments.workers, arguments.ray_address) as runner:
            yield runner
        return
    if arguments.workers is not None:
        raise InputError(f"got --workers {arguments.workers} without --ray, wanted both: workers are Ray's; else see --threads")
    yield InProcess()


@contextmanager
def _there_already(arguments: argparse.Namespace) -> Iterator[Collection | RemoteCollection | None]:
    """Give the target if it is there: whether it may be filled, or made, is better known before hours of work than after."""
    if SCHEME not in arguments.target:
        _check_writable(Path(arguments.target))
    try:
        target = _opened(arguments, create=False)
    except CollectionNotFoundError:
        yield None
        return
    with target:
        yield target


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise StorageError(f"{path} cannot be made, as there is no folder {folder}: make it, or name another target")
    for each in (folder, *([path] if path.exists() else [])):
        if not os.access(each, os.W_OK):
            raise StorageError(f"{each} cannot be written, wanted a target to fill: check its rights, or name another target")


def _opened(arguments: argparse.Namespace, *, create: bool = True) -> Collection | RemoteCollection:
    if SCHEME in arguments.target:
        return Collection.connect(arguments.target, arguments.name, create=create)
    return Collection.open(arguments.target, create=create)


def _sentences(found: BuildReport, where: str) -> str:
    left = [f"{found.unchanged} came twice"] * bool(found.unchanged) + [f"{found.differing} left out"] * bool(found.differing)
    now = f"{found.embedded} embedded, {found.encoded} encoded and {found.copied} loaded now"
    counts = ", ".join([f"{found.rows} passages in {found.shards} shards", *left, now])
    codes = (
        f"codec {found.codec}, fine tier {found.fine}" if found.trained else f"too few to learn {found.codec}: kept as they are"
    )
    return f"{counts}; {codes}; checksum {found.checksum}\n{where}"


def _shown(message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"rarebit: {message}\n")
