"""Fine-tuning of encoders with and without context: what is compared with what, and what a run keeps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="fine-tuning needs the extra train")
pytest.importorskip("accelerate", reason="fine-tuning needs the extra train")
pytest.importorskip("datasets", reason="fine-tuning needs the extra train")
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from support import tiny_encoders
from support.tiny_encoders import WORDS

from rarebit.errors import DimensionError, InputError, MissingExtraError
from rarebit.retrievers.situating import FineTuningReport, TextExamples, block_contexts, fine_tune
from rarebit.retrievers.situating.fine_tuning_batches import Beside, DocumentBatches, DocumentCollator, SituatingLoss

pytestmark = pytest.mark.usefixtures("_one_thread")

NAMES, DEEDS = WORDS[:20], WORDS[20:24]
SEPARATOR = "[SEP]"


def story() -> TextExamples:
    """Documents whose first chunk names somebody, and whose others say the same: only the context tells them apart."""
    documents, questions, places = [], [], []
    for number, name in enumerate(NAMES):
        documents.append([f"{name} {name}", *DEEDS])
        for chunk, deed in enumerate(DEEDS, start=1):
            questions.append(f"{name} {deed}")
            places.append((number, chunk))
    return TextExamples(documents, questions, places)


def prose(documents: int = 12, chunks: int = 4, seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [
        ["\n".join(" ".join(rng.choice(WORDS, 8)) + "." for _ in range(4)) for _ in range(chunks)] for _ in range(documents)
    ]


@pytest.fixture
def encoder(folders: dict[str, Path]) -> SentenceTransformer:
    return tiny_encoders.encoder(folders["bert"], normalize=True)


@pytest.fixture
def other(folders: dict[str, Path]) -> SentenceTransformer:
    return tiny_encoders.encoder(folders["bert"], pooling="cls", normalize=True)


def weights(encoder: SentenceTransformer) -> dict[str, torch.Tensor]:
    return {name: own.detach().clone() for name, own in encoder.named_parameters()}


def are_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return before.keys() == after.keys() and all(torch.equal(own, after[name]) for name, own in before.items())


def nearly_the_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    """Compare weights to rounding, which on some processors depends on where in memory they are.

    But for the biases of keys: no score depends on them, so their gradients are rounding alone, and Adam makes steps of that.
    """
    moved = [name for name in before if not name.endswith("key.bias")]
    return before.keys() == after.keys() and all(torch.allclose(before[name], after[name], atol=1e-5) for name in moved)


def collator(encoder: SentenceTransformer, examples: TextExamples, **settings: Any) -> DocumentCollator:
    usual: dict[str, Any] = {"separator": SEPARATOR, "block": 16, "negatives": 2, "beside": None, "guide": None, "seed": 0}
    return DocumentCollator(encoder, examples, **{**usual, **settings})


def rows_of(asked: list[int]) -> list[dict[str, int]]:
    return [{"question": which, "document": 0} for which in asked]


def test_an_epoch_asks_every_question_once_and_groups_them_by_document() -> None:
    documents = np.random.default_rng(0).integers(0, 9, 200).tolist()
    batches = DocumentBatches(Dataset.from_dict({"document": documents}), batch_size=32, seed=3)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
        assert sorted(row for batch in epochs[-1] for row in batch) == list(range(200))
        assert len(epochs[-1]) == len(batches)
        for batch in epochs[-1]:
            assert len(batch) <= 32
            assert max(Counter(documents[row] for row in batch).values()) > 1
    assert epochs[0] == epochs[2]
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_batches_still_ask_everything(size: int) -> None:
    batches = DocumentBatches(Dataset.from_dict({"document": [0, 0, 0, 1, 2, 2]}), batch_size=size)
    found = list(batches)
    assert len(found) == len(batches)
    assert sorted(row for batch in found for row in batch) == list(range(6))


def test_a_batch_has_the_right_chunks_and_others_of_their_documents(encoder: SentenceTransformer) -> None:
    examples = story()
    made = collator(encoder, examples)
    asked = [0, 1, 8]
    candidates = made._candidates(asked)
    alone, read = made._texts(asked, candidates)
    batch = made(rows_of(asked))
    assert [alone[place] for place in batch["label"].tolist()] == [DEEDS[0], DEEDS[1], DEEDS[0]]
    assert len(candidates) == len(set(candidates)) == 3 + 2 * 2
    assert {document for document, _ in candidates} == {0, 2}
    for text, whole, (document, chunk) in zip(alone, read, candidates, strict=True):
        own = examples.documents[document]
        assert text == own[chunk]
        assert whole == f"{own[chunk]}{SEPARATOR}{block_contexts(own)[chunk]}"
    assert len(batch["chunk_input_ids"]) == len(candidates)
    assert len(batch["question_input_ids"]) == len(asked)
    assert not batch["question_excluded"].any()
    assert made._candidates(asked) == candidates


def test_without_context_chunks_are_read_alone_and_prompts_stand_before(encoder: SentenceTransformer) -> None:
    encoder.prompts |= {"query": "bab bab ", "document": "dong "}
    batch = collator(encoder, story(), separator=None)(rows_of([0, 1]))
    words = [encoder.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in batch["chunk_input_ids"].tolist()]
    plain = encoder.preprocess([f"dong {DEEDS[0]}"])["input_ids"][0].tolist()
    assert words[0] == encoder.tokenizer.decode(plain, skip_special_tokens=True)
    asked = encoder.preprocess([f"bab bab {NAMES[0]} {DEEDS[0]}"])["input_ids"][0].tolist()
    assert batch["question_input_ids"][0].tolist()[: len(asked)] == asked


def test_another_answer_of_the_same_question_is_no_wrong_one(encoder: SentenceTransformer) -> None:
    documents = [["bab", "beck", "bidge"], ["bong"]]
    examples = TextExamples(documents, ["deck", "deck", "dab"], [(0, 0), (0, 2), (0, 1)])
    made = collator(encoder, examples)
    candidates = made._candidates([0, 2])
    excluded = made(rows_of([0, 2]))["question_excluded"]
    assert [[candidates[place] for place in np.flatnonzero(row)] for row in excluded.numpy()] == [[(0, 2)], []]


def test_sentences_are_in_none_of_the_texts_they_ask_about(encoder: SentenceTransformer) -> None:
    examples = TextExamples.unlabelled(prose())
    assert examples.taken_out
    assert len(examples) > 50
    made = collator(encoder, examples, negatives=3)
    asked = [which for which, (document, _) in enumerate(examples.places) if document < 2]
    candidates = made._candidates(asked)
    for texts in made._texts(asked, candidates):
        for which in asked:
            assert not any(examples.questions[which] in text for text in texts)
    own = [candidates.index(examples.places[which]) for which in asked]
    assert all(made._texts(asked, candidates)[0][place] for place in own), "a chunk has nothing left"


def test_the_guide_excludes_what_is_nearer_than_the_whole_chunk(
    encoder: SentenceTransformer, other: SentenceTransformer
) -> None:
    examples = TextExamples.unlabelled(prose())
    made = collator(encoder, examples, guide=Beside(other))
    asked = list(range(12))
    batch, candidates = made(rows_of(asked)), made._candidates(asked)
    questions = other.encode([examples.questions[which] for which in asked])
    whole = other.encode([examples.documents[document][chunk] for document, chunk in candidates])
    right = batch["label"].numpy()
    scores = questions @ whole.T
    np.testing.assert_array_equal(batch["question_excluded"].numpy(), scores > scores[range(len(asked)), right][:, None])
    assert batch["question_excluded"].any()
    assert not batch["question_excluded"].all()


@pytest.mark.parametrize("with_beside", [False, True])
def test_the_loss_is_that_of_a_plain_computation(
    encoder: SentenceTransformer, other: SentenceTransformer, *, with_beside: bool
) -> None:
    examples = story()
    made = collator(encoder, examples, beside=Beside(other) if with_beside else None)
    asked = [0, 1, 5, 6]
    candidates = made._candidates(asked)
    alone, read = made._texts(asked, candidates)
    questions = [examples.questions[which] for which in asked]
    first, second = encoder.encode(questions), encoder.encode(read)
    if with_beside:
        first, second = (first + other.encode(questions)) / 2, (second + other.encode(alone)) / 2
    scores = first.astype(np.float64) @ second.T / 0.1
    right = [candidates.index(examples.places[which]) for which in asked]
    wanted = np.mean(np.log(np.exp(scores).sum(1)) - scores[range(len(asked)), right])
    batch = made(rows_of(asked))
    inputs = [
        {key.removeprefix(f"{name}_"): value for key, value in batch.items() if key.startswith(name)}
        for name in ("question", "chunk")
    ]
    encoder.eval()
    with torch.no_grad():
        found = SituatingLoss(encoder, 0.1)(inputs, batch["label"])
    assert found.item() == pytest.approx(wanted, rel=1e-4)


def quick(**settings: Any) -> dict[str, Any]:
    """Settings for few steps of a tiny encoder, with few looks."""
    return {"epochs": 6, "learning_rate": 3e-3, "batch_size": 16, "negatives": 2, "eval_steps": 9, "save_steps": 9, **settings}


def test_a_context_tells_documents_apart_that_chunks_do_not(
    folders: dict[str, Path], other: SentenceTransformer, tmp_path: Path
) -> None:
    kept = weights(other)
    after = {}
    for context in (False, True):
        trained = tiny_encoders.encoder(folders["bert"], normalize=True)
        before = weights(trained)
        report = fine_tune(
            trained,
            story(),
            tmp_path / str(context),
            context=context,
            beside=other,
            **quick(epochs=30, eval_steps=30, save_steps=30),
        )
        assert 0 < report.after < report.before
        assert report.steps
        assert report.questions == 2 * len(DEEDS)
        assert not are_same(before, weights(trained))
        after[context] = report.after
    assert are_same(kept, weights(other)), "the encoder beside was trained too"
    assert after[True] < 0.7 * after[False]


def test_a_run_that_is_interrupted_goes_on_to_the_same_weights(
    folders: dict[str, Path], other: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded() -> SentenceTransformer:
        return tiny_encoders.encoder(folders["bert"], normalize=True)

    whole, parted = loaded(), loaded()
    settings = quick(beside=other, epochs=4)
    wanted = fine_tune(whole, story(), tmp_path / "whole", **settings)
    forward, calls = SituatingLoss.forward, 0

    def interrupted(self: SituatingLoss, features: Any, labels: Any) -> torch.Tensor:
        nonlocal calls
        calls += self.training
        if calls == 14:
            raise KeyboardInterrupt
        return forward(self, features, labels)

    with monkeypatch.context() as patched:
        patched.setattr(SituatingLoss, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(parted, story(), tmp_path / "parted", **settings)
    again = loaded()
    found = fine_tune(again, story(), tmp_path / "parted", **settings)
    assert replace(found, after=wanted.after) == wanted
    assert found.after == pytest.approx(wanted.after, abs=1e-5)
    assert nearly_the_same(weights(whole), weights(again))
    finished = loaded()
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_, **__: pytest.fail("what was finished is trained again"))
    assert fine_tune(finished, story(), tmp_path / "whole", **settings) == wanted
    assert are_same(weights(whole), weights(finished))


def test_what_brings_nothing_leaves_the_encoder_as_it_was(encoder: SentenceTransformer, tmp_path: Path) -> None:
    trained = fine_tune(encoder, story(), tmp_path / "trained", **quick())
    before = weights(encoder)
    report = fine_tune(encoder, story(), tmp_path / "run", **quick(learning_rate=30.0, epochs=2))
    assert report.before == pytest.approx(trained.after, abs=1e-4)
    assert report == FineTuningReport(report.before, report.before, 0, 2 * len(DEEDS))
    assert are_same(before, weights(encoder))


def test_an_encoder_learns_from_documents_alone(encoder: SentenceTransformer, tmp_path: Path) -> None:
    report = fine_tune(encoder, TextExamples.unlabelled(prose(20)), tmp_path / "run", **quick(epochs=4, learning_rate=1e-3))
    assert report.after < report.before


def test_of_an_encoder_with_an_adapter_only_that_is_trained(encoder: SentenceTransformer, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="LoRA needs peft")
    encoder.add_adapter(peft.LoraConfig(r=4, target_modules=["query", "key", "value"]))
    before = weights(encoder)
    report = fine_tune(encoder, story(), tmp_path / "run", **quick(learning_rate=2e-2))
    assert report.after < report.before
    changed = {name for name, own in weights(encoder).items() if not torch.equal(own, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)


@pytest.mark.parametrize(("accumulated", "most"), [(1, -1), (4, -1), (1, 3)])
def test_the_schedule_counts_steps_of_the_optimiser(
    encoder: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulated: int, most: int
) -> None:
    taken, step = [], torch.optim.AdamW.step

    def counted(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        taken.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    settings = {"epochs": 5, "batch_size": 4, "negatives": 0, "learning_rate": 1e-3}
    fine_tune(encoder, story(), tmp_path, gradient_accumulation_steps=accumulated, max_steps=most, **settings)
    steps = 3 if most > 0 else 5 * -(-(20 - 2) // accumulated)
    assert len(taken) == steps
    assert max(taken) == pytest.approx(1e-3)
    assert taken.index(max(taken)) == int(0.1 * steps)
    assert (tmp_path / f"checkpoint-{steps}").exists()
    kept = sorted(int(path.name.rpartition("-")[2]) for path in tmp_path.glob("checkpoint-*"))
    assert len(kept) == 2


def test_a_folder_of_another_run_is_left_alone(encoder: SentenceTransformer, tmp_path: Path) -> None:
    fine_tune(encoder, story(), tmp_path / "run", **quick(epochs=1))
    with pytest.raises(InputError, match=r"another run.*delete it, or name another"):
        fine_tune(encoder, story(), tmp_path / "run", **quick(epochs=2))
    encoder.max_seq_length = 20
    with pytest.raises(InputError, match=r"another run.*delete it, or name another"):
        fine_tune(encoder, story(), tmp_path / "run", **quick(epochs=1))
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(InputError, match="holds something else"):
        fine_tune(encoder, story(), tmp_path / "letters", **quick())
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["letter.txt"]


def test_bad_input_is_an_error_that_says_what_to_do(
    encoder: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = story()
    with pytest.raises(InputError, match=r"2 questions and 1 places"):
        TextExamples([["a"]], ["b", "c"], [(0, 0)])
    with pytest.raises(InputError, match=r"chunk 1 of document 0, which is not there"):
        TextExamples([["a"]], ["b"], [(0, 1)])
    with pytest.raises(InputError, match=r"chunk 0 of document 0 does not have"):
        TextExamples([["a"]], ["b"], [(0, 0)], taken_out=True)
    with pytest.raises(InputError, match="wanted a sequence with a text for each chunk"):
        TextExamples(["one document"], ["b"], [(0, 0)])
    few = TextExamples(examples.documents[:9], examples.questions[:36], examples.places[:36])
    with pytest.raises(InputError, match="9 documents, wanted 10"):
        fine_tune(encoder, few, tmp_path / "run")
    with pytest.raises(InputError, match="0 documents, wanted 10"):
        fine_tune(encoder, TextExamples([], [], []), tmp_path / "run")
    monkeypatch.setattr(encoder.tokenizer, "truncation_side", "left")
    with pytest.raises(InputError, match="cuts long texts on the left"):
        fine_tune(encoder, examples, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_encoders_of_two_dimensions_cannot_be_summed(
    folders: dict[str, Path], encoder: SentenceTransformer, tmp_path: Path
) -> None:
    with pytest.raises(DimensionError, match="32 and 12"):
        fine_tune(encoder, story(), tmp_path, beside=tiny_encoders.encoder(folders["bert"], dense=True))


def test_the_extra_is_named_where_it_is_missing(
    encoder: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rarebit.extras.find_spec", lambda name: None if name == "datasets" else object())
    with pytest.raises(MissingExtraError, match=r"rarebit\[train\]"):
        fine_tune(encoder, story(), tmp_path / "run")
