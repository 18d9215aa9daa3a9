"""The language model tells LlamaIndex's events and callbacks of every call."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload

pytest.importorskip("transformers", reason="language models need the extra models")

from support.llama_index_events import Listener, listening
from support.one_token_llama_index import (
    QUESTION,
    TEXTS,
    WAYS,
    Recording,
    answered,
    reference_to,
    text_of,
)

from rarebit.errors import MissingRowError
from rarebit.integrations.llama_index import RarebitVectorStore, one_token_llm

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening(lambda event: event.class_name().startswith(("LLMChat", "LLMCompletion"))) as made:
        yield made


@pytest.fixture(scope="module")
def bare() -> Iterator[Any]:
    """Load the module as users do: LlamaIndex takes functions with run-time shape checks for such as emit events already."""
    path = Path(one_token_llm.__file__)
    spec = importlib.util.spec_from_file_location("bare_one_token_llm", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["bare_one_token_llm"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.OneTokenLLM
    del sys.modules["bare_one_token_llm"]


class TestEvents:
    @pytest.mark.parametrize("way", WAYS)
    def test_are_emitted_once(self, bare: Any, generator: Recording, listener: Listener, way: str) -> None:
        llm = bare(generator=generator, max_tokens=4)
        response = answered(llm, way, QUESTION)
        kind = "LLMCompletion" if "complete" in way else "LLMChat"
        names = [event.class_name() for event in listener.heard]
        assert names[0] == f"{kind}StartEvent"
        assert names[-1] == f"{kind}EndEvent"
        assert len(names) == 2 if "stream" not in way else set(names[1:-1]) == {f"{kind}InProgressEvent"}
        assert text_of(listener.heard[-1].response) == text_of(response)
        assert all(event.model_dump_json() for event in listener.heard)

    @pytest.mark.parametrize("way", WAYS)
    def test_callbacks_hear_of_them(self, bare: Any, generator: Recording, way: str) -> None:
        debug = LlamaDebugHandler(print_trace_on_end=False)
        counting = TokenCountingHandler()
        llm = bare(generator=generator, max_tokens=4, callback_manager=CallbackManager([debug, counting]))
        usage = answered(llm, way, f"{reference_to(generator, TEXTS[0], 'n0')} {QUESTION}").additional_kwargs
        (pair,) = debug.get_event_pairs(CBEventType.LLM)
        key = EventPayload.COMPLETION if "complete" in way else EventPayload.RESPONSE
        assert pair[1].payload[key].additional_kwargs == usage
        assert counting.prompt_llm_token_count == usage["prompt_tokens"]
        assert counting.completion_llm_token_count == usage["completion_tokens"]

    @pytest.mark.parametrize("way", WAYS)
    def test_errors_end_them(self, bare: Any, generator: Recording, store: RarebitVectorStore, way: str) -> None:
        debug = LlamaDebugHandler(print_trace_on_end=False)
        llm = bare(generator=generator, max_tokens=4, callback_manager=CallbackManager([debug]))
        reference = reference_to(generator, TEXTS[0], "n0")
        store.delete_nodes(["n0"])
        with pytest.raises(MissingRowError):
            answered(llm, way, reference)
        (pair,) = debug.get_event_pairs(CBEventType.LLM)
        assert isinstance(pair[1].payload[EventPayload.EXCEPTION], MissingRowError)
