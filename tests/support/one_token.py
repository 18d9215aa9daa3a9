"""What tests of one-token contexts in LangChain share: a store, a tiny model over it, one with tools, and one with a script."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from langchain_core.embeddings import Embeddings

from rarebit.compressors.context import ContextBudget, OneTokenGenerator, Passages, Prompt
from rarebit.integrations.langchain import RarebitVectorStore
from support.tiny_language_model import END, bridge, chat_tokenizer, embed, language_model, sentence

POSITIONS = 4096
TEXTS = {f"passage {number}": sentence(number) for number in range(6)}

WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}"
    "<|im_start|>{{ 'user' if message['role'] == 'tool' else message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Directions(Embeddings):
    """Each text is a direction of its own."""

    model_name = "directions"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def filled(**settings: Any) -> RarebitVectorStore:
    """Make a store of six passages."""
    store = RarebitVectorStore(Directions(), **settings)
    store.add_texts(list(TEXTS.values()), [{"number": number} for number in range(len(TEXTS))], ids=list(TEXTS))
    return store


def tokenizer(template: str | None = None) -> Any:
    """Give the tiny tokenizer, with a chat template of one's own."""
    made = copy(chat_tokenizer())
    if template is not None:
        made.chat_template = template
    return made


def endless_model() -> Any:
    """Make a tiny model that never ends an answer, with room for long ones."""
    model = language_model()
    with torch.no_grad():
        model.lm_head.weight[chat_tokenizer().convert_tokens_to_ids(END)] = 0
    model.config.max_position_embeddings = POSITIONS
    return model


def generator_of(rows: Any, template: str | None = None) -> OneTokenGenerator:
    """Make a generator over a collection or a tenant."""
    return OneTokenGenerator(endless_model(), tokenizer(template), bridge(input_length=1.0), Passages.of(rows))


class Scripted(OneTokenGenerator):
    """Says what it was told to, one text a call, and keeps what it was asked."""

    def __init__(self, rows: Any, said: Sequence[str], template: str = WITH_TOOLS) -> None:
        super().__init__(endless_model(), tokenizer(template), bridge(input_length=1.0), Passages.of(rows))
        self._said = list(said)
        self.asked: list[Prompt] = []

    def _write(self, prompts: Sequence[Prompt], sampling: Any, watch: Any, streamer: Any = None) -> torch.Tensor:
        self.asked += prompts
        assert all(torch.isfinite(self.embeddings(prompt)).all() for prompt in prompts)
        ids = [*self.tokenizer(self._said.pop(0))["input_ids"], self.tokenizer.eos_token_id]
        if streamer is not None:
            for token in ids:
                streamer.put(torch.tensor([token]))
            streamer.end()
        return torch.tensor([ids])

    def read(self, place: int) -> str:
        """Give the text of a prompt, with <passage> where a passage stands."""
        parts = self.asked[place].parts
        return "".join(self.tokenizer.decode(part) if isinstance(part, list) else "<passage>" for part in parts)


def reference(generator: OneTokenGenerator, name: str = "passage 0") -> str:
    (given,) = generator.give([TEXTS[name]], [name], ContextBudget(text_top=0), labels=["words"])
    return given.text


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


ANSWER = "<|im_start|>assistant\n"


def gathered(chunks: Any) -> Any:
    first, *rest = chunks
    return sum(rest, first)


async def agathered(chat: Any, content: str, config: Any = None, **settings: Any) -> Any:
    return gathered([chunk async for chunk in chat.astream(content, config, **settings)])
