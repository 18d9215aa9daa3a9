"""``rarebit import``: rows of another store become rows of a collection; nothing is embedded again."""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rarebit.errors import TransferWarning
from rarebit.retrievers.collection import Collection
from rarebit.retrievers.collection.settings import METRICS
from rarebit.retrievers.importing import ImportReport, import_into, source_of
from rarebit.retrievers.importing.opening import OPENERS


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Import; gives the counts, and a sentence about them."""
    source = source_of(
        arguments.source,
        arguments.kind,
        texts=arguments.texts,
        name=arguments.name,
        vector_column=arguments.vector_column,
        text_column=arguments.text_column,
        id_column=arguments.id_column,
    )
    with (
        warnings.catch_warnings(),
        Collection.open(
            arguments.collection,
            metric=arguments.metric,
            memory_per_vector=arguments.memory_per_vector,
            target_recall=arguments.target_recall,
            near_duplicates=arguments.near_duplicates,
            fingerprint=arguments.model,
        ) as collection,
    ):
        warnings.simplefilter("always", TransferWarning)
        warnings.showwarning = _shown
        found = import_into(collection, source, overwrite=arguments.overwrite, progress=not arguments.json)
        counts = {**asdict(found), "passages": collection.count()}
        known = collection.settings.fingerprint.name is not None
    return counts, _sentences(found, f"{arguments.collection} holds {counts['passages']}", model_known=known)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a folder of Chroma's or of LlamaIndex's, a Parquet file or a folder of them, or a numpy file",
    )
    parser.add_argument("--from", dest="kind", choices=[*OPENERS], help="what it is (default: guessed from the path)")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="numpy: a .jsonl, .json or .txt file, one text a vector")
    parser.add_argument("--name", help="Chroma: of the collection, where there are several")
    parser.add_argument("--vector-column", metavar="NAME", help="Parquet: the column of the vectors")
    parser.add_argument("--text-column", metavar="NAME", help="Parquet, numpy: the column, or field, of the texts")
    parser.add_argument("--id-column", metavar="NAME", help="Parquet, numpy: the column, or field, of the ids")
    parser.add_argument("--overwrite", action="store_true", help="replace passages that have the same id (default: keep them)")
    parser.add_argument("--model", help="the sentence-transformers model that made the vectors; `search` embeds with it")
    parser.add_argument("--metric", choices=METRICS, help="at creation: what to rank by (default: cosine)")
    parser.add_argument("--memory-per-vector", type=int, metavar="BYTES", help="at creation: choose the code for this memory")
    parser.add_argument("--target-recall", type=float, metavar="SHARE", help="at creation: choose the code for this recall@10")
    add_near_duplicates(parser)


def add_near_duplicates(parser: argparse.ArgumentParser) -> None:
    """Say how near-duplicates are skipped."""
    parser.add_argument(
        "--near-duplicates",
        type=float,
        metavar="SIMILARITY",
        help="at creation: skip passages whose text is this similar to that of another, from 0 to 1, such as 0.9",
    )


def _sentences(found: ImportReport, holds: str, *, model_known: bool) -> str:
    there = [f"{found.unchanged} there already"]
    there += [f"{found.replaced} replaced"] if found.replaced else []
    there += [f"{found.differing} left out" if found.differing else ""]
    there += [f"{found.skipped} skipped as near-duplicates" if found.skipped else ""]
    counts = ", ".join(part for part in there if part)
    hint = "" if model_known else "\nwhich model made the vectors is not known: --model NAME tells it to `search`"
    return f"{found.added} passages added, {counts}; {holds}{hint}"


def _shown(message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"rarebit: {message}\n")
