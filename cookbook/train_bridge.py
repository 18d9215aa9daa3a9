"""Train a bridge from MiniLM's vectors to SmolLM2-135M-Instruct.

    python -m rarebit.cookbook.train_bridge --data DIR --out FOLDER

It learns from passages of public collections and from questions about some of them; the articles and documents that
``rarebit.cookbook.benchmarks.one_token`` measures with take no part. Training is kept in ``--checkpoint`` now and then, and
goes on from there when the command is given again. The shipped bridge was trained by ``--paraphrases 300 --readings 400
--divergence 0``, in half an hour on one core of a processor with bfloat16; its data are listed beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
from rarebit.compressors.context.lessons import Lessons
from rarebit.compressors.context.training import Stage, train_bridge
from rarebit.cookbook.benchmarks.embedded import MODEL, default_cache
from rarebit.cookbook.benchmarks.reading_sets import joined, load, unasked
from rarebit.cookbook.models import LANGUAGE_MODEL, load_smollm

READ = ("squadshifts-newwiki", "nq-oracle", "fairytaleqa", "medquad")
"""Collections with answers; of each, the articles that are not measured with."""

MEASURED = ("hotpotqa-mini",)
"""Collections that are measured with alone: what they ask about is left out wherever it stands."""

PARAPHRASED = {"trec-dl19": 10_000, "scifact": 4_000, "cisi": 1_400, "cranfield": 1_300, "eltec-eng": 20_000}
"""Collections whose passages are paraphrased alone, and how many of them."""

WIDTH = 576


def lessons(data: Path, cache: Path) -> Lessons:
    """Gather what is learned from."""
    sets = [load(data / name, cache) for name in READ]
    more = [unasked(data / name, cache, most) for name, most in PARAPHRASED.items()]
    return joined(sets, more, [load(data / name, cache) for name in MEASURED])


def language_model(*, device: str) -> tuple[Any, Any]:
    """Load SmolLM2 as it is trained with: in bfloat16, with plain attention, whose backward pass is the faster on a CPU."""
    loaded = load_smollm()
    model = loaded.model.to(device=device, dtype=torch.bfloat16)
    model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
    return model, loaded.tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write the bridge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of collections")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bridge to")
    parser.add_argument("--checkpoint", type=Path, help="folder to keep the training in")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    parser.add_argument("--tokens", type=int, default=1, help="input embeddings of a passage (default: %(default)s)")
    parser.add_argument("--blind", action="store_true", help="learn a soft prompt that knows nothing of the passage")
    parser.add_argument("--paraphrases", type=int, default=1500, help="steps of the first stage (default: %(default)s)")
    parser.add_argument("--readings", type=int, default=3000, help="steps of the second stage (default: %(default)s)")
    parser.add_argument("--divergence", type=float, default=2.0, help="weight of the divergence (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    model, tokenizer = language_model(device=given.device)
    bridge: ModalityBridge = train_bridge(
        model,
        tokenizer,
        lessons(given.data, given.cache),
        BridgeConfig(384, WIDTH, given.tokens, input_length=384**0.5, embedding_model=MODEL, language_model=LANGUAGE_MODEL),
        [
            Stage("paraphrase", given.paraphrases, 16, longest=32),
            Stage("reading", given.readings, 16, longest=24, divergence=given.divergence),
        ],
        blind=given.blind,
        checkpoint=given.checkpoint,
        progress=True,
    )
    bridge.half().save_pretrained(given.out)  # language models compute in no more
    settings = {name: getattr(given, name) for name in ("tokens", "blind", "paraphrases", "readings", "divergence")}
    told = {**settings, "read": READ, "paraphrased": PARAPHRASED, "measured, so left out": MEASURED}
    (given.out / "training.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
