"""The filter after retrieval: of passages that are nearly the same, the best placed one goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, BaseDocumentTransformer, Document
from pydantic import ConfigDict, Field, field_validator

from rarebit.integrations.near_duplicate_record import with_record
from rarebit.retrievers.near_duplicates import as_threshold, unique


class NearDuplicateFilter(BaseDocumentCompressor, BaseDocumentTransformer):
    """Drops documents whose text nearly duplicates that of one before them; order is kept, nothing is embedded.

    It stands after a retriever, in a ``ContextualCompressionRetriever`` or a ``DocumentCompressorPipeline``, and transforms
    loaded documents too. Documents without text are kept. Those that were passed are never changed.

    .. code-block:: python

        ContextualCompressionRetriever(base_retriever=retriever, base_compressor=NearDuplicateFilter(threshold=0.9))
    """

    model_config = ConfigDict(extra="forbid")

    threshold: float = Field(default=0.8, validate_default=True)
    """Jaccard similarity of texts (in runs of 8 letters) from which they are near-duplicates, above 0, at most 1."""

    record: str | None = None
    """Metadata key under which a document lists the ids of those that were dropped in its favour; None records nothing."""

    @field_validator("threshold", mode="before")
    @classmethod
    def _in_range(cls, given: Any) -> float:
        return as_threshold(given)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Keep the first of near-duplicates among what was retrieved; the query does not matter."""
        del query, callbacks
        return self._kept(documents)

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        """Keep the first of near-duplicates among any documents."""
        del kwargs
        return self._kept(documents)

    def _kept(self, documents: Sequence[Document]) -> list[Document]:
        groups = unique([document.page_content for document in documents], self.threshold)
        return [self._recorded(documents[first], [documents[later] for later in rest]) for first, rest in groups.items()]

    def _recorded(self, document: Document, dropped: Sequence[Document]) -> Document:
        if self.record is None or not dropped:
            return document
        others = [(other.id, other.metadata) for other in dropped]
        return document.model_copy(update={"metadata": with_record(document.metadata, self.record, others)})
