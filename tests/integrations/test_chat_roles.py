"""Roles of messages: which a template takes, also where there are many templates."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("transformers", reason="tokenizers need the extra models")

from support.one_token import WITH_TOOLS, tokenizer
from support.tiny_language_model import TEMPLATE

from rarebit.compressors.context.prompts import prompt_of
from rarebit.errors import InputError
from rarebit.integrations.chat_roles import as_taken, role_of_tools, template_of

WITHOUT_SYSTEM = TEMPLATE.replace("'system', ", "")
TOOLS = [{"name": "notes"}]


def with_templates(templates: Any) -> Any:
    made = tokenizer()
    made.chat_template = templates
    return made


@pytest.mark.parametrize(
    ("templates", "plain", "with_tools"),
    [
        ("one", "one", "one"),
        ({"default": "one"}, "one", "one"),
        ({"default": "one", "tool_use": "two", "rag": "three"}, "one", "two"),
        ({"rag": "three"}, "", ""),
        ({}, "", ""),
        (None, "", ""),
    ],
)
def test_of_many_templates_that_which_transformers_takes_counts(templates: Any, plain: str, with_tools: str) -> None:
    made = with_templates(templates)
    assert template_of(made) == plain
    assert template_of(made, tools=True) == with_tools
    for wanted, tools in ((plain, None), (with_tools, TOOLS)):
        if wanted:
            assert made.get_chat_template(tools=tools) == wanted


def test_tools_have_a_role_where_the_template_that_is_taken_knows_it() -> None:
    made = with_templates({"default": TEMPLATE, "tool_use": WITH_TOOLS, "rag": "'function'"})
    assert role_of_tools(made) == "user"
    assert role_of_tools(made, tools=True) == "tool"
    assert role_of_tools(made, "function", tools=True) == role_of_tools(made, "function") == "user"


def test_templates_without_a_default_are_refused() -> None:
    with pytest.raises(InputError, match="no default"):
        prompt_of(with_templates({"rag": TEMPLATE}), "hello")


SYSTEM = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
MERGED = [{"role": "user", "content": "be brief\n\nhello"}]


@pytest.mark.parametrize(
    ("templates", "plain", "with_tools"),
    [
        (TEMPLATE, SYSTEM, SYSTEM),
        (WITHOUT_SYSTEM, MERGED, MERGED),
        ({"default": WITHOUT_SYSTEM, "tool_use": WITH_TOOLS}, MERGED, SYSTEM),
        ({"default": TEMPLATE, "rag": WITHOUT_SYSTEM}, SYSTEM, SYSTEM),
        (None, SYSTEM, SYSTEM),
    ],
)
def test_where_a_system_is_refused_it_stands_before_the_users_next(templates: Any, plain: Any, with_tools: Any) -> None:
    made = with_templates(templates)
    assert as_taken(SYSTEM, made) == plain
    assert as_taken(SYSTEM, made, TOOLS) == with_tools
    assert as_taken(SYSTEM[1:], made) == SYSTEM[1:]
