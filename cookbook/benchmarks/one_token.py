"""One-token context: what a passage's token carries, and what it costs, beside text, no text, and tokens that carry nothing.

``python -m rarebit.cookbook.benchmarks.one_token --data DIR [--bridge FOLDER] [--collections nq-oracle] [--quick]``

SmolLM2-135M-Instruct answers questions about articles that the bridge has not seen in training, with the published prompt.

    - ``no passage``, ``text`` (the passages that answer; each up to 180 tokens, here and below), ``1 token`` (the same by the
      bridge), ``1 token, store`` (from the vectors that a store of 48-byte codes with its fine tier gives back).
    - Controls: ``other's token`` (that of another passage), and a soft prompt, learned without any passage, and bridges of more
      tokens: ``--bridges "soft prompt=FOLDER,4 tokens=FOLDER"``.
    - Ten passages that a search finds: as text, as tokens, and at budgets of 32 to 512 tokens: ``mixed`` (the first ones as
      text, as far as it goes, the others as tokens), ``cut text``, and ``sentences`` (those nearest to the question).

``nll`` is the negative log-likelihood of the answer's tokens, in nats; ``vs none``, ``vs other`` and ``vs cut`` are differences
to no passage, to another passage's token and to cut text, paired by question; ``share`` is how much of the gain of the text a
token has. ``match`` is the share of answers in which the right one stands, ``f1`` the overlap of words. ``kept`` and ``made
right`` are resilience and boost: the share right of what was right, and of what was wrong, without a passage. ``prompt`` is in
tokens, ``flops`` those of the prefill as a ratio to the text's, by formula and as PyTorch's profiler counts, ``first token``
the time to it, as a ratio, in turns. The paraphrase's ``nll`` is that of the passage itself, its first 64 tokens, and ``vs
token`` the difference to that behind the passage's own token. Intervals are of other articles, whose questions are drawn
together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from rarebit.compressors.context.bridge import ModalityBridge
from rarebit.compressors.context.generator import OneTokenGenerator
from rarebit.cookbook.benchmarks.embedded import default_cache
from rarebit.cookbook.benchmarks.figures import Figure, table, write_json
from rarebit.cookbook.benchmarks.one_token_measures import Measured
from rarebit.cookbook.benchmarks.reading_sets import load
from rarebit.cookbook.models import load_smollm
from rarebit.errors import InputError

COLLECTIONS = ("squadshifts-newwiki", "nq-oracle", "hotpotqa-mini", "medquad")
QUESTIONS, ANSWERED, QUICK = 200, 64, 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table for each collection."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of collections")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="(default: %(default)s)")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of each collection (default: %(default)s)")
    parser.add_argument(
        "--answered",
        type=int,
        default=ANSWERED,
        help="of them, for writing answers and with ten passages (default: %(default)s)",
    )
    parser.add_argument("--bridge", type=Path, help="folder of a bridge, from train_bridge (default: the shipped one)")
    parser.add_argument("--bridges", default="", metavar="NAME=FOLDER,...", help="bridges to compare with")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK} questions of each collection")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    given = parser.parse_args(arguments)
    bridge = ModalityBridge.from_pretrained(given.bridge) if given.bridge else ModalityBridge.shipped()
    others = {name: ModalityBridge.from_pretrained(folder) for name, folder in _named(given.bridges)}
    loaded = load_smollm()
    generator = OneTokenGenerator(loaded.model.to(torch.bfloat16), loaded.tokenizer, bridge)
    questions, answered = (QUICK, QUICK) if given.quick else (given.questions, given.answered)
    figures: list[Figure] = []
    for name in given.collections.split(","):
        collection = load(given.data / name, given.cache)
        found = list(Measured(collection, generator, others, given.cache, questions=questions, written=answered).figures())
        figures += found
        print(f"\n{name}")
        for setting in dict.fromkeys(figure.setting.split(",")[0] for figure in found):
            shown = [figure for figure in found if figure.setting.split(",")[0] == setting]
            print(table(shown, with_intervals=("vs none", "vs other", "vs cut", "vs token", "share")), flush=True)
        if given.json:
            write_json(figures, given.json)


def _named(given: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in given.split(",") if part]
    if any(not name or not folder for name, _, folder in pairs):
        raise InputError(f"got --bridges {given!r}, wanted names and folders, such as '4 tokens=FOLDER'")
    return [(name, folder) for name, _, folder in pairs]


if __name__ == "__main__":
    main(sys.argv[1:])
