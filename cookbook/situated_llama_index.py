"""Situated embeddings in LlamaIndex: ``python -m rarebit.cookbook.situated_llama_index``.

The topics of Python's language reference go through an ingestion pipeline whose last step is ``SituateNodes`` in place of the
embedding model. Run again with the same document store, it embeds only documents that have changed.
"""

from __future__ import annotations

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore

from rarebit.cookbook.models import MiniLMEmbedding
from rarebit.cookbook.situated_langchain import QUESTIONS, topics
from rarebit.integrations.llama_index import RarebitVectorStore, SituatedEmbedding, SituateNodes

CHUNK_TOKENS = 100


def main(count: int | None = None) -> None:
    """Fill a store, change one document, and ask."""
    documents = [Document(text=each.page_content, id_=str(each.metadata["source"])) for each in topics(count)]
    model, store = MiniLMEmbedding(), RarebitVectorStore(metric="inner_product")
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=CHUNK_TOKENS, chunk_overlap=0), SituateNodes(model)],
        vector_store=store,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )
    nodes = pipeline.run(documents=documents)
    print(f"{len(documents)} documents, {len(nodes):,} nodes")
    documents[0] = Document(text=f"{documents[0].text}\n\nOne more sentence.", id_=documents[0].id_)
    print(f"one document changed: {len(pipeline.run(documents=documents)):,} nodes embedded again")
    retriever = VectorStoreIndex.from_vector_store(store, embed_model=SituatedEmbedding(model)).as_retriever(similarity_top_k=3)
    for question in QUESTIONS:
        found = [f"{each.node.ref_doc_id}: {' '.join(each.text.split())[:60]!r}" for each in retriever.retrieve(question)]
        print(f"\n{question}", *found, sep="\n    ")


if __name__ == "__main__":
    main()
