"""Transforms and then a quantiser, as one codec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from jaxtyping import Float32

from rarebit.arrays import Codes, Queries, Scores, Vectors
from rarebit.compressors.vectors import registered
from rarebit.compressors.vectors.codec import Arrays, Codec, SearchableCodec
from rarebit.compressors.vectors.scanning import Division, Scanner
from rarebit.compressors.vectors.transform import Transform
from rarebit.errors import InputError

Stage: TypeAlias = Transform | Codec
Prepared: TypeAlias = Float32[npt.NDArray[np.float32], "q prepared"]


class Pipeline(SearchableCodec):
    """Any number of transforms, and then one codec for what comes out of them.

    ``Pipeline(PCA(128), Scalar(8))`` is what ``"pca128,sq8"`` spells. Each stage is fitted on what the stages before it make of
    the vectors. Queries go through the transforms too; decoding goes back through them.

    Args:
        given: the transforms, and last the codec.
        stages: the same as JSON, ``[{"name": "pca", "config": {"out_dim": 128}}, ...]``, as :attr:`config` gives it.
    """

    name = "pipeline"

    def __init__(self, *given: Stage, stages: Sequence[Mapping[str, Any]] = ()) -> None:
        """Create an unfitted codec.

        Raises:
            InputError: no searchable codec at the end, or one before the end.
        """
        super().__init__()
        created = [*given, *(registered(stage["name"])(**stage["config"]) for stage in stages)]
        transforms = [stage for stage in created[:-1] if isinstance(stage, Transform)]
        if not created or not isinstance(created[-1], SearchableCodec) or len(transforms) != len(created) - 1:
            raise InputError(f"got the stages {created!r}, wanted any number of transforms and then one searchable codec")
        self._transforms = transforms
        self._codec = created[-1]
        self.training_minimum = max(stage.training_minimum for stage in self.stages)
        self.scores_as_decoded = self._codec.scores_as_decoded and all(stage.scores_as_inverted for stage in transforms)

    @property
    def stages(self) -> list[Stage]:
        """The transforms, and last the codec."""
        return [*self._transforms, self._codec]

    @property
    def config(self) -> dict[str, Any]:
        """The stages by their names, each with its own configuration."""
        return {"stages": [{"name": stage.name, "config": stage.config} for stage in self.stages]}

    @property
    def code_size(self) -> int:
        """Bytes a vector: those of the codec at the end."""
        return self._codec.code_size

    def with_dim(self, dim: int) -> Pipeline:
        """Make a pipeline that learns nothing ready for vectors of this dimension."""
        super().with_dim(dim)
        for transform in self._transforms:
            dim = transform.fit(np.empty((0, dim), np.float32)).out_dim
        self._codec.with_dim(dim)
        return self

    def prepare_queries(self, queries: Queries) -> Prepared:
        """Map (q, dim) queries as the vectors were, and prepare them for the codec."""
        return self._codec.prepare_queries(self._queries_through(queries))

    @property
    def has_lists(self) -> bool:
        """Whether its scanner keeps inverted lists apart."""
        return self._codec.has_lists

    def scanner(self, codes: Codes, division: Division | None = None) -> Scanner:
        """Lay the codes out as the codec at the end does."""
        return self._codec.scanner(codes, division)

    def scores(self, prepared: Prepared, codes: Codes) -> Scores:
        """Score as the codec at the end does."""
        return self._codec.scores(prepared, codes)

    def __repr__(self) -> str:
        """Name the stages."""
        return f"Pipeline({', '.join(map(repr, self.stages))})"

    def _fit(self, vectors: Vectors, queries: Queries | None, *, progress: bool) -> None:
        mapped, mapped_queries = vectors, queries
        for transform in self._transforms:
            mapped = transform.fit(mapped, progress=progress).apply(mapped)
            mapped_queries = None if mapped_queries is None else transform.apply_queries(mapped_queries)
        self._codec.fit(mapped, mapped_queries, progress=progress)

    def _encode(self, vectors: Vectors) -> Codes:
        mapped = vectors
        for transform in self._transforms:
            mapped = transform.apply(mapped)
        return self._codec.encode(mapped)

    def _decode(self, codes: Codes) -> Vectors:
        vectors = self._codec.decode(codes)
        for transform in reversed(self._transforms):
            vectors = transform.invert(vectors)
        return vectors

    def _arrays(self) -> Arrays:
        by_stage = [transform.arrays() for transform in self._transforms] + [self._codec._arrays()]
        return {f"{place}.{name}": array for place, arrays in enumerate(by_stage) for name, array in arrays.items()}

    def _restore(self, arrays: Arrays) -> None:
        *of_transforms, of_codec = self._by_stage(arrays)
        dim = self.dim
        for place, taken in enumerate(of_transforms):
            empty = self._transforms[place]
            self._transforms[place] = type(empty).restore(dim=dim, config=empty.config, arrays=taken)
            dim = self._transforms[place].out_dim
        self._codec = type(self._codec).restore(dim=dim, config=self._codec.config, learned=safetensors.numpy.save(of_codec))

    def _by_stage(self, arrays: Arrays) -> Iterator[Arrays]:
        """Give each stage the arrays that carry its number."""
        for place in range(len(self.stages)):
            prefix = f"{place}."
            yield {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    def _queries_through(self, queries: Queries) -> Prepared:
        mapped = queries
        for transform in self._transforms:
            mapped = transform.apply_queries(mapped)
        return mapped
