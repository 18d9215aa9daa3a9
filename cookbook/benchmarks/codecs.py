"""Rarebit's codecs and their rivals at equal sizes: what they find, and how long they take.

``python -m rarebit.cookbook.benchmarks.codecs --data DIR [--collections scifact,npl] [--sizes 24,48] [--methods trellis]``

MiniLM embeddings of whole collections in BEIR layout; from ``eltec-eng``, which has no judgements, 200,000 passages and 1,000
others as queries. Every codec is trained on at most 65,536 random documents (seeded), never on test queries or judgements.

Each method is asked once for 100 documents a query, in one call:
    - ``recall@10``, ``recall@100``: share of the exact best by float32 inner product that were found; ties within 1e-6 count.
    - ``ndcg@10``, with a judgement's score as the gain, and ``ndcg@10_share``: its mean over the mean of exact float32 search.
    - ``..., re-ranked``: the same after the 100 candidates are scored again by their int8 vectors. Which 100 they are stays,
      and so does recall@100.
    - ``..., re-ranked by residuals``: of Rarebit's codecs, re-ranked by what the codes miss in int8, the default fine tier.
    - ``bytes``: the code of one vector. What all vectors share, and ids, are not in it.
    - ``train_s``: to learn from the sample. ``encode_per_s``: documents a second, encoded and laid out for search.
    - ``ratio_to_flat``: the median of a method's time for one query, 100 documents wanted, over IndexFlatIP's for the same
      query. The two take turns in random (seeded) order over 50 queries, after 5 that are not counted; so every method meets
      a processor cache that IndexFlatIP has just filled.

faiss and turbovec use one thread. numpy and torch do if the environment says OMP_NUM_THREADS=1, and ``taskset -c 0`` keeps
every method on one core, also one with threads of its own: use both for times that can be compared.

What is not installed, or cannot have a size, is left out with a printed line. With ``--json FILE`` the figures of each method
are kept in ``FILE.part`` as soon as they are there, and a run that is killed goes on behind them. ``--ablation`` measures,
instead of all this, the trained codecs with parts taken away (:mod:`.codec_ablation`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from rarebit.arrays import RowIdMatrix, Vectors
from rarebit.cookbook.benchmarks.codec_ablation import ablation_entries
from rarebit.cookbook.benchmarks.codec_methods import Entry, Method, our_entries
from rarebit.cookbook.benchmarks.codec_rivals import rival_entries
from rarebit.cookbook.benchmarks.embedded import default_cache
from rarebit.cookbook.benchmarks.figures import Figure, Subject, means, table, write_json
from rarebit.cookbook.benchmarks.judged import CANDIDATES, QUICK, Judge, Judged, K, Limits, load, ndcg, share, sorted_by
from rarebit.errors import CodecError, InputError

BENCHMARK = "codecs"
COLLECTIONS = ("scifact", "medquad", "npl", "trec-dl19", "fairytaleqa", "eltec-eng")
SIZES = (16, 24, 32, 48, 64, 96, 128, 192)

QUICK_COLLECTIONS = ("scifact", "npl")
FEW_SIZES = (24, 48)
"""Sizes of a quick run, and of the ablation."""

ABLATION = "codecs: ablation"
ABLATION_COLLECTIONS = ("eltec-eng", "medquad")
ABLATION_ROWS = 50_000

TRAINING_ROWS = 65_536
TIMED_QUERIES = 50
WARM_UP = 5
RE_RANKED, BY_RESIDUALS = ", re-ranked", ", re-ranked by residuals"


@dataclass(frozen=True)
class Plan:
    """What a run measures."""

    benchmark: str
    data: Path
    cache: Path
    collections: Sequence[str]
    sizes: Sequence[int]
    prefixes: Sequence[str]
    limits: Limits

    def entries(self, collection: Judged) -> list[Entry]:
        """List the methods that are wanted."""
        dim = collection.docs.shape[1]
        if self.benchmark == ABLATION:
            found = list(ablation_entries(self.sizes, collection.train_queries))
        else:
            found = [*our_entries(dim, self.sizes), *rival_entries(dim, self.sizes)]
        return [entry for entry in found if entry.is_wanted(self.prefixes)]

    def load(self, name: str) -> Judged:
        """Load a collection, or as much of it as is measured."""
        collection = load(self.data / name, self.cache, self.limits)
        return collection.first(ABLATION_ROWS) if self.benchmark == ABLATION else collection

    @property
    def identity(self) -> dict[str, Any]:
        """What figures must have in common to stand in one file."""
        return {"benchmark": self.benchmark, **asdict(self.limits)}


class Finished:
    """The figures that are there, by collection, method and setting; kept in a file if there is one.

    Args:
        path: the file; its first line says what run it belongs to, and every other one holds the figures of one method.
        plan: of the run.

    Raises:
        InputError: the file belongs to another kind of run.
    """

    def __init__(self, path: Path | None, plan: Plan) -> None:
        """Read what a killed run left behind."""
        self._path = path
        self._figures: dict[tuple[str, str, str], list[Figure]] = {}
        lines = list(_whole_lines(path)) if path is not None and path.exists() else []
        if path is not None and lines and lines[0] != plan.identity:
            raise InputError(
                f"got {path} of another kind of run ({lines[0]}), wanted {plan.identity}: delete it, or name another"
            )
        for rows in lines[1:]:
            self._keep([Figure(**row) for row in rows])
        self._write_all(plan)

    def of(self, collection: str, entry: Entry) -> list[Figure] | None:
        """Give the figures of a method, None if it was not measured yet."""
        return self._figures.get((collection, entry.name, entry.setting))

    def add(self, figures: list[Figure]) -> None:
        """Keep the figures of a method."""
        self._keep(figures)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(figures))

    def __iter__(self) -> Iterator[Figure]:
        """Give all figures."""
        for figures in self._figures.values():
            yield from figures

    def _keep(self, figures: list[Figure]) -> None:
        first = figures[0]
        self._figures[first.collection, first.method, first.setting] = figures

    def _write_all(self, plan: Plan) -> None:
        """Write the file anew, so that a line that was cut off is gone."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(plan.identity) + "\n", *map(_line, self._figures.values())]
            self._path.write_text("".join(lines), encoding="utf-8")


def _line(figures: list[Figure]) -> str:
    return json.dumps([asdict(figure) for figure in figures], ensure_ascii=False) + "\n"


def _whole_lines(path: Path) -> Iterator[Any]:
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def measure(judge: Judge, method: Method, about: Subject) -> Iterator[Figure]:
    """Train, fill and search one method."""
    docs = judge.collection.docs
    sample = training_sample(docs)
    _, train_seconds = _timed(lambda: method.train(sample))
    _, fill_seconds = _timed(lambda: method.fill(docs))
    places = method.search(judge.collection.queries, CANDIDATES)
    yield about.counted("bytes", method.code_size, len(docs))
    yield from _quality(judge, places, method.kept(docs), about)
    yield about.counted("train_s", train_seconds, len(sample))
    yield about.counted("encode_per_s", len(docs) / fill_seconds, len(docs))
    yield about.sampled("ratio_to_flat", _ratios(judge, method), np.median)


def training_sample(docs: Vectors) -> Vectors:
    """Draw the documents that codecs learn from, in random order."""
    return docs[np.random.default_rng(0).permutation(len(docs))[:TRAINING_ROWS]]


def _quality(judge: Judge, places: RowIdMatrix, kept: Vectors | None, about: Subject) -> Iterator[Figure]:
    answers = {"": places, RE_RANKED: judge.re_ranked(places)}
    if kept is not None:
        answers[BY_RESIDUALS] = sorted_by(kept, judge.collection.queries, places)
    for suffix, found in answers.items():
        for k in (K, CANDIDATES):
            yield about.sampled(f"recall@{k}{suffix}", judge.recall(found, k))
        gains = judge.collection.gains
        if gains is not None:
            own, exact = ndcg(found, gains), ndcg(judge.exact, gains)
            yield about.sampled(f"ndcg@{K}{suffix}", own)
            yield about.sampled(f"ndcg@{K}_share{suffix}", np.stack([own, exact], axis=1), share)


def _ratios(judge: Judge, method: Method) -> npt.NDArray[np.float64]:
    """Time single queries, IndexFlatIP and the method in turn."""
    queries = judge.collection.queries[:TIMED_QUERIES, np.newaxis]
    searches = (lambda query: judge.flat.search(query, CANDIDATES), lambda query: method.search(query, CANDIDATES))
    for query in queries[:WARM_UP]:
        for search in searches:
            search(query)
    seconds = np.zeros((len(queries), 2))
    order = np.random.default_rng(0)
    for turn, query in enumerate(queries):
        for place in order.permutation(2):
            started = perf_counter()
            searches[place](query)
            seconds[turn, place] = perf_counter() - started
    return seconds[:, 1] / seconds[:, 0]


def _timed(call: Callable[[], object]) -> tuple[object, float]:
    started = perf_counter()
    result = call()
    return result, perf_counter() - started


def measure_collection(plan: Plan, name: str, finished: Finished) -> None:
    """Measure what is missing on one collection, and print all."""
    collection = plan.load(name)
    rows, dim = collection.docs.shape
    print(f"{name}: {rows:,} documents, {len(collection.queries):,} queries, {dim} dimensions")
    judge = Judge(collection)
    entries = plan.entries(collection)
    for place, entry in enumerate(entries, start=1):
        if finished.of(name, entry) is None:
            figures, seconds = _timed(lambda entry=entry: _measured(plan, judge, entry))  # type: ignore[misc]
            if isinstance(figures, list):
                finished.add(figures)
                print(f"  {place}/{len(entries)} {entry.name}, {entry.setting}: {seconds:.1f} s", flush=True)
    found = [figure for entry in entries for figure in finished.of(name, entry) or []]
    print(f"\n{table(found, ())}\n" if found else "", flush=True)


def _measured(plan: Plan, judge: Judge, entry: Entry) -> list[Figure] | None:
    about = Subject(plan.benchmark, judge.collection.name, entry.name, entry.setting)
    try:
        return list(measure(judge, entry.make(), about))
    except (ImportError, CodecError, InputError) as error:
        print(f"  left out: {entry.name}, {entry.setting}: {error}", flush=True)
        return None


def run(plan: Plan, json_file: Path | None, plot: Path | None) -> None:
    """Measure all collections, and write the files that are wanted."""
    part = None if json_file is None else json_file.with_name(f"{json_file.name}.part")
    finished = Finished(part, plan)
    for name in plan.collections:
        measure_collection(plan, name, finished)
    figures = list(finished)
    if len(plan.collections) > 1:
        print(f"mean over the collections, of what all have\n{table(means(figures), ())}", flush=True)
    if plot is not None:
        from rarebit.cookbook.benchmarks.plots import draw

        draw(figures, plot)
    if json_file is not None and part is not None:
        write_json(figures, json_file)
        part.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rarebit.cookbook.benchmarks.codecs", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of collections in BEIR layout")
    parser.add_argument("--collections", type=_names, help="names of collections, with commas between")
    parser.add_argument("--sizes", type=_sizes, help="bytes a vector, with commas between")
    parser.add_argument("--methods", type=_names, default=[""], help="what names of methods start with, with commas between")
    parser.add_argument("--ablation", action="store_true", help="measure the trained codecs with parts taken away")
    parser.add_argument("--quick", action="store_true", help="two collections of 2,000 documents and 50 queries, two sizes")
    parser.add_argument("--json", type=Path, help="file to write the figures to; FILE.part keeps those of a killed run")
    parser.add_argument("--plot", type=Path, help="svg or png file to draw to; needs matplotlib")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    faiss.omp_set_num_threads(1)
    run(_plan(given), given.json, given.plot)
    return 0


def _plan(given: argparse.Namespace) -> Plan:
    usual = QUICK_COLLECTIONS if given.quick else ABLATION_COLLECTIONS if given.ablation else COLLECTIONS
    return Plan(
        benchmark=ABLATION if given.ablation else BENCHMARK,
        data=given.data,
        cache=given.cache,
        collections=given.collections or usual,
        sizes=given.sizes or (FEW_SIZES if given.quick or given.ablation else SIZES),
        prefixes=given.methods,
        limits=QUICK if given.quick else Limits(),
    )


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",")]


def _sizes(given: str) -> list[int]:
    return [int(size) for size in given.split(",")]


if __name__ == "__main__":
    sys.exit(main())
