"""A process that builds, and may be killed meanwhile: ``python build_until_killed.py INPUT WORK here|ray [DEADLY]``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

from support.building import SETTINGS, SHARD_ROWS, Hashed

if __name__ == "__main__":
    from rarebit.retrievers.building import InProcess, OnRay, Recipe, Shards

    given, work, how = sys.argv[1:4]
    encoder = Hashed(seconds=0.3, deadly=sys.argv[4]) if how == "here" else Hashed(seconds=0.5)
    with nullcontext(InProcess()) if how == "here" else OnRay(2) as runner:
        Shards(Recipe([Path(given)], encoder, collection=SETTINGS, shard_rows=SHARD_ROWS), Path(work), runner).make()
