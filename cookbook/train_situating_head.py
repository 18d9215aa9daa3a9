"""Train the situating head that comes with Rarebit.

    python -m rarebit.cookbook.train_situating_head --data DIR --out retrievers/situating/shipped

Without labels: sentences are taken out of their chunks, and the head learns what to lend each chunk of its surroundings so that
it is found by its sentence. The documents are the modules of Python's documentation, and the first chunks of novels, from
``DIR/eltec-eng``. It has no attention, so that it fits vectors of any dimension. Minutes, most of them for MiniLM's embeddings,
which are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rarebit.arrays import Vectors
from rarebit.cookbook import python_docs
from rarebit.cookbook.benchmarks.embedded import default_cache, embedded, read_corpus
from rarebit.passages import LONGEST, cut
from rarebit.retrievers.situating import SituatingHead, removed_sentences, unlabelled

CHUNKS_A_NOVEL = 48
FEWEST_CHUNKS = 3
STEPS = 600


def documents(data: Path) -> list[list[str]]:
    """Give the chunks of every document, half as long as a small encoder reads and as long."""
    texts = [*_novels(data), *_modules()]
    found = [[chunk for _, chunk in cut(text, size)] for text in texts for size in (LONGEST // 2, LONGEST)]
    return [chunks[:CHUNKS_A_NOVEL] for chunks in found if len(chunks) >= FEWEST_CHUNKS]


def trained(data: Path, cache: Path, *, progress: bool = False) -> SituatingHead:
    """Train the head."""
    chunks = documents(data)
    sentences = removed_sentences(chunks, per_chunk=1)
    vectors = embedded([chunk for document in chunks for chunk in document], cache)
    examples = unlabelled(_split(vectors, chunks), sentences, embedded([sentence.text for sentence in sentences], cache))
    return SituatingHead.fit(examples, steps=STEPS, progress=progress)


def _split(vectors: Vectors, chunks: Sequence[Sequence[str]]) -> list[Vectors]:
    return np.split(vectors, np.cumsum([len(document) for document in chunks])[:-1])


def _novels(data: Path) -> Iterator[str]:
    paragraphs: dict[str, list[str]] = {}
    for passage in read_corpus(data / "eltec-eng"):
        paragraphs.setdefault(passage.metadata["book"], []).append(passage.text)
    for texts in paragraphs.values():
        yield "\n\n".join(texts)[: CHUNKS_A_NOVEL * LONGEST]


def _modules() -> Iterator[str]:
    entries: dict[str, list[str]] = {}
    for entry in python_docs.corpus():
        entries.setdefault(entry.module, []).append(entry.text)
    for texts in entries.values():
        yield "\n\n".join(texts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, say what it brought, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of collections")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the head to")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the embeddings")
    given = parser.parse_args(arguments)
    head = trained(given.data, given.cache, progress=True)
    head.save_pretrained(given.out)
    print(head)


if __name__ == "__main__":
    main()
