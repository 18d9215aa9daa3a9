"""The command line: ``rarebit index | import | build | move | search | stats | recompress | check | compact | demo``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from rarebit import __version__, cli_build, cli_import, cli_move
from rarebit.encoders import DEFAULT_ENCODER, load_encoder
from rarebit.errors import RarebitError
from rarebit.extras import require
from rarebit.passages import Passage, files_below, passages_of
from rarebit.retrievers.collection import Collection, Compare, Filter, Hit, Or, Stats, Tenant

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_COLLECTION = Path("docs.rarebit")
TEXTS_AT_ONCE = 256
INTERRUPTED = 130
COUNTED = {"added": "passages added", "skipped": "skipped as near-duplicates", "deleted": "deleted"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or another one with one line on standard error."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int | None] = arguments.command
    try:
        return command(arguments) or 0
    except RarebitError as error:
        sys.stderr.write(f"rarebit: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("rarebit: interrupted; what was finished before is kept\n")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def index(arguments: argparse.Namespace) -> None:
    """Embed the passages of text files that are not stored yet, and delete those that are gone from these files."""
    paths = [path.resolve() for path in arguments.paths]
    files = list(files_below(paths))
    wanted = {passage.id: passage for passage in passages_of(files)}
    # A collection keeps its model's name for life, so it is not created before that model has loaded.
    encoder = None if arguments.collection.exists() else load_encoder(arguments.model)
    with Collection.open(
        arguments.collection,
        fingerprint=arguments.model,
        memory_per_vector=arguments.memory_per_vector,
        target_recall=arguments.target_recall,
        near_duplicates=arguments.near_duplicates,
    ) as collection:
        rows = _bound(collection, arguments)
        stored = {row.id: Path(row.metadata["source"]) for row in rows.iterate(_below(paths))}
        new = [passage for key, passage in wanted.items() if key not in stored]
        read = set(files)
        gone = [key for key, source in stored.items() if key not in wanted and (source in read or not source.exists())]
        skips = collection.settings.near_duplicates is not None
        # The old edition of a passage must not stand for the new one, and then be deleted.
        deleted = rows.delete(gone) if skips else 0
        added = _embed_and_add(rows, new, encoder, progress=not arguments.json)
        deleted += rows.delete(gone)
        skipped = {"skipped": len(new) - added} if skips else {}
        counts = {"added": added, **skipped, "deleted": deleted, "passages": rows.count()}
    shown = ", ".join(f"{counts[name]} {what}" for name, what in COUNTED.items() if name in counts)
    _report(counts, f"{shown}; {arguments.collection} holds {counts['passages']}", as_json=arguments.json)


def import_(arguments: argparse.Namespace) -> None:
    """Store the passages of another store with the vectors that they have; a run that was cut off is resumed by another."""
    counts, sentences = cli_import.run(arguments)
    _report(counts, sentences, as_json=arguments.json)


def build(arguments: argparse.Namespace) -> None:
    """Build a collection from files of passages, in bulk, with or without Ray; another run resumes one that was cut off."""
    counts, sentences = cli_build.run(arguments)
    _report(counts, sentences, as_json=arguments.json)


def move(arguments: argparse.Namespace) -> None:
    """Take a collection from a file to a database server, or back, with its codes; another run resumes one that was cut off."""
    counts, sentence = cli_move.run(arguments)
    _report(counts, sentence, as_json=arguments.json)


def search(arguments: argparse.Namespace) -> None:
    """Search by meaning, by words, or by both."""
    with Collection.open(arguments.collection, read_only=True) as collection:
        hits = _search(_bound(collection, arguments), arguments)
    _report([_as_json(hit) for hit in hits], "\n".join(map(_shown, hits)) or "nothing found", as_json=arguments.json)


def stats(arguments: argparse.Namespace) -> None:
    """Show what a collection holds and how many bytes it takes."""
    with Collection.open(arguments.collection, read_only=True) as collection:
        found = collection.stats().as_dict()
    _report(found, "\n".join(f"{name:20} {value}" for name, value in _flat(found)), as_json=arguments.json)


def recompress(arguments: argparse.Namespace) -> None:
    """Learn the codes anew from the passages that are there now, or other codes; nothing is embedded again."""
    with Collection.open(arguments.collection, create=False) as collection:
        found = collection.recompress(
            codec=arguments.codec,
            memory_per_vector=arguments.memory_per_vector,
            target_recall=arguments.target_recall,
            progress=not arguments.json,
        )
    _report(found.as_dict(), _chosen(found), as_json=arguments.json)


def check(arguments: argparse.Namespace) -> int:
    """Read everything once, and say what is damaged; the exit status is 1 if anything is."""
    with Collection.open(arguments.collection, create=False) as collection:
        found = collection.check(progress=not arguments.json)
    sound = f"{arguments.collection} is sound"
    _report({"problems": found}, "\n".join(found) or sound, as_json=arguments.json)
    return 1 if found else 0


def compact(arguments: argparse.Namespace) -> None:
    """Give the space of deleted passages back to the disk."""
    with Collection.open(arguments.collection, create=False) as collection:
        freed = collection.compact()
    _report({"freed": freed}, f"{freed:,} bytes came free", as_json=arguments.json)


def demo(arguments: argparse.Namespace) -> None:
    """Run the quickstart recipe."""
    for module in ("gguf", "langchain_core", "llama_index.core", "sentence_transformers", "transformers"):
        require(module, "demo")
    from rarebit.cookbook import quickstart

    quickstart.main(arguments.arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rarebit", description="Search your own text files through small codes.")
    parser.add_argument("--version", action="version", version=f"rarebit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--collection", type=Path, default=DEFAULT_COLLECTION, help="the file (default: %(default)s)")
    common.add_argument("--json", action="store_true", help="print JSON")

    bound = argparse.ArgumentParser(add_help=False)
    bound.add_argument("--tenant", metavar="NAME", help="whose passages; those of the collection itself if left out")

    adding = commands.add_parser("index", parents=[common, bound], help="store text files", description=index.__doc__)
    adding.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a text file, or a folder of them")
    adding.add_argument("--model", default=DEFAULT_ENCODER, help="a sentence-transformers model (default: %(default)s)")
    adding.add_argument("--memory-per-vector", type=int, metavar="BYTES", help="at creation: choose the code for this memory")
    adding.add_argument("--target-recall", type=float, metavar="SHARE", help="at creation: choose the code for this recall@10")
    cli_import.add_near_duplicates(adding)
    adding.set_defaults(command=index)

    importing = commands.add_parser(
        "import", parents=[common, bound], help="take over another store", description=import_.__doc__
    )
    cli_import.add_arguments(importing)
    importing.set_defaults(command=import_)

    building = commands.add_parser("build", help="build from files of passages, in bulk", description=build.__doc__)
    cli_build.add_arguments(building)
    building.set_defaults(command=build)

    moving = commands.add_parser("move", help="take a collection to a server, or back", description=move.__doc__)
    cli_move.add_arguments(moving)
    moving.set_defaults(command=move)

    searching = commands.add_parser("search", parents=[common, bound], help="search", description=search.__doc__)
    searching.add_argument("query")
    searching.add_argument("-k", type=int, default=5, help="how many passages (default: %(default)s)")
    searching.add_argument("--mode", choices=["vector", "lexical", "hybrid"], default="vector", help="(default: %(default)s)")
    searching.add_argument("--source", type=Path, help="only passages of this file")
    searching.set_defaults(command=search)

    counting = commands.add_parser("stats", parents=[common], help="show sizes", description=stats.__doc__)
    counting.set_defaults(command=stats)

    again = commands.add_parser("recompress", parents=[common], help="learn other codes", description=recompress.__doc__)
    again.add_argument("--codec", help="its name, such as trellis24")
    again.add_argument("--memory-per-vector", type=int, metavar="BYTES", help="choose the code for this memory, by measuring")
    again.add_argument("--target-recall", type=float, metavar="SHARE", help="choose the code for this recall@10, by measuring")
    again.set_defaults(command=recompress)

    looking = commands.add_parser("check", parents=[common], help="look for damage", description=check.__doc__)
    looking.set_defaults(command=check)

    shrinking = commands.add_parser("compact", parents=[common], help="shrink the file", description=compact.__doc__)
    shrinking.set_defaults(command=compact)

    # No prefix marks an option here: all that follows, --help too, is for the recipe.
    showing = commands.add_parser(
        "demo", help="run the main job on Python's own documentation; try demo --help", add_help=False, prefix_chars="\0"
    )
    showing.add_argument("arguments", nargs=argparse.REMAINDER)
    showing.set_defaults(command=demo)
    return parser


def _below(paths: Sequence[Path]) -> Filter:
    """Match the stored passages of these files and of every file below these folders."""
    return Or(
        *(part for path in paths for part in (Compare("source", "eq", str(path)), Compare("source", "like", _inside(path))))
    )


def _inside(folder: Path) -> str:
    escaped = str(folder / "x")[:-1]
    for special in "\\%_":
        escaped = escaped.replace(special, f"\\{special}")
    return f"{escaped}%"


def _bound(collection: Collection, arguments: argparse.Namespace) -> Collection | Tenant:
    return collection if arguments.tenant is None else collection.tenant(arguments.tenant)


def _embed_and_add(
    rows: Collection | Tenant, passages: Sequence[Passage], encoder: SentenceTransformer | None, *, progress: bool
) -> int:
    """Embed and keep block by block: what was kept before an interruption need not be embedded again. Gives how many."""
    stands = rows.stand_ins([passage.text for passage in passages], [passage.id for passage in passages])
    passages = [passage for passage, key in zip(passages, stands, strict=True) if passage.id == key]
    if not passages:
        return 0
    kept = 0
    encoder = encoder if encoder is not None else _encoder_of(rows)
    with tqdm(total=len(passages), desc="embedding", unit="passage", disable=not progress) as bar:
        for start in range(0, len(passages), TEXTS_AT_ONCE):
            block = passages[start : start + TEXTS_AT_ONCE]
            stands = rows.add(
                encoder.encode([passage.text for passage in block], show_progress_bar=False),
                texts=[passage.text for passage in block],
                metadatas=[{"source": passage.source, "start": passage.start} for passage in block],
                ids=[passage.id for passage in block],
            )
            kept += sum(passage.id == key for passage, key in zip(block, stands, strict=True))
            bar.update(len(block))
    return kept


def _search(rows: Collection | Tenant, arguments: argparse.Namespace) -> list[Hit]:
    within = Compare("source", "eq", str(arguments.source.resolve())) if arguments.source else None
    if arguments.mode == "lexical":
        return rows.search_lexical(arguments.query, arguments.k, filter=within)
    vector = _encoder_of(rows).encode(arguments.query, show_progress_bar=False)
    if arguments.mode == "hybrid":
        return rows.search_hybrid(vector, arguments.query, arguments.k, filter=within)
    return rows.search(vector, arguments.k, filter=within)


def _encoder_of(rows: Collection | Tenant) -> SentenceTransformer:
    return load_encoder(rows.settings.fingerprint.name or DEFAULT_ENCODER)


def _chosen(found: Stats) -> str:
    sizes = f"codec {found.codec}, fine tier {found.fine}: {found.memory_per_vector:.1f} bytes a vector in memory"
    if found.choice is None:
        return sizes
    chosen = found.choice["chosen"]
    measured = f"recall@10 {chosen['recall']:.3f} with {chosen['candidates']} candidates re-ranked"
    return f"{sizes}, {measured}, {chosen['recall_of_codes']:.3f} by the codes alone\nchosen: {found.choice['reason']}"


def _as_json(hit: Hit) -> dict[str, Any]:
    return {name: value for name, value in asdict(hit).items() if name != "vector"}


def _shown(hit: Hit) -> str:
    where = f"{hit.metadata.get('source', hit.id)}:{hit.metadata.get('start', 0)}"
    return f"{hit.score:6.3f}  {where}\n        {' '.join(hit.text.split())[:160]}"


def _flat(found: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in found.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return pairs


def _report(data: Any, text: str, *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(data, ensure_ascii=False, indent=2) if as_json else text) + "\n")


if __name__ == "__main__":
    sys.exit(main())
