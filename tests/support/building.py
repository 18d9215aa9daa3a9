"""Files of passages, encoders that are quick or die, and what a collection holds; other processes can load these."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from rarebit.errors import VectorError
from rarebit.retrievers.engines.engine import OWN
from rarebit.retrievers.engines.move_ends import end_of

DIM = 16
ROWS, SHARD_ROWS, MINIMUM = 230, 20, 200
SETTINGS = {"training_minimum": MINIMUM}


def record(number: int) -> dict[str, Any]:
    """A passage with letters of many scripts, and metadata of many kinds."""
    return {
        "id": f"id '{number}' ☂",
        "text": f"passage {number} \u0000 é ß 漢字 🎈 {'word ' * (number % 7)}",
        "number": number,
        "deep": {"list": [number, None, "\u0000"], "share": number / 7},
    }


RECORDS = [record(number) for number in range(ROWS)]


def as_lines(path: Path, records: Iterable[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(each, ensure_ascii=number % 2 == 0)}\n" for number, each in enumerate(records)))
    return path


def as_parquet(path: Path, records: Sequence[dict[str, Any]], vectors: Any = None) -> Path:
    """Write ids and texts as they are, all else as JSON in a column ``metadata``."""
    columns = {name: [each[name] for each in records] for name in ("id", "text") if name in records[0]}
    others = [{name: value for name, value in each.items() if name not in columns} for each in records]
    table = pa.table({**columns, "metadata": list(map(json.dumps, others))})
    if vectors is not None:
        table = table.append_column("embedding", pa.array(list(vectors), pa.list_(pa.float32())))
    parquet.write_table(table, path)
    return path


def vector_of(text: str) -> np.ndarray:
    """Give any text a direction of its own."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


@dataclass
class Hashed:
    """Embeds in no time, unless it is to take some; and kills its process, once or always, when it meets a word."""

    seconds: float = 0.0
    deadly: str | None = None
    died: Path | None = None
    name: str | None = "hashed"
    device: str = "cpu"

    def described(self) -> dict[str, Any]:
        return {"hashed": DIM}

    def prepare(self) -> None:
        pass

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self.deadly is not None and any(self.deadly in text for text in texts) and not (self.died and self.died.exists()):
            if self.died:
                self.died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return np.stack([vector_of(text) for text in texts])


class Failing(Hashed):
    """Refuses all texts."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        raise VectorError(f"no vectors for {len(texts)} texts")


def rows_in(collection: Any) -> list[Any]:
    """Give ids, texts, metadata and codes, in order."""
    return [row._replace(metadata=json.loads(row.metadata)) for part in end_of(collection).every(OWN) for row in part]
