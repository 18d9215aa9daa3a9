"""The generator writes what a plain forward pass over embeddings laid out by hand would write, alone or in a batch."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="language models need the extra models")

import torch
from support.tiny_language_model import (
    DIM,
    HIDDEN,
    POSITIONS,
    bridge,
    chat_tokenizer,
    embed,
    ending,
    generator,
    language_model,
    naive_embeddings,
    naive_tokens,
    sentence,
)

from rarebit import Collection
from rarebit.compressors.context import ContextBudget, OneTokenGenerator, Passages, Sampling
from rarebit.compressors.context.costs import prefill_flops
from rarebit.compressors.context.stopping import Watch
from rarebit.errors import InputError, MissingRowError

pytestmark = pytest.mark.usefixtures("_one_thread")

STEPS = 12
SHORT = Sampling(max_new_tokens=STEPS)


def questions(given: OneTokenGenerator) -> list[str]:
    """Ask about no passage, one, two of which one has two pieces, and in a text of another length."""
    assert given.passages is not None
    one, two = given.passages.refer([sentence(1), f"{sentence(2)}|{sentence(3)}"], [None, None])
    return ["bab?", f"Background: {one}\n\nQuestion: gull?", f"{two} and {one} {sentence(4)}", sentence(5, 20)]


@pytest.fixture(params=[1, 2, 4], ids=lambda tokens: f"{tokens} tokens")
def pieces(request: pytest.FixtureRequest) -> OneTokenGenerator:
    return generator(request.param, split=lambda text: text.split("|"))


def test_embeddings_and_logits_are_those_laid_out_by_hand(pieces: OneTokenGenerator) -> None:
    for question in questions(pieces):
        wanted = naive_embeddings(pieces, question)
        given = pieces.embeddings(pieces.prompt(question))
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=0)
        logits = [pieces.model(inputs_embeds=read[None]).logits for read in (given, wanted)]
        torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


def test_answers_are_those_of_plain_forward_passes_alone_and_in_a_batch(pieces: OneTokenGenerator) -> None:
    asked = questions(pieces)
    batch = pieces.generate(asked, SHORT)
    for question, given in zip(asked, batch, strict=True):
        written = naive_tokens(pieces, question, STEPS)
        (alone,) = pieces.generate([question], SHORT)
        assert given.text == alone.text == pieces.tokenizer.decode(written, skip_special_tokens=True)
        assert (given.new_tokens, given.stopped) == (alone.new_tokens, alone.stopped) == (STEPS, False)


def test_what_is_counted_is_what_was_read(pieces: OneTokenGenerator) -> None:
    asked = questions(pieces)
    for question, given, vectors in zip(asked, pieces.generate(asked, SHORT), [0, 1, 3, 0], strict=True):
        assert given.prompt_tokens == len(naive_embeddings(pieces, question))
        assert given.passage_tokens == vectors * pieces.tokens_a_vector
        assert given.prefill_flops == prefill_flops(pieces.model, given.prompt_tokens)
        assert given.first_token_seconds > 0


def test_prompts_that_are_laid_out_already_are_answered_alike(generator: OneTokenGenerator) -> None:
    asked = questions(generator)
    answered = generator.answer([generator.prompt(question) for question in asked], SHORT)
    assert [given.text for given in answered] == [given.text for given in generator.generate(asked, SHORT)]
    assert generator.generate([]) == generator.answer([]) == []


def test_padding_changes_no_logits(generator: OneTokenGenerator) -> None:
    rows = [naive_embeddings(generator, question) for question in questions(generator)]
    longest = max(map(len, rows))
    seen: dict[str, Any] = {}
    plain = generator.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        seen.setdefault("mask", kwargs["attention_mask"])
        seen.setdefault("logits", output.logits[:, -1])
        return output

    generator.model.forward = watched
    generator.generate(questions(generator), Sampling(max_new_tokens=1))
    assert seen["mask"].sum(1).tolist() == list(map(len, rows))
    assert seen["mask"].shape == (len(rows), longest)
    alone = torch.stack([plain(inputs_embeds=row[None]).logits[0, -1] for row in rows])
    torch.testing.assert_close(seen["logits"], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pad_is_end", [False, True])
def test_the_shorter_answers_of_a_batch_are_counted_by_themselves(generator: OneTokenGenerator, pad_is_end: bool) -> None:
    asked = questions(generator)
    token, count = ending(generator, asked, STEPS)
    if pad_is_end:
        generator.tokenizer = chat_tokenizer.__wrapped__()
        generator.tokenizer.pad_token = generator.tokenizer.convert_ids_to_tokens(token)
    batch = generator.generate(asked, SHORT)
    assert [(given.new_tokens, given.stopped) for given in batch] == [(count, True), *[(STEPS, False)] * 3]
    for question, given in zip(asked, batch, strict=True):
        (alone,) = generator.generate([question], SHORT)
        assert (alone.text, alone.new_tokens, alone.stopped) == (given.text, given.new_tokens, given.stopped)


@pytest.mark.parametrize("pad_is_end", [False, True])
def test_an_answer_that_stops_beside_longer_ones_is_counted_by_itself(generator: OneTokenGenerator, pad_is_end: bool) -> None:
    asked = questions(generator)
    if pad_is_end:
        generator.tokenizer = chat_tokenizer.__wrapped__()
        generator.tokenizer.pad_token = generator.tokenizer.eos_token
    texts = [given.text for given in generator.generate(asked, SHORT)]
    stop = next(
        texts[0][place : place + 4]
        for place in range(2, len(texts[0]) - 4)
        if not any(texts[0][place : place + 4] in text for text in texts[1:])
    )
    sampling = Sampling(max_new_tokens=STEPS, stop=(stop,))
    batch = generator.generate(asked, sampling)
    assert batch[0].text == texts[0][: texts[0].index(stop)]
    assert [given.text for given in batch[1:]] == texts[1:]
    assert [given.stopped for given in batch] == [True, False, False, False]
    for question, given in zip(asked, batch, strict=True):
        assert generator.generate([question], sampling)[0].new_tokens == given.new_tokens
    ids = naive_tokens(generator, asked[0], batch[0].new_tokens)
    assert stop in generator.tokenizer.decode(ids)
    assert stop not in generator.tokenizer.decode(ids[:-1])


def test_without_an_end_of_the_model_that_of_the_tokenizer_counts(generator: OneTokenGenerator) -> None:
    token, count = ending(generator, questions(generator), STEPS)
    generator.model.generation_config.eos_token_id = None
    generator.tokenizer = chat_tokenizer.__wrapped__()
    generator.tokenizer.eos_token = generator.tokenizer.convert_ids_to_tokens(token)
    (given,) = generator.generate(questions(generator)[:1], SHORT)
    assert (given.new_tokens, given.stopped) == (count, True)
    assert "".join(generator.stream(questions(generator)[0], SHORT)) == given.text


def drawn(generator: OneTokenGenerator, sampling: Sampling, count: int) -> list[int]:
    prompt = generator.prompt("bab?")
    with torch.inference_mode():
        tokens: list[int] = generator._write([prompt] * count, sampling, Watch(generator.tokenizer, ())).flatten().tolist()
    return tokens


def test_tokens_are_drawn_by_their_probability_at_a_temperature(generator: OneTokenGenerator) -> None:
    logits = generator.model(inputs_embeds=naive_embeddings(generator, "bab?")[None]).logits[0, -1].detach()
    for temperature in (1.0, 2.5):
        tokens = drawn(generator, Sampling(1, temperature=temperature, seed=0), 4000)
        shares = torch.bincount(torch.tensor(tokens), minlength=len(logits)) / 4000
        wanted = (logits / temperature).softmax(-1)
        assert float((shares - wanted).abs().sum()) / 2 < 0.15
    assert len(set(tokens)) > 60  # more than the 50 to which transformers cuts by default


def test_top_p_draws_from_the_likeliest_alone(generator: OneTokenGenerator) -> None:
    logits = generator.model(inputs_embeds=naive_embeddings(generator, "bab?")[None]).logits[0, -1].detach()
    sorted_shares, order = logits.softmax(-1).sort(descending=True)
    count = int((sorted_shares.cumsum(0) < 0.5).sum()) + 1
    assert set(drawn(generator, Sampling(1, temperature=1.0, top_p=0.5, seed=0), 2000)) == set(order[:count].tolist())
    assert set(drawn(generator, Sampling(1, temperature=1e-3, seed=0), 50)) == {int(order[0])}


def test_a_seed_repeats_an_answer_and_leaves_others_alone(generator: OneTokenGenerator) -> None:
    asked = questions(generator)
    before = torch.get_rng_state()
    one, again, other = (
        [given.text for given in generator.generate(asked, Sampling(STEPS, temperature=1.5, seed=seed))] for seed in (3, 3, 4)
    )
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), before)
    sampling = Sampling(STEPS, temperature=1.5, seed=3)
    assert "".join(generator.stream(asked[1], sampling)) == generator.generate(asked[1:2], sampling)[0].text
    unseeded = {generator.generate(asked[:1], Sampling(STEPS, temperature=1.5))[0].text for _ in range(4)}
    assert len(unseeded) > 1


def test_a_prompt_that_leaves_no_room_is_refused(generator: OneTokenGenerator) -> None:
    frame = generator.prompt("").length(1)
    longest = "." * (POSITIONS - frame - 1)
    (given,) = generator.generate([longest], SHORT)
    assert (given.prompt_tokens, given.new_tokens) == (POSITIONS - 1, 1)
    for conversations in ([f"{longest}."], ["bab?", f"{longest}."]):
        with pytest.raises(InputError, match=f"a prompt of {POSITIONS} tokens, wanted fewer than the model's {POSITIONS}"):
            generator.generate(conversations, SHORT)


def test_each_answer_of_a_batch_has_its_own_room(generator: OneTokenGenerator) -> None:
    frame = generator.prompt("").length(1)
    asked = ["." * (POSITIONS - frame - room) for room in (1, 9, 30)] + questions(generator)[:2]
    written: list[int] = []
    plain = generator._write
    generator._write = lambda prompts, *args: written.append(len(prompts)) or plain(prompts, *args)
    for most, batches in ((8, 2), (20, 3), (40, 4)):
        written.clear()
        together = generator.generate(asked, Sampling(max_new_tokens=most))
        assert [given.new_tokens for given in together] == [1, min(9, most), min(30, most), most, most]
        assert written == [5, 4, 3, 2][:batches]
        for question, given in zip(asked, together, strict=True):
            (alone,) = generator.generate([question], Sampling(max_new_tokens=most))
            assert (given.text, given.new_tokens, given.stopped) == (alone.text, alone.new_tokens, alone.stopped)


def test_an_answer_that_ended_in_the_room_of_others_is_written_once(generator: OneTokenGenerator) -> None:
    asked = questions(generator)[:2]
    _, count = ending(generator, asked, STEPS)
    long = "." * (POSITIONS - generator.prompt("").length(1) - count)
    written: list[int] = []
    plain = generator._write
    generator._write = lambda prompts, *args: written.append(len(prompts)) or plain(prompts, *args)
    together = generator.generate([asked[0], long, asked[1]], SHORT)
    assert [given.new_tokens for given in together] == [count, count, STEPS]
    assert [given.stopped for given in together][::2] == [True, False]
    assert written == [3, 1]
    assert all(given.first_token_seconds == together[0].first_token_seconds for given in together)


def test_many_threads_get_their_own_answers(generator: OneTokenGenerator) -> None:
    asked = questions(generator)
    texts = [given.text for given in generator.generate(asked, SHORT)]

    def ask(number: int) -> bool:
        question, text = asked[number % 4], texts[number % 4]
        answers = "".join(generator.stream(question, SHORT)) if number % 3 else generator.generate([question], SHORT)[0].text
        return answers == text

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(12)))


def test_passages_of_a_collection_are_read_as_it_has_them() -> None:
    texts = [sentence(number) for number in range(4)]
    with Collection.open(metric="inner_product") as collection:
        collection.add(3 * embed(texts), texts=texts, ids=list("abcd"))
        own = OneTokenGenerator(language_model(), chat_tokenizer(), bridge(), Passages.of(collection))
        given = own.give(texts, list("abcd"), ContextBudget(None, 0))
        embeddings = own.embeddings(own.prompt(given[2].text))
        projected = bridge()(torch.from_numpy(collection.vectors(["c"])))[0, 0]
        assert (embeddings == projected).all(1).sum() == 1
        collection.delete(["c"])
        with pytest.raises(MissingRowError):
            own.generate([given[2].text])


def test_a_generator_without_a_bridge_reads_texts() -> None:
    own = OneTokenGenerator(language_model(), chat_tokenizer())
    (given,) = own.generate(["bab?"], SHORT)
    assert given.text == generator().generate(["bab?"], SHORT)[0].text
    assert (given.passage_tokens, own.tokens_a_vector, own.count_tokens("bab")) == (0, 1, 1)
    with pytest.raises(InputError, match="without passages"):
        own.give(["bab"], [None], ContextBudget())


def test_it_is_loaded_from_a_folder(tmp_path: Path) -> None:
    language_model().save_pretrained(tmp_path)
    chat_tokenizer().save_pretrained(tmp_path)
    own = OneTokenGenerator.from_pretrained(tmp_path, bridge(), Passages(embed=embed, secret=b"x" * 32))
    texts = [[given.text for given in each.generate(questions(each), SHORT)] for each in (own, generator())]
    assert texts[0] == texts[1]


def test_parts_that_do_not_fit_are_refused() -> None:
    model, tokenizer = language_model(), chat_tokenizer()
    with pytest.raises(InputError, match="passages without a bridge"):
        OneTokenGenerator(model, tokenizer, None, Passages(embed=embed))
    from rarebit.compressors.context import BridgeConfig, ModalityBridge

    with pytest.raises(InputError, match=f"width {HIDDEN + 1} and a model of width {HIDDEN}.*for another one"):
        OneTokenGenerator(model, tokenizer, ModalityBridge(BridgeConfig(DIM, HIDDEN + 1, language_model="another one")))


@pytest.mark.parametrize(
    ("trained_on", "filled_by", "fits"),
    [
        ("owner/all-MiniLM-L6-v2", "all-minilm-l6-v2", True),
        ("all-MiniLM-L6-v2", "somebody/all-MiniLM-L6-v2 situated by head abc", True),
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2.5", False),
        ("all-MiniLM-L6-v2", None, True),
        (None, "bge", True),
        ("all-MiniLM-L6-v2", "bge", False),
    ],
)
def test_the_store_of_another_embedding_model_is_refused(trained_on: str | None, filled_by: str | None, fits: bool) -> None:
    own = bridge(input_length=1.0, embedding_model=trained_on)
    with Collection.open(fingerprint=filled_by) as collection:
        for rows in (collection, collection.tenant("one")):
            if fits:
                OneTokenGenerator(language_model(), chat_tokenizer(), own, Passages.of(rows))
            else:
                with pytest.raises(InputError, match=re.escape(f"that {filled_by!r} filled")):
                    OneTokenGenerator(language_model(), chat_tokenizer(), own, Passages.of(rows))


def test_lengths_that_the_store_does_not_keep_are_missed() -> None:
    with Collection.open(metric="cosine") as collection, pytest.raises(InputError, match="metric='inner_product'"):
        OneTokenGenerator(language_model(), chat_tokenizer(), bridge(), Passages.of(collection))
