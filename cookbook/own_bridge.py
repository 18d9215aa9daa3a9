"""Train a bridge for another pair of models: your embedding model and your language model.

    python -m rarebit.cookbook.own_bridge --out FOLDER --texts passages.jsonl --questions questions.jsonl \
        --encoder NAME --language-model NAME --checkpoint FOLDER

Passages are lines of JSON, ``{"text": "...", "id": "..."}``, where an id left out is the line's number; or a folder of text
files, which are cut; or one with ``corpus.jsonl`` in BEIR layout; by default, Python's documentation. Questions are lines
``{"question": "...", "answer": "...", "passages": ["id"], "others": ["id"]}``: ids of passages that answer, the best first, and
perhaps of some that do not. Without questions the bridge learns to say what passages say, and no more. By default the models
are MiniLM and SmolLM2-135M-Instruct, of the extra ``demo``; yours need the extra ``models`` alone.

One passage in ten is held out, with the questions about it. What is printed of these: how likely a passage's text is behind its
own token, behind another passage's, and behind none. Other stages and batches are a few lines of Python:
:func:`rarebit.compressors.context.train_bridge`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rarebit.arrays import Vectors, as_vectors
from rarebit.compressors.context.bridge import BridgeConfig, ModalityBridge
from rarebit.compressors.context.exercises import PARAPHRASES, ExerciseBook, mark
from rarebit.compressors.context.generation import Sampling
from rarebit.compressors.context.generator import OneTokenGenerator
from rarebit.compressors.context.lessons import Lessons, Reading
from rarebit.compressors.context.passages import Embed, Passages
from rarebit.compressors.context.prompts import BACKGROUND
from rarebit.compressors.context.reading import Exercise, expected
from rarebit.compressors.context.training import Stage, train_bridge
from rarebit.cookbook import python_docs
from rarebit.cookbook.benchmarks.embedded import read_corpus
from rarebit.encoders import DEFAULT_ENCODER, load_encoder
from rarebit.errors import DuplicateIdError, InputError
from rarebit.passages import passages_of

SMOLLM = "SmolLM2-135M-Instruct"

HELD_OUT = 10
"""One in so many passages is held out."""

FEWEST = 20
"""Passages that are worth beginning with."""

LONGEST = 32
"""Tokens of a passage or an answer that are learned and measured."""

MEASURED, BATCH = 200, 16
"""Passages to measure with, at most, and at once."""

PROBED = 8
"""Passages that are embedded again to see whether vectors that were kept are of this model."""

PASSAGE = '{"text": "...", "id": "..."}'
QUESTION = '{"question": "...", "answer": "...", "passages": ["id"], "others": ["id"]}'


@dataclass(frozen=True)
class Likelihoods:
    """How unexpected held-out passages are: the mean negative log-likelihood of a token, in nats.

    Args:
        own: where the passage's own token stands in the prompt.
        other: where another passage's stands there.
        none: where nothing does.
        passages: how many were measured.
    """

    own: float
    other: float
    none: float
    passages: int

    def __str__(self) -> str:
        """Say how much likelier the own token makes a passage."""
        return (
            f"{self.passages} passages held out: mean NLL of a token, and how many times as likely it is behind the own token\n"
            f"  own token        {self.own:.3f}\n"
            f"  another's token  {self.other:.3f}  {math.exp(self.other - self.own):.2f}\n"
            f"  no passage       {self.none:.3f}  {math.exp(self.none - self.own):.2f}"
        )


def read_passages(path: Path | None) -> dict[str, str]:
    """Read passages by their ids; by default, Python's documentation.

    Raises:
        InputError: a file that is none of the kind, a line without a text, an id that comes twice, or too few passages.
    """
    if path is None:
        found = {str(number): entry.text for number, entry in enumerate(python_docs.corpus())}
    elif path.suffix.lower() == ".jsonl":
        found = {}
        for number, place, record in _lines(path, PASSAGE, ["text"]):
            key = str(number if record.get("id") is None else record["id"])
            if key in found:
                raise DuplicateIdError(f"{place} has the id {key!r}, which an earlier line has, wanted each id once")
            found[key] = record["text"]
    elif (path / "corpus.jsonl").exists():
        texts = {passage.id: f"{passage.title} {passage.text}".strip() for passage in read_corpus(path)}
        found = {key: text for key, text in texts.items() if text}
    else:
        found = {passage.id: passage.text for passage in passages_of([path])}
    apart = sum(map(held_out, set(found.values())))
    if len(found) < FEWEST or apart < 2:
        raise InputError(
            f"got {len(found)} passages, of which {apart} would be held out, wanted at least {FEWEST} and 2: some hundred are "
            "enough to try, tens of thousands to train"
        )
    return found


def read_questions(path: Path, ids: Sequence[str]) -> list[Reading]:
    """Read questions about passages, given the passages' ids in their order.

    Raises:
        InputError: a line without question, answer or passages, or an id that no passage has.
    """
    place_of = {key: place for place, key in enumerate(ids)}
    found = []
    for _, line, record in _lines(path, QUESTION, ["question", "answer"]):
        right, others = (_places(record.get(name, []), place_of, line) for name in ("passages", "others"))
        if not right:
            raise InputError(f"{line} names no passage, wanted ids of passages that answer: {QUESTION}")
        found.append(Reading(record["question"], record["answer"], right, others))
    return found


def held_out(text: str) -> bool:
    """Say whether a passage is held out, by its text alone."""
    return int(sha256(text.encode()).hexdigest()[:8], 16) % HELD_OUT == 0


def parted(given: Lessons) -> tuple[Lessons, Lessons]:
    """Give what is learned from, and what is held out; a question is, if a passage that answers it is."""
    places: tuple[list[int], list[int]] = ([], [])
    readings: tuple[list[Reading], list[Reading]] = ([], [])
    for place, text in enumerate(given.texts):
        places[held_out(text)].append(place)
    apart = set(places[True])
    for reading in given.readings:
        readings[not apart.isdisjoint(reading.passages)].append(reading)
    return _part(given, places[False], readings[False]), _part(given, places[True], readings[True])


def embedded(encode: Embed, texts: list[str], folder: Path | None) -> Vectors:
    """Embed passages, or take what a folder keeps of the same passages and model."""
    if folder is None:
        return as_vectors(encode(texts))
    path = folder / f"{sha256(json.dumps(texts).encode()).hexdigest()[:16]}.npy"
    if path.exists():
        kept: Vectors = np.load(path)
        probe = as_vectors(encode(texts[:PROBED]))
        if probe.shape[1] == kept.shape[1] and np.allclose(kept[:PROBED], probe, rtol=0, atol=0.01 * np.abs(kept).max()):
            return kept
    vectors = as_vectors(encode(texts))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "new.npy", vectors)
    (folder / "new.npy").replace(path)
    return vectors


def language_model(name: str, *, device: str) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer by name or folder, as it is trained with.

    Raises:
        InputError: there is no such model, here or on the hub.
    """
    if name == SMOLLM:
        from rarebit.cookbook.train_bridge import language_model as smollm  # from a package of the demo

        return smollm(device=device)
    attention = "eager" if device == "cpu" else None  # whose backward pass is the faster on a CPU
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16, attn_implementation=attention)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the language model {name!r} cannot be loaded ({reason}), wanted the name of a causal language model of Hugging "
            "Face, or its folder"
        ) from error
    return model.to(device), tokenizer


def config_of(vectors: Vectors, model: Any, tokens: int, names: tuple[str, str]) -> BridgeConfig:
    """Take the bridge's shape from the pair of models; vectors of length 1 are scaled to components of about 1."""
    unit = np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    dim, width = vectors.shape[1], model.get_input_embeddings().weight.shape[1]
    embedding_model, language_model = (Path(name).name for name in names)
    return BridgeConfig(
        dim,
        width,
        tokens,
        input_length=dim**0.5 if unit else None,
        embedding_model=embedding_model,
        language_model=language_model,
    )


def likelihoods(model: Any, tokenizer: Any, bridge: ModalityBridge, held: Lessons) -> Likelihoods:
    """Measure on passages that were held out."""
    book = ExerciseBook(tokenizer, held)
    unique = list({text: place for place, text in enumerate(held.texts)}.values())
    places = np.random.default_rng(0).permutation(unique)[:MEASURED].tolist()
    own = [mark(place) for place in places]

    def nll(contexts: Sequence[str]) -> float:
        found: list[float] = []
        exercises = [
            Exercise(
                [
                    bridge(torch.from_numpy(held.vectors[[part]]))[0] if isinstance(part, int) else part
                    for part in book.laid_out(PARAPHRASES[0].format(context=context))
                ],
                book.tokens_of(place)[:LONGEST],
            )
            for context, place in zip(contexts, places, strict=True)
        ]
        for start in range(0, len(exercises), BATCH):
            found += expected(model, exercises[start : start + BATCH]).mean_nll().tolist()
        return sum(found) / len(found)

    with torch.inference_mode():
        return Likelihoods(nll(own), nll(own[1:] + own[:1]), nll([""] * len(own)), len(own))


def answered(model: Any, tokenizer: Any, bridge: ModalityBridge, held: Lessons, encode: Embed) -> str:
    """Ask about a passage that was held out, and give question and answer."""
    passages = Passages(embed=encode)  # Passages.of(collection) takes the vectors of a store
    generator = OneTokenGenerator(model, tokenizer, bridge, passages)
    question, place = next(((reading.question, reading.passages[0]) for reading in held.readings), ("", 0))
    form = BACKGROUND if question else PARAPHRASES[0]
    (reference,) = passages.refer([held.texts[place]], [None])
    (found,) = generator.generate([form.format(context=reference, question=question)], Sampling(LONGEST))
    return (
        f"{form.format(context='<passage>', question=question)}\n\nThe passage: {held.texts[place]}\n\n"
        f"The answer, from {found.prompt_tokens} tokens, {found.passage_tokens} of them the passage's: {found.text}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, write the bridge, and measure what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bridge to")
    parser.add_argument("--texts", type=Path, help="passages: a .jsonl file, or a folder (default: Python's documentation)")
    parser.add_argument("--questions", type=Path, help="questions about passages of --texts: a .jsonl file")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help="of sentence-transformers (default: %(default)s)")
    parser.add_argument("--language-model", default=SMOLLM, help="causal, of Hugging Face (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=1, help="input embeddings of a passage (default: %(default)s)")
    parser.add_argument("--paraphrases", type=int, default=1500, help="steps of the first stage (default: %(default)s)")
    parser.add_argument("--readings", type=int, default=3000, help="steps of the second, with questions (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="the highest of each stage (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="folder to keep the training in, and to go on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.questions and not given.texts:
        parser.error("--questions are about passages of --texts, which is missing")
    passages = read_passages(given.texts)
    readings = read_questions(given.questions, list(passages)) if given.questions else []
    encoder = load_encoder(given.encoder).to(given.device)

    def encode(texts: list[str]) -> Vectors:
        return as_vectors(encoder.encode(texts, show_progress_bar=len(texts) > PROBED))

    texts = list(passages.values())
    learned, held = parted(Lessons(texts, embedded(encode, texts, given.checkpoint), readings))
    model, tokenizer = language_model(given.language_model, device=given.device)
    stages = [Stage("paraphrase", given.paraphrases, 16, given.learning_rate, longest=LONGEST)]
    if readings:
        stages.append(Stage("reading", given.readings, 16, given.learning_rate, longest=LONGEST))
    config = config_of(learned.vectors, model, given.tokens, (given.encoder, given.language_model))
    trained = train_bridge(model, tokenizer, learned, config, stages, checkpoint=given.checkpoint, progress=True)
    trained.half().save_pretrained(given.out)  # language models compute in no more
    bridge = ModalityBridge.from_pretrained(given.out).to(given.device)
    print(bridge, likelihoods(model, tokenizer, bridge, held), sep="\n")
    print(answered(model, tokenizer, bridge, held, encode))


def _lines(path: Path, form: str, texts: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Read lines of JSON with some texts in each: the line's number, how messages name it, and what it holds."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}), wanted a UTF-8 file with lines such as {form}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = f"line {number} of {path}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{name} is no JSON ({error}), wanted an object such as {form}") from error
        there = record if isinstance(record, dict) else {}
        missing = [key for key in texts if not isinstance(there.get(key), str) or not there[key].strip()]
        if missing:
            raise InputError(f"{name} has no text for {', '.join(missing)}, wanted an object such as {form}")
        yield number, name, there


def _places(ids: Any, place_of: Mapping[str, int], line: str) -> tuple[int, ...]:
    if not isinstance(ids, list):
        raise InputError(f"{line} has {ids!r} where a list of passages' ids was wanted: {QUESTION}")
    unknown = [key for key in ids if str(key) not in place_of]
    if unknown:
        raise InputError(f"{line} names the passage {unknown[0]!r}, wanted an id that a passage of --texts has")
    return tuple(place_of[str(key)] for key in ids)


def _part(given: Lessons, places: Sequence[int], readings: Sequence[Reading]) -> Lessons:
    """Give some passages, and questions about them."""
    moved = {place: number for number, place in enumerate(places)}

    def of(own: Sequence[int]) -> tuple[int, ...]:
        return tuple(moved[place] for place in own if place in moved)

    there = [replace(reading, passages=of(reading.passages), others=of(reading.others)) for reading in readings]
    return Lessons([given.texts[place] for place in places], given.vectors[list(places)], there)


if __name__ == "__main__":
    main()
