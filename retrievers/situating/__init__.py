"""Situated chunk embeddings: a chunk's vector says where the chunk stands (SitEmb, arXiv 2508.01959).

:class:`SituatingHead` works over the vectors of any embedding model: it looks at the vectors of a document's chunks, in their
order, and adds to each what its surroundings say about it. :class:`LateChunking` works with a local encoder: it encodes the
document whole, and makes each chunk's vector of the chunk's own tokens (arXiv 2409.04701). :class:`TwoEncoders` and
:class:`SitEmb` are the paper's own: models that were trained to read a chunk together with the block of chunks around it, and
:func:`fine_tune` trains the encoders of the former.
:func:`extend_context` makes an encoder read more at once, and :func:`passkey_report` measures how far it really reads (arXiv
2404.12096).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rarebit.retrievers.situating.context_blocks import block_contexts, grouped_contexts
from rarebit.retrievers.situating.examples import Examples, RemovedSentence, removed_sentences, unlabelled
from rarebit.retrievers.situating.head import SituatingHead, SituatingReport
from rarebit.retrievers.situating.late_chunking import LateChunking
from rarebit.retrievers.situating.methods import (
    Chunks,
    NeighbourWindow,
    Plain,
    SituatingMethod,
    TitleHeaders,
    Way,
    method_of,
)
from rarebit.retrievers.situating.spans import locate
from rarebit.retrievers.situating.text_examples import TextExamples

if TYPE_CHECKING:
    from rarebit.retrievers.situating.context_extension import extend_context
    from rarebit.retrievers.situating.fine_tuning import FineTuningReport, fine_tune
    from rarebit.retrievers.situating.passkey import PasskeyReport, passkey_report
    from rarebit.retrievers.situating.sitemb import SitEmb
    from rarebit.retrievers.situating.two_encoders import TwoEncoders

__all__ = [
    "Chunks",
    "Examples",
    "FineTuningReport",
    "LateChunking",
    "NeighbourWindow",
    "PasskeyReport",
    "Plain",
    "RemovedSentence",
    "SitEmb",
    "SituatingHead",
    "SituatingMethod",
    "SituatingReport",
    "TextExamples",
    "TitleHeaders",
    "TwoEncoders",
    "Way",
    "block_contexts",
    "extend_context",
    "fine_tune",
    "grouped_contexts",
    "locate",
    "method_of",
    "passkey_report",
    "removed_sentences",
    "unlabelled",
]

# Loaded when they are first used: these need torch.
_HOMES = {
    "FineTuningReport": "fine_tuning",
    "PasskeyReport": "passkey",
    "SitEmb": "sitemb",
    "TwoEncoders": "two_encoders",
    "extend_context": "context_extension",
    "fine_tune": "fine_tuning",
    "passkey_report": "passkey",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
