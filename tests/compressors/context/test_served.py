"""A served language model answers as the local one does, over vLLM's protocol with ``prompt_embeds``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("httpx", reason="a served model needs the extra serve")

import httpx
from support.completions_server import CompletionsServer, serving
from support.tiny_language_model import bridge, chat_tokenizer, embed, language_model, sentence

from rarebit import Collection
from rarebit.compressors.context import OneTokenGenerator, Passages, Sampling
from rarebit.compressors.context.served import ServedGenerator
from rarebit.errors import EndpointError, InputError

TEXTS = [sentence(seed) for seed in range(4)]
SHORT = Sampling(8)


@pytest.fixture
def passages() -> Iterator[Passages]:
    with Collection.open() as collection:
        collection.add(embed(TEXTS), texts=TEXTS, ids=list("abcd"))
        yield Passages.of(collection)


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    with serving(language_model(), chat_tokenizer()) as made:
        yield made


def served(server: CompletionsServer, passages: Passages, **settings: Any) -> ServedGenerator:
    table = server.model.get_input_embeddings().weight.detach()
    given: dict[str, Any] = {"context_window": 256, "table": table, "tokenizer": chat_tokenizer(), **settings}
    return ServedGenerator(server.url, "tiny", bridge(input_length=3.0), passages, **given)


@pytest.fixture
def local(passages: Passages) -> OneTokenGenerator:
    return OneTokenGenerator(language_model(), chat_tokenizer(), bridge(input_length=3.0), passages)


def asked(passages: Passages) -> list[str]:
    written = passages.refer(TEXTS, list("abcd"))
    return [f"Background: {written[0]} {written[1]} what?", f"bab {written[2]}", "no passage at all"]


def test_answers_are_those_of_the_local_model(server: CompletionsServer, passages: Passages, local: OneTokenGenerator) -> None:
    far = served(server, passages).generate(asked(passages), SHORT)
    near = local.generate(asked(passages), SHORT)
    for own, other in zip(far, near, strict=True):
        assert (own.text, own.prompt_tokens, own.passage_tokens) == (other.text, other.prompt_tokens, other.passage_tokens)
        assert own.stopped == other.stopped
        assert own.prefill_flops is None


def test_streams_are_those_of_the_local_model(server: CompletionsServer, passages: Passages, local: OneTokenGenerator) -> None:
    for question in asked(passages):
        assert "".join(served(server, passages).stream(question, SHORT)) == local.generate([question], SHORT)[0].text


def test_a_stream_ends_with_what_it_took(server: CompletionsServer, passages: Passages) -> None:
    generator = served(server, passages)
    stream = generator.stream(asked(passages)[0], SHORT)
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as ended:
            taken = ended.value
            break
    (whole,) = generator.generate(asked(passages)[:1], SHORT)
    assert (taken.text, taken.new_tokens, taken.stopped) == (whole.text, whole.new_tokens, whole.stopped)
    assert "".join(pieces) == whole.text


def test_what_was_questionsfor_is_sent(server: CompletionsServer, passages: Passages) -> None:
    sampling = Sampling(5, temperature=0.5, top_p=0.9, stop=("b",), seed=3)
    served(server, passages, api_key="a key").generate(["what?"], sampling)
    (request,) = server.asked
    assert request.pop("prompt_embeds")
    assert request == {
        "model": "tiny",
        "prompt": "",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["b"],
        "seed": 3,
    }
    assert server.keys == ["Bearer a key"]


def test_answers_leave_room_for_the_prompt(server: CompletionsServer, passages: Passages) -> None:
    generator = served(server, passages, context_window=40)
    length = generator.length(generator.prompt("what?"))
    generator.generate(["what?"], Sampling(200))
    assert server.asked[0]["max_tokens"] == 40 - length
    with pytest.raises(InputError, match="wanted fewer than the model's 40"):
        generator.generate(["what? " * 40])


def test_each_answer_of_a_batch_has_its_own_room(server: CompletionsServer, passages: Passages) -> None:
    generator = served(server, passages, context_window=60)
    questions = ["what?", "." * (60 - generator.length(generator.prompt("")) - 3), "bab teck"]
    together = generator.generate(questions, SHORT)
    assert [request["max_tokens"] for request in server.asked] == [3, 8]
    assert [given.text for given in together] == [generator.generate([question], SHORT)[0].text for question in questions]


def test_nothing_questionsis_nothing_answered(server: CompletionsServer, passages: Passages) -> None:
    assert served(server, passages).generate([]) == []
    assert server.asked == []


def test_a_server_that_takes_no_embeddings_is_told_of(passages: Passages) -> None:
    with serving(language_model(), chat_tokenizer(), takes_embeddings=False) as server:
        generator = served(server, passages)
        with pytest.raises(EndpointError, match=r"answered 400 .*--enable-prompt-embeds"):
            generator.generate(["what?"])
        with pytest.raises(EndpointError, match=r"answered 400 .*--enable-prompt-embeds"):
            list(generator.stream("what?"))


def test_a_stream_that_breaks_off_is_an_error(server: CompletionsServer, passages: Passages) -> None:
    server.break_off = True
    with pytest.raises(EndpointError, match="out of memory"):
        list(served(server, passages).stream("bab beck", Sampling(30)))


def test_nobody_there(passages: Passages) -> None:
    table = language_model().get_input_embeddings().weight.detach()
    generator = ServedGenerator(
        "http://127.0.0.1:9/v1",
        "tiny",
        bridge(input_length=3.0),
        passages,
        table=table,
        tokenizer=chat_tokenizer(),
        context_window=256,
    )
    with pytest.raises(EndpointError, match="cannot be asked"):
        generator.generate(["what?"])


def test_something_else_than_completions(passages: Passages) -> None:
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"hello": "world"})))
    table = language_model().get_input_embeddings().weight.detach()
    with client:
        given: dict[str, Any] = {"table": table, "tokenizer": chat_tokenizer(), "context_window": 256, "client": client}
        generator = ServedGenerator("http://there/v1", "tiny", bridge(input_length=3.0), passages, **given)
        with pytest.raises(EndpointError, match="something else than completions"):
            generator.generate(["what?"])


def test_tokenizer_and_embeddings_are_read_from_a_folder(
    server: CompletionsServer, passages: Passages, local: OneTokenGenerator, tmp_path: Path
) -> None:
    language_model().save_pretrained(tmp_path)
    chat_tokenizer().save_pretrained(tmp_path)
    generator = ServedGenerator.from_pretrained(server.url, tmp_path, bridge(input_length=3.0), passages, model="tiny")
    assert generator.context_window == 256
    assert generator.generate(asked(passages), SHORT)[0].text == local.generate(asked(passages), SHORT)[0].text
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match="wanted a folder with safetensors"):
        ServedGenerator.from_pretrained(server.url, tmp_path)
