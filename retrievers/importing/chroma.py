"""Source: a Chroma collection, an open one or one in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rarebit.arrays import as_vectors
from rarebit.errors import InputError, VectorError
from rarebit.extras import require
from rarebit.retrievers.importing.llama_index_json import NODE_CONTENT, NODE_TYPE, node_metadata
from rarebit.retrievers.importing.source import Ranking, Rows

DATABASE = "chroma.sqlite3"
"""The file that a folder of Chroma's has."""

SPACES: Mapping[str, Ranking] = {"cosine": "cosine", "ip": "inner_product", "l2": "l2"}
DEFAULT_SPACE = "l2"


class ChromaSource:
    """The rows of a Chroma collection, in the order in which it gives its ids.

    Documents become texts, and nodes that LlamaIndex keeps in Chroma become nodes of Rarebit's LlamaIndex adapter.

    Args:
        collection: of chromadb; :meth:`at` opens one in a folder.
    """

    def __init__(self, collection: Any) -> None:
        """Read the ids."""
        self._collection = collection
        self.name = f"Chroma's {collection.name}"
        self._ids: list[str] = list(collection.get(include=[])["ids"])
        self.count = len(self._ids)
        self.ranked_by: Ranking | None = SPACES.get(_space(collection))

    @classmethod
    def at(cls, path: str | os.PathLike[str], name: str | None = None) -> ChromaSource:
        """Open the collection in a folder that Chroma's PersistentClient wrote.

        Args:
            path: of the folder.
            name: of the collection; may be left out where there is only one.

        Raises:
            MissingExtraError: chromadb is not installed.
            InputError: there is no such folder or collection.
        """
        folder = Path(path)
        if not (folder / DATABASE).is_file():
            raise InputError(f"{folder} has no {DATABASE}, wanted the folder that was given to Chroma's PersistentClient")
        require("chromadb", "chroma")
        client = _client(folder)
        names = sorted(found.name for found in client.list_collections())
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            raise InputError(f"got {name!r} as the collection in {folder}, wanted one of {names}")
        return cls(client.get_collection(str(name), embedding_function=None))

    def batches(self, size: int) -> Iterator[Rows]:
        """Give the rows in the order of the ids; those that were deleted meanwhile are left out."""
        for start in range(0, self.count, size):
            wanted = self._ids[start : start + size]
            found = self._collection.get(ids=wanted, include=["embeddings", "documents", "metadatas"])
            yield _rows(found, wanted)


def _client(folder: Path) -> Any:
    chromadb, config, errors = map(import_module, ("chromadb", "chromadb.config", "chromadb.errors"))
    try:
        return chromadb.PersistentClient(str(folder), settings=config.Settings(anonymized_telemetry=False))
    except (errors.ChromaError, ValueError) as error:  # ValueError: this process has it open already
        raise InputError(
            f"{folder} cannot be opened ({error}): if your own code has it open, pass Chroma's collection instead of the folder"
        ) from error


def _space(collection: Any) -> str:
    """Find the distance of a collection: versions of Chroma keep it in different places."""
    configuration = getattr(collection, "configuration", None) or {}
    kept = [configuration.get(kind) for kind in ("hnsw", "spann")] if isinstance(configuration, Mapping) else []
    named = [part["space"] for part in kept if isinstance(part, Mapping) and part.get("space")]
    return str((named or [(collection.metadata or {}).get("hnsw:space", DEFAULT_SPACE)])[0])


def _rows(found: Mapping[str, Any], wanted: Sequence[str]) -> Rows:
    """Put what was found, which comes in an order of its own, into the order that was wanted."""
    places = {key: place for place, key in enumerate(found["ids"])}
    ids = [key for key in wanted if key in places]
    texts, metadatas, vectors = (
        [None if found[name] is None else found[name][places[key]] for key in ids]
        for name in ("documents", "metadatas", "embeddings")
    )
    return Rows(ids, as_vectors(_all_there(vectors, ids)), texts, list(map(_metadata, metadatas)))


def _all_there(vectors: list[Any], ids: Sequence[str]) -> list[Any]:
    missing = [key for key, vector in zip(ids, vectors, strict=True) if vector is None]
    if missing:
        raise VectorError(
            f"{len(missing)} of the {len(ids)} rows read have no embedding (first: {missing[0]!r}): add them to Chroma with "
            "embeddings, or delete them there"
        )
    return vectors


def _metadata(metadata: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Take LlamaIndex's form of a node's metadata for the node; any other is the user's."""
    if not metadata or NODE_CONTENT not in metadata or NODE_TYPE not in metadata:
        return metadata
    try:
        node = json.loads(metadata[NODE_CONTENT])
    except (TypeError, ValueError):
        return metadata
    return node_metadata(node) if isinstance(node, dict) and "class_name" in node else metadata
