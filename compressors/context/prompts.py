"""Prompts with passages in them: messages through a model's chat template, with references where passages stand.

What people and passages wrote is tokenised as plain text, whatever special tokens it spells; only the template's own text may
hold some. So where a template's turns are special tokens, a passage can neither end a turn nor stand for another.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, TypeAlias, TypeVar

from rarebit.compressors.context.passages import Passage, Passages
from rarebit.compressors.context.references import Reference
from rarebit.errors import InputError

Message: TypeAlias = Mapping[str, str]
"""``{"role": "user", "content": "..."}``."""
TokenIds: TypeAlias = list[int]
Other = TypeVar("Other")
"""What stands in a content beside text."""

BACKGROUND: Final = (
    "Refer to the background document and answer the questions:\n\nBackground: {context}\n\nQuestion: {question}"
)
"""The published prompt (xRAG), which bridges are trained with; passages stand in ``context``, as tokens or as text."""

WITHOUT_BACKGROUND: Final = "Answer the questions:\n\nQuestion: {question}"
"""The same where there is no passage."""

OPENING: Final = "The answer is:"
"""How answers begin in the published evaluation."""

SEPARATOR: Final = "\n"
"""Stands between passages in a context."""

_ROLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TURN: Final = Lock()
"""A tokenizer keeps from call to call whether texts may spell special tokens, so calls from many threads take turns."""


@dataclass(frozen=True)
class Prompt:
    """What a language model reads: token ids, and passages whose vectors become input embeddings."""

    parts: tuple[TokenIds | Passage, ...]

    @property
    def passages(self) -> list[Passage]:
        """The passages that are read as tokens, in order."""
        return [part for part in self.parts if isinstance(part, Passage)]

    def length(self, tokens_a_vector: int) -> int:
        """Count the input positions."""
        return sum(len(part.vectors) * tokens_a_vector if isinstance(part, Passage) else len(part) for part in self.parts)


@dataclass(frozen=True)
class _Text:
    """A text, and whether what spells a special token in it is one."""

    text: str
    special: bool


def prompt_of(
    tokenizer: Any,
    messages: Sequence[Message] | str,
    passages: Passages | None = None,
    *,
    opening: str = "",
    template_kwargs: Mapping[str, Any] | None = None,
) -> Prompt:
    """Lay out messages as a language model reads them, up to where its answer begins.

    Args:
        tokenizer: of Hugging Face; without a chat template, contents are read one after the other.
        messages: role and content each; a text alone is a user's message.
        passages: what references are to; None reads all as text.
        opening: how the answer begins.
        template_kwargs: what else the chat template is given, such as ``tools``; it is the template's own text, so it may
            spell special tokens, and references in it are not read.

    Raises:
        InputError: no message, or one that the template does not take.
        MissingRowError: a reference to a passage that is not there any more.
    """
    parts = laid_out(tokenizer, messages, _as_it_is if passages is None else passages.read, opening, template_kwargs)
    if not parts:
        raise InputError("got messages without any text, wanted some: the model has nothing to read")
    references = [part for part in parts if isinstance(part, Reference)]
    found = iter(passages.resolve(references) if passages is not None and references else ())
    return Prompt(tuple(next(found) if isinstance(part, Reference) else part for part in parts))


def laid_out(
    tokenizer: Any,
    messages: Sequence[Message] | str,
    read: Callable[[str], Sequence[str | Other]],
    opening: str = "",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[TokenIds | Other]:
    """Lay out messages: token ids, and between them what else ``read`` finds in contents."""
    given = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    if not given:
        raise InputError("got no messages, wanted at least one")
    marks: dict[str, str | Other] = {}
    nonce = secrets.token_hex(12)

    def marked(content: str) -> str:
        parts = read(content)
        names = [f"{nonce}x{len(marks) + place}x" for place in range(len(parts))]
        marks.update(zip(names, parts, strict=True))
        return "".join(names)

    checked = [_checked(message) for message in given]
    shown = [{"role": role, "content": marked(content)} for role, content in checked]
    pieces = re.split(f"({nonce}x[0-9]+x)", _rendered(tokenizer, shown, template_kwargs or {}))
    parts: list[TokenIds | Other] = []
    run: list[_Text] = []
    for piece in pieces:
        part = marks.get(piece, piece)
        if isinstance(part, str):
            run.append(_Text(part, special=piece not in marks))
        else:
            parts += [ids for ids in [_tokens(tokenizer, run)] if ids]
            parts.append(part)
            run = []
    run.append(_Text(opening, special=False))
    return parts + [ids for ids in [_tokens(tokenizer, run)] if ids]


def _tokens(tokenizer: Any, run: Sequence[_Text]) -> TokenIds:
    """Tokenise neighbouring texts as one, as models are trained to read them; apart if a content spells a special token."""
    special = _added(tokenizer)
    together = token_ids(tokenizer, "".join(text.text for text in run), special=True)
    apart = [token_ids(tokenizer, text.text, special=text.special) for text in run]
    allowed = [token for ids, text in zip(apart, run, strict=True) if text.special for token in ids if token in special]
    if [token for token in together if token in special] == allowed:
        return together
    return [token for ids in apart for token in ids]


def token_ids(tokenizer: Any, text: str, *, special: bool = False) -> TokenIds:
    """Tokenise a text by itself; what spells a special token is one only if that is allowed."""
    ids: TokenIds = encoded(tokenizer, text, special=special)["input_ids"]
    added = {} if special else {token: str(tokenizer.added_tokens_decoder[token]) for token in set(ids) & _added(tokenizer)}
    if not added:
        return ids
    # What is no special token but was added to a vocabulary, such as a tool call's, is not split either: its halves are.
    halves = re.sub("|".join(map(re.escape, added.values())), lambda found: f"{found[0][:1]}\0{found[0][1:]}", text)
    return [token for half in halves.split("\0") for token in encoded(tokenizer, half)["input_ids"]]


def _added(tokenizer: Any) -> set[int]:
    return set(tokenizer.added_tokens_decoder)


def encoded(tokenizer: Any, text: str, *, special: bool = False, **wanted: Any) -> Any:
    """Give all that a tokenizer has to say of a text, as :func:`token_ids` tokenises it."""
    with _TURN:
        return tokenizer(text, add_special_tokens=False, split_special_tokens=not special, **wanted)


def _as_it_is(content: str) -> list[str]:
    return [content]


def _checked(message: Message) -> tuple[str, str]:
    """Give role and content; the role becomes the template's own text, so it must be a plain word."""
    role, content = (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None, None)
    if not isinstance(role, str) or not _ROLE.fullmatch(role) or not isinstance(content, str):
        raise InputError(f"got the message {message!r}, wanted a role, which is a word, and a content, which is a text")
    return role, content


def _rendered(tokenizer: Any, messages: list[dict[str, str]], kwargs: Mapping[str, Any]) -> str:
    if not getattr(tokenizer, "chat_template", None):
        return (tokenizer.bos_token or "") + "\n\n".join(message["content"] for message in messages)
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **kwargs)
    except (TemplateError, ValueError, TypeError) as error:
        roles = [message["role"] for message in messages]
        raise InputError(f"got messages of {roles}, which the model's chat template does not take: {error}") from error
    return text
