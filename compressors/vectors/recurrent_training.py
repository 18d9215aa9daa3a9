"""Training of :class:`~rarebit.compressors.vectors.recurrent_binary.RecurrentBinary`: the only part of it that needs torch.

Each step takes some queries and a few of each one's nearest documents, and draws the codes' scores towards the ranking by float
scores: ListNet (Distill-VQ, 2204.00185), or neighbours against the hardest others (BEBR, 2302.08714). Gradients pass signs
unchanged where the input is within 1, and are zero beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rarebit.compressors.vectors.codec import Arrays
from rarebit.compressors.vectors.course import Course, best_looked_at, reproducible
from rarebit.compressors.vectors.recurrent_binary import Examples
from rarebit.compressors.vectors.recurrent_transform import Floats, transform_inputs

QUERIES, NEIGHBOURS, NEAREST = 64, 15, 50
"""Queries a step, and the documents that each brings, drawn from so many of the nearest."""

TEMPERATURE = 0.03
"""Of the softmax over scores, relative to the product of the mean lengths of queries and documents."""

POSITIVES, HARDEST = 3, 5
"""Of the contrastive loss: the nearest that are drawn near, and the highest-scored others that are pushed away."""

RATE, BRANCH_RATE = 0.006, 3e-5
"""Adam's steps: of linear maps relative to their root mean square, and of the branches, which start at zero."""

WARM_UP = 20
"""Steps over which the rate grows."""

MASKED = -1e4


def trained(
    start: Arrays, examples: Examples, config: Mapping[str, Any], measure: Callable[[Arrays], float], *, progress: bool
) -> Arrays:
    """Train from a state on, and give the best of all looked at, the start included.

    Args:
        start: the codec's state.
        examples: to train on.
        config: of the codec.
        measure: recall on held-out vectors; the higher, the better.
        progress: whether to show a bar.
    """
    course = _Course(start, examples, config)
    with reproducible():
        return best_looked_at(start, course, config["steps"], measure, progress=progress)[0]


class _Course(Course[Arrays]):
    """The state of training: network, optimiser and batches."""

    def __init__(self, start: Arrays, examples: Examples, config: Mapping[str, Any]) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rng = np.random.default_rng(config["seed"])
        self._start, self._loss = start, config["loss"]
        self._network = _Network(start, config, rng).to(device)
        self._batches = _Batches(examples, start, rng, device)
        self._optimizer = torch.optim.Adam(_groups(self._network))
        self._schedule = _rising_and_falling(self._optimizer, config["steps"])

    def step(self) -> None:
        """Take one batch of queries."""
        self._optimizer.zero_grad()
        self._batches.loss(self._network, self._loss).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def look(self) -> Arrays:
        """Give the state as it is now."""
        return self._network.exported(self._start)


def _rising_and_falling(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Let the size of an optimiser's steps grow evenly at first, and fall as a cosine does."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
    )


class _Batches:
    """Queries with some of their nearest documents, and the loss on them; lengths are divided out."""

    def __init__(self, examples: Examples, state: Arrays, rng: np.random.Generator, device: torch.device) -> None:
        judged = examples.judged
        self._rng, self._device, self._own = rng, device, examples.own
        self._inputs = self._tensor(examples.documents)
        self._queries = _scaled(self._tensor(examples.queries))
        self._values = None if judged is None else self._tensor(judged.values)
        documents, asked = (examples.documents, examples.queries) if judged is None else (judged.documents, judged.queries)
        self._judges = _scaled(self._tensor(asked))
        centred = self._tensor(documents) - self._tensor(documents).mean(dim=0)
        self._length = float(centred.norm(dim=1).mean().clamp(min=1e-12))
        self._targets = centred / self._length
        self._nearest = self._neighbours()
        self._prepared = self._tensor(transform_inputs(examples.documents, state)) if "map" not in state else None

    def loss(self, network: _Network, kind: str) -> Tensor:
        """Draw a batch and give its loss."""
        rows = self._rng.choice(len(self._own), min(QUERIES, len(self._own)), replace=False)
        columns = np.unique(self._rng.permuted(self._nearest[rows], axis=1)[:, :NEIGHBOURS])
        own = torch.from_numpy(self._own[rows][:, np.newaxis] == columns).to(self._device)
        true = (self._judges[rows] @ self._targets[columns].T).masked_fill(own, MASKED)
        compared = _list_net if kind == "listnet" else _contrast
        inputs = self._inputs[columns]
        values = network.values(inputs, None if self._prepared is None else self._prepared[columns])
        total = compared(true, network.scores(self._queries[rows], values, self._length).masked_fill(own, MASKED))
        if self._values is not None:
            frozen = network.scores(self._queries[rows], self._values[columns], self._length)
            total = total + compared(true, frozen.masked_fill(own, MASKED))
        return total

    def _neighbours(self) -> npt.NDArray[np.int64]:
        found = []
        count = min(NEAREST, len(self._targets) - 1)
        for start in range(0, len(self._judges), 512):
            scores = self._judges[start : start + 512] @ self._targets.T
            own = self._own[start : start + 512]
            inside = np.flatnonzero(own >= 0)
            scores[inside, own[inside]] = MASKED
            found.append(torch.topk(scores, count, dim=1).indices.cpu().numpy())
        return np.concatenate(found)

    def _tensor(self, array: Floats) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


class _Network(nn.Module):
    """The transform, its levels and the query side, as torch knows them."""

    offset: Tensor
    length: Tensor
    slope: Tensor
    mean: Tensor
    inner_decoder: Tensor | None

    def __init__(self, state: Arrays, config: Mapping[str, Any], rng: np.random.Generator) -> None:
        super().__init__()
        self._bits, self._scaled = config["bits_per_dim"], bool(state["scaled"][0])
        hidden = config["hidden"] if config["transform"] == "mlp" else 0
        self.decoder = nn.Parameter(torch.from_numpy(state["decoder"].copy()))
        self.mapping = nn.Parameter(torch.from_numpy(state["map"].copy())) if "map" in state else None
        for name in ("offset", "length", "slope", "mean"):
            self.register_buffer(name, torch.from_numpy(state.get(f"inner_{name}", state[name]).copy()))
        inner = state.get("inner_decoder")
        self.register_buffer("inner_decoder", None if inner is None else torch.from_numpy(inner.copy()))
        self.maps: Any = nn.ModuleDict({"encode": _Linear(state, "encode")})
        self.branches: Any = nn.ModuleDict()
        if hidden:
            filled = _with_levels(state, self._bits)
            shape = state["encode.linear"].shape
            self.branches["encode"] = _Branch(state, "encode", shape, hidden, rng)
            for level in range(1, self._bits):
                self.maps[f"rebuild{level}"] = _Linear(filled, f"rebuild{level}")
                self.branches[f"residual{level}"] = _Branch(state, f"residual{level}", shape, hidden, rng)

    def values(self, vectors: Tensor, prepared: Tensor | None) -> Tensor:
        """Give the (n, out_dim) grid values of (n, dim) vectors, times their factors."""
        inner = vectors if self.mapping is None else vectors @ self.mapping
        values = self._grid(self._inputs(inner) if prepared is None else prepared)
        if not self._scaled:
            return values
        centred = inner - self.mean
        rebuilt = values @ (self.decoder if self.inner_decoder is None else self.inner_decoder)
        factors = (centred * rebuilt).sum(dim=1) / (rebuilt * rebuilt).sum(dim=1).clamp(min=1e-12)
        return values * (self.slope * factors)[:, None]

    def scores(self, queries: Tensor, values: Tensor, length: float) -> Tensor:
        """Estimate inner products, without the part that is the same for all documents."""
        estimated: Tensor = queries @ (values @ self.decoder).T / length
        return estimated

    def exported(self, start: Arrays) -> Arrays:
        """Give the codec's state, normalisation folded into the linear maps."""
        state = dict(start) | {"decoder": _array(self.decoder)}
        if self.mapping is not None:
            # The query side has its own map by now; only encoding still goes through this one.
            state["map"] = _array(self.mapping)
        for name, part in [*self.maps.items(), *self.branches.items()]:
            state |= {f"{name}.{kind}": array for kind, array in part.folded().items()}
        return state

    def _inputs(self, inner: Tensor) -> Tensor:
        centred = inner - self.offset
        lengths = _lengths(centred) if self._scaled else self.length
        return centred / lengths

    def _grid(self, inputs: Tensor) -> Tensor:
        first = self.maps["encode"](inputs)
        if self.branches:
            first = first + self.branches["encode"](inputs)
        values: Tensor = _sign(first)
        for level in range(1, self._bits):
            left = first - values
            if self.branches:
                left = left + self.branches[f"residual{level}"](inputs - self.maps[f"rebuild{level}"](values))
            values = values + 2.0**-level * _sign(left)
        return values


class _Linear(nn.Module):
    """A linear map with a bias."""

    def __init__(self, state: Arrays, name: str) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.from_numpy(state[f"{name}.linear"].copy()))
        self.bias = nn.Parameter(torch.from_numpy(state[f"{name}.bias"].copy()))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs @ self.linear + self.bias
        return outputs

    def folded(self) -> Arrays:
        """Give the arrays of the map."""
        return {"linear": _array(self.linear), "bias": _array(self.bias)}


class _Branch(nn.Module):
    """Linear, BatchNorm, ReLU, Linear; the last starts at zero, and a branch trained before goes on without BatchNorm."""

    def __init__(self, state: Arrays, name: str, shape: tuple[int, ...], hidden: int, rng: np.random.Generator) -> None:
        super().__init__()
        known = f"{name}.first" in state
        first = (rng.standard_normal((shape[0], hidden)) * math.sqrt(2 / shape[0])).astype(np.float32)
        arrays = {
            "first": first,
            "first_bias": np.zeros(hidden, np.float32),
            "second": np.zeros((hidden, shape[1]), np.float32),
        }
        for part, fresh in arrays.items():
            self.register_parameter(part, nn.Parameter(torch.from_numpy(np.array(state.get(f"{name}.{part}", fresh)))))
        self.norm = None if known else nn.BatchNorm1d(hidden)

    first: Tensor
    first_bias: Tensor
    second: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        inner = inputs @ self.first + self.first_bias
        outputs: Tensor = torch.relu(inner if self.norm is None else self.norm(inner)) @ self.second
        return outputs

    def folded(self) -> Arrays:
        """Give the arrays of the branch, in which the normalisation is part of the first map."""
        first, bias = _array(self.first), _array(self.first_bias)
        if self.norm is not None and self.norm.running_mean is not None and self.norm.running_var is not None:
            scale = _array(self.norm.weight) / np.sqrt(_array(self.norm.running_var) + np.float32(self.norm.eps))
            first, bias = first * scale, (bias - _array(self.norm.running_mean)) * scale + _array(self.norm.bias)
        return {"first": first, "first_bias": bias, "second": _array(self.second)}


class _Sign(torch.autograd.Function):
    """The sign, whose gradient is 1 within [-1, 1] and 0 beyond."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return torch.where(inputs >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        passed: Tensor = gradients[0] * (inputs.abs() <= 1)
        return passed


def _sign(inputs: Tensor) -> Tensor:
    signs: Tensor = _Sign.apply(inputs)  # type: ignore[no-untyped-call]
    return signs


def _list_net(true: Tensor, estimated: Tensor) -> Tensor:
    """Give the cross-entropy of the two softmaxes."""
    return -(torch.softmax(true / TEMPERATURE, 1) * torch.log_softmax(estimated / TEMPERATURE, 1)).sum(dim=1).mean()


def _contrast(true: Tensor, estimated: Tensor) -> Tensor:
    """Give InfoNCE of the truly nearest, each against the hardest of the others."""
    ranked = torch.topk(true, min(2 * POSITIVES, true.shape[1]), dim=1).indices
    near = estimated.gather(1, ranked[:, :POSITIVES]) / TEMPERATURE
    others = estimated.scatter(1, ranked, MASKED)
    hard = torch.topk(others, min(HARDEST, others.shape[1]), dim=1).values / TEMPERATURE
    against = torch.cat([near.unsqueeze(2), hard.unsqueeze(1).expand(-1, near.shape[1], -1)], dim=2)
    return (torch.logsumexp(against, dim=2) - near).mean()


def _with_levels(state: Arrays, bits: int) -> Arrays:
    """Add what rebuilds inputs from grid values where the state has none: the inverse of the transform."""
    if "rebuild1.linear" in state or bits == 1:
        return state
    back = np.linalg.pinv(state["encode.linear"]).astype(np.float32)
    bias = np.zeros(back.shape[1], np.float32)
    levels = range(1, bits)
    return dict(state) | {f"rebuild{i}.linear": back for i in levels} | {f"rebuild{i}.bias": bias for i in levels}


def _groups(network: _Network) -> list[dict[str, Any]]:
    """Give every parameter its own rate."""
    groups = []
    for name, parameter in network.named_parameters():
        linear = name.endswith(("linear", "decoder", "mapping"))
        spread = float(parameter.detach().square().mean().sqrt())
        groups.append({"params": [parameter], "lr": RATE * spread if linear else BRANCH_RATE})
    return groups


def _scaled(queries: Tensor) -> Tensor:
    return queries / _lengths(queries).mean()


def _lengths(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=1e-12)
    return lengths


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().cpu().numpy().copy()
    return array
