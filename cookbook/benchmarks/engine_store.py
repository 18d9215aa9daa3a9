"""What the benchmark of :mod:`.engines` asks of a store."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

from rarebit.cookbook.benchmarks.store_langchain import LangChainStore

NAME: Final = "passages"
"""Of every store's collection or table."""


class EngineStore(LangChainStore):
    """A store on a server."""

    method: str

    def connect(self, url: str) -> None:
        """Take the address of the server."""
        self.url = url

    def wider(self) -> Sequence[EngineStore]:
        """Give the same rows, searched wider than by default."""
        return ()

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Count bytes: of the index, of tables and of other indexes."""
