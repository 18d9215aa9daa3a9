"""Bulk builds: a collection from files of passages, in stages that are resumed, on one processor or on a cluster with Ray.

:func:`build` does everything; ``rarebit build`` is its command line.
"""

from rarebit.retrievers.building.building import BuildReport, Recipe, Shards, build
from rarebit.retrievers.building.encoders import Encoder, SentenceEncoder
from rarebit.retrievers.building.on_ray import OnRay
from rarebit.retrievers.building.reading import Columns
from rarebit.retrievers.building.tasks import InProcess, Runner

__all__ = [
    "BuildReport",
    "Columns",
    "Encoder",
    "InProcess",
    "OnRay",
    "Recipe",
    "Runner",
    "SentenceEncoder",
    "Shards",
    "build",
]
