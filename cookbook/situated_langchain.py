"""Situated embeddings in LangChain: ``python -m rarebit.cookbook.situated_langchain``.

The topics of Python's language reference, cut into short chunks. A chunk about a rule often does not say what the rule is
about; its document does. One line is different from a store without: ``SituatedEmbeddings(...)``.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.embeddings import Embeddings

from rarebit.cookbook import python_docs
from rarebit.cookbook.models import MiniLMEmbeddings
from rarebit.integrations.langchain import RarebitVectorStore, SituatedEmbeddings, index_documents
from rarebit.passages import cut

QUESTIONS = ("What happens to the exception when __exit__ returns a true value?", "Which object do default values belong to?")
LONGEST = 400
"""Characters of a chunk."""


class Pieces(BaseDocumentTransformer):
    """Cuts documents into short chunks; any splitter of LangChain does as well."""

    def transform_documents(self, documents: Sequence[Document], **kwargs: object) -> Sequence[Document]:
        """Give the chunks of documents, in their order."""
        del kwargs
        return [
            Document(page_content=text, metadata={**document.metadata, "start_index": start})
            for document in documents
            for start, text in cut(document.page_content, LONGEST)
        ]


def topics(count: int | None = None) -> list[Document]:
    """Give the topics of the language reference as whole documents."""
    texts: dict[str, list[str]] = {}
    for entry in python_docs.corpus():
        if entry.kind == "topic":
            texts.setdefault(entry.name, []).append(entry.text.removeprefix(f"{entry.name}: "))
    return [Document(page_content="\n\n".join(parts), metadata={"source": name}) for name, parts in [*texts.items()][:count]]


def filled(embeddings: Embeddings, documents: Sequence[Document]) -> RarebitVectorStore:
    """Make a store of documents."""
    store = RarebitVectorStore(embeddings)
    index_documents(store, documents, Pieces())
    return store


def main(count: int | None = None) -> None:
    """Ask a store without and one with situated embeddings the same."""
    documents = topics(count)
    plain = filled(MiniLMEmbeddings(), documents)
    situated = filled(SituatedEmbeddings(MiniLMEmbeddings()), documents)  # the one line
    print(f"{len(documents)} documents, {len(situated.collection):,} chunks")
    for question in QUESTIONS:
        print(f"\n{question}")
        for name, store in (("plain", plain), ("situated", situated)):
            found = store.similarity_search(question, k=3)
            print(
                f"  {name:9}",
                *(f"{each.metadata['source']}: {' '.join(each.page_content.split())[:60]!r}" for each in found),
                sep="\n    ",
            )


if __name__ == "__main__":
    main()
