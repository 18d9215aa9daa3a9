"""Situated chunk embeddings: a chunk's vector says where the chunk stands (SitEmb, arXiv 2508.01959).

:class:`SituatingHead` works over the vectors of any embedding model: it looks at the vectors of a document's chunks, in their
order, and adds to each what its surroundings say about it. :class:`LateChunking` works with a local encoder: it encodes the
document whole, and makes each chunk's vector of the chunk's own tokens (arXiv 2409.04701).
"""

from rarebit.retrievers.situating.context_blocks import block_contexts, grouped_contexts
from rarebit.retrievers.situating.examples import Examples, RemovedSentence, removed_sentences, unlabelled
from rarebit.retrievers.situating.head import SituatingHead, SituatingReport
from rarebit.retrievers.situating.late_chunking import LateChunking
from rarebit.retrievers.situating.spans import locate

__all__ = [
    "Examples",
    "LateChunking",
    "RemovedSentence",
    "SituatingHead",
    "SituatingReport",
    "block_contexts",
    "grouped_contexts",
    "locate",
    "removed_sentences",
    "unlabelled",
]
