"""Situated chunk embeddings: a chunk's vector says where the chunk stands (SitEmb, arXiv 2508.01959).

:class:`SituatingHead` works over the vectors of any embedding model: it looks at the vectors of a document's chunks, in their
order, and adds to each what its surroundings say about it. :class:`LateChunking` works with a local encoder: it encodes the
document whole, and makes each chunk's vector of the chunk's own tokens (arXiv 2409.04701). :class:`TwoEncoders` and
:class:`SitEmb` are the paper's own: models that were trained to read a chunk together with the block of chunks around it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rarebit.retrievers.situating.context_blocks import block_contexts, grouped_contexts
from rarebit.retrievers.situating.examples import Examples, RemovedSentence, removed_sentences, unlabelled
from rarebit.retrievers.situating.head import SituatingHead, SituatingReport
from rarebit.retrievers.situating.late_chunking import LateChunking
from rarebit.retrievers.situating.spans import locate

if TYPE_CHECKING:
    from rarebit.retrievers.situating.sitemb import SitEmb
    from rarebit.retrievers.situating.two_encoders import TwoEncoders

__all__ = [
    "Examples",
    "LateChunking",
    "RemovedSentence",
    "SitEmb",
    "SituatingHead",
    "SituatingReport",
    "TwoEncoders",
    "block_contexts",
    "grouped_contexts",
    "locate",
    "removed_sentences",
    "unlabelled",
]

_HOMES = {
    "SitEmb": "rarebit.retrievers.situating.sitemb",
    "TwoEncoders": "rarebit.retrievers.situating.two_encoders",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rarebit.retrievers.situating' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
