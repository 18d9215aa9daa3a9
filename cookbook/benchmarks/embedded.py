"""Passages of a collection in BEIR layout, and their MiniLM embeddings, which are computed once and kept.

Embeddings are float32 of length 1. They are kept in a cache folder under a hash of the model's name, the texts and a format
version. Texts are embedded longest first, in blocks that are kept as they are finished, so a run that is killed goes on where
it was.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from rarebit.arrays import Vectors, normalized
from rarebit.errors import InputError

MODEL = "all-MiniLM-L6-v2"
FORMAT = 2
BLOCK = 4096
"""Texts whose embeddings are kept together: at most this many are lost when a run is killed."""

AT_ONCE = 256
"""Texts handed to the model at once; the progress bar moves by them."""

Encoder: TypeAlias = Callable[[list[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Passage:
    """A line of ``corpus.jsonl``."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


def default_cache() -> Path:
    """Name the folder that embeddings are kept in unless another is asked for."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rarebit" / "benchmarks"


def read_corpus(folder: Path) -> Iterator[Passage]:
    """Read ``corpus.jsonl`` or ``corpus.jsonl.gz`` of a collection's folder.

    Raises:
        InputError: there is neither.
    """
    plain, packed = folder / "corpus.jsonl", folder / "corpus.jsonl.gz"
    if not plain.exists() and not packed.exists():
        raise InputError(
            f"got the folder {folder}, wanted one with corpus.jsonl or corpus.jsonl.gz: check --data, --collections"
        )
    with plain.open(encoding="utf-8") if plain.exists() else gzip.open(packed, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield Passage(record["_id"], record.get("title") or "", record["text"], record.get("metadata") or {})


def chosen(passages: Sequence[Passage], count: int, *, shortest: int, seed: int = 0) -> list[Passage]:
    """Choose passages at random: those of at least ``shortest`` characters in a seeded order, each text once; count or all."""
    eligible = [passage for passage in passages if len(passage.text) >= shortest]
    first_of_text: dict[str, Passage] = {}
    for place in np.random.default_rng(seed).permutation(len(eligible)):
        if len(first_of_text) == count:
            break
        first_of_text.setdefault(eligible[place].text, eligible[place])
    return list(first_of_text.values())


def load_encoder() -> Encoder:
    """Load MiniLM.

    It runs in mixed precision: nearly twice as fast on a CPU with bfloat16, and the embeddings are those of float32 to a cosine
    of 0.99998. Every method of a benchmark is given the same ones, and compared with the exact search of them.
    """
    import torch

    from rarebit.cookbook.models import load_minilm

    model = load_minilm()

    def encode(texts: list[str]) -> npt.NDArray[np.float32]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return np.asarray(model.encode(texts, batch_size=64, show_progress_bar=False), dtype=np.float32)

    return encode


def embedded(texts: Sequence[str], cache: Path, *, block: int = BLOCK) -> Vectors:
    """Give the embeddings of texts, from the cache where they are there.

    Args:
        texts: n passages.
        cache: the folder to keep them in.
        block: texts kept together while embedding.

    Returns:
        (n, dim) float32 of length 1, in the order of the texts.
    """
    name = _key(texts)
    whole, parts = cache / f"{name}.npy", cache / f"{name}.parts"
    if not whole.exists():
        vectors = _embedded_in_blocks(texts, parts, block)
        _save(whole, vectors)
        shutil.rmtree(parts)
    kept: Vectors = np.load(whole)
    return kept


def _embedded_in_blocks(texts: Sequence[str], parts: Path, block: int) -> Vectors:
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    parts.mkdir(parents=True, exist_ok=True)
    blocks: list[Vectors] = []
    encode: Encoder | None = None
    with tqdm(total=len(texts), desc="embedding", unit="text") as bar:
        for start in range(0, len(texts), block):
            part = parts / f"{start:08d}-{block}.npy"
            places = order[start : start + block]
            if part.exists():
                bar.update(len(places))
            else:
                encode = encode or load_encoder()
                _save(part, _encoded(encode, [texts[place] for place in places], bar))
            blocks.append(np.load(part))
    vectors = np.concatenate(blocks)
    return np.ascontiguousarray(vectors[np.argsort(order)])


def _encoded(encode: Encoder, texts: list[str], bar: Any) -> Vectors:
    found = []
    for start in range(0, len(texts), AT_ONCE):
        part = texts[start : start + AT_ONCE]
        found.append(encode(part))
        bar.update(len(part))
    return normalized(np.concatenate(found))


def _key(texts: Sequence[str]) -> str:
    digest = sha256(json.dumps([FORMAT, MODEL, len(texts)]).encode())
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:32]


def _save(path: Path, vectors: Vectors) -> None:
    """Write aside and rename, so that what has the name is whole."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        np.save(file, vectors)
    aside.replace(path)
