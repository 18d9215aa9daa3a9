"""Passages as one token each, behind a retriever: documents whose content is a reference, or the text, within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field, field_validator

from rarebit.compressors.context.budget import ContextBudget
from rarebit.compressors.context.fidelity import Given
from rarebit.integrations.langchain.relevance import NOTHING_RELEVANT
from rarebit.integrations.one_token_generator import check_generator

FIDELITY = "fidelity"
"""Metadata key: ``"token"`` for a reference, ``"text"`` for a text, whole or cut."""

CONTEXT_TOKENS = "context_tokens"
"""Metadata key: tokens that the document takes as it is given."""

TEXT_TOKENS = "text_tokens"
"""Metadata key: tokens that it would take as text."""


class OneTokenCompressor(BaseDocumentCompressor):
    """Gives passages as one token each, and the surest as text, within a budget of tokens.

    It stands last behind a retriever: in a :class:`ContextualRetriever`, or in ``langchain_classic``'s
    ``ContextualCompressionRetriever`` and ``DocumentCompressorPipeline``, after a :class:`CosineAdapterFilter` if there is one.
    A document's content becomes a reference, which :class:`ChatOneToken` with the same generator reads as the passage's vector.
    Order and ids are kept, documents that were passed are not changed, those beyond the budget are left out. Each gets
    ``fidelity``, ``context_tokens`` and ``text_tokens`` into its metadata. A document that says that nothing is relevant stays
    as it is.

    .. code-block:: python

        generator = OneTokenGenerator(model, tokenizer, bridge, Passages.of(store.collection))  # or of a tenant
        retriever = ContextualRetriever(
            base_retriever=store.as_retriever(search_kwargs={"k": 20}),
            base_compressor=OneTokenCompressor(generator=generator, budget=ContextBudget(max_tokens=200)),
        )
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    generator: Any = Field(exclude=True)
    """A :class:`~rarebit.compressors.context.OneTokenGenerator` with the passages of the store that the documents are from."""

    budget: ContextBudget = ContextBudget(text_top=0)
    """For all documents of a question together; by default each is one token, or a text that is no longer."""

    relevance_key: str | None = "relevance"
    """Metadata key under which documents carry their relevance, as :class:`CosineAdapterFilter` leaves it there. Unless each
    has one, and with None, the order given is that of certainty."""

    label_key: str | None = None
    """Metadata key of what a reference shows to people, such as a title; without it the first words of the text, which are also
    what a model reads that cannot read references."""

    text_key: str | None = None
    """Metadata key under which the text itself is kept, for citations; None for none."""

    @field_validator("generator")
    @classmethod
    def _is_generator(cls, given: Any) -> Any:
        check_generator(given)
        return given

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Give documents as references or texts; the query does not matter.

        Raises:
            InputError: a document is not in the store with this text; a relevance is none, from 0 to 1.
        """
        del query, callbacks
        speaking = {place for place, document in enumerate(documents) if _says_nothing(document)}
        places = [place for place in range(len(documents)) if place not in speaking]
        kept = {place: documents[place] for place in speaking}
        if places:
            for own in self._given([documents[place] for place in places]):
                kept[places[own.place]] = self._document(documents[places[own.place]], own)
        return [kept[place] for place in sorted(kept)]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Do as :meth:`compress_documents`, in a thread."""
        return await run_in_executor(None, self.compress_documents, documents, query, callbacks)

    def _given(self, documents: Sequence[Document]) -> list[Given]:
        given: list[Given] = self.generator.give(
            [document.page_content for document in documents],
            [document.id for document in documents],
            self.budget,
            relevances=self._relevances(documents),
            labels=[self._label(document) for document in documents],
        )
        return given

    def _relevances(self, documents: Sequence[Document]) -> list[float] | None:
        if self.relevance_key is None:
            return None
        carried = [document.metadata.get(self.relevance_key) for document in documents]
        numbers = [float(own) for own in carried if isinstance(own, Real) and not isinstance(own, bool)]
        return numbers if len(numbers) == len(carried) else None

    def _label(self, document: Document) -> str:
        named = None if self.label_key is None else document.metadata.get(self.label_key)
        return document.page_content if named is None else str(named)

    def _document(self, document: Document, given: Given) -> Document:
        metadata = {
            **document.metadata,
            FIDELITY: given.fidelity,
            CONTEXT_TOKENS: given.tokens,
            TEXT_TOKENS: given.text_tokens,
        }
        if self.text_key is not None:
            metadata[self.text_key] = document.page_content
        return document.model_copy(update={"page_content": given.text, "metadata": metadata})


def _says_nothing(document: Document) -> bool:
    """Tell a document without text, or one that says that nothing is relevant: they go on as they are."""
    return document.metadata.get(NOTHING_RELEVANT) is True or not document.page_content.strip()
