"""What both frameworks' parts of one-token contexts ask of the generator that they are given."""

from __future__ import annotations

from typing import Any

from rarebit.errors import InputError


def check_generator(given: Any) -> None:
    """Refuse what is no generator.

    Raises:
        InputError: so it is.
        MissingExtraError: the extra ``models`` is not installed.
    """
    from rarebit.compressors.context.prompt_reader import PromptReader  # whoever has a generator has loaded torch

    if not isinstance(given, PromptReader):
        raise InputError(
            f"got generator={given!r}, wanted a OneTokenGenerator or a ServedGenerator of rarebit.compressors.context, such as "
            "OneTokenGenerator(model, tokenizer, bridge, Passages.of(collection))"
        )
