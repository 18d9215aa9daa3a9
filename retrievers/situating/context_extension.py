"""Longer windows for encoders that read little, without training (LongEmbed, arXiv 2404.12096).

===============  =================  =======================================================  ==================================
method           for                what it does with ``step`` = length / window, rounded up  texts that fit the old window
===============  =================  =======================================================  ==================================
interpolation    position tables    rows between the trained ones are mixed of both          unchanged
grouped          position tables    ``step`` tokens in a row share a trained row             unchanged
recurrent        position tables    the trained rows begin anew after the last               unchanged
ntk              rotary positions   slow frequencies slow down (NTK-aware base)              changed
self_extend      rotary positions   far tokens share positions (arXiv 2401.01325)            unchanged
===============  =================  =======================================================  ==================================

How far an extended encoder really reads, :func:`passkey_report` measures. Needs sentence-transformers and torch.
"""

from __future__ import annotations

import inspect
import operator
from copy import deepcopy
from typing import Any, Final, TypeAlias, cast

from jaxtyping import Float, Int64

from rarebit.errors import InputError
from rarebit.extras import require

require("sentence_transformers", "models")

# What follows needs sentence-transformers, and is imported only once it is known to be there.
import torch  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.sentence_transformer.modules import Transformer  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402

from rarebit.retrievers.situating.self_extend import SUPPORTED, Grouping, SelfExtended  # noqa: E402
from rarebit.retrievers.situating.spread_positions import TABLE, SpreadPositions, first_row, table_of  # noqa: E402

TABLE_METHODS: Final = ("interpolation", "grouped", "recurrent")
ROTARY_METHODS: Final = ("ntk", "self_extend")
"""What fits the positions of a model; the first one is the default."""

BY_LENGTH: Final = ("interpolation", "grouped", "self_extend")
"""What treats long texts otherwise than short ones, which takes a module of its own."""

Trained: TypeAlias = Float[torch.Tensor, "window hidden"]
Places: TypeAlias = Int64[torch.Tensor, "places"]
Rows: TypeAlias = Float[torch.Tensor, "places hidden"]


def extend_context(encoder: SentenceTransformer, length: int, *, method: str | None = None) -> SentenceTransformer:
    """Give a copy of an encoder that reads texts of ``length`` tokens; the encoder itself is left as it is.

    The old window of a model with a table of positions is ``encoder.max_seq_length``: that is what an encoder was made to read,
    and rows of its table beyond that, where it has some, know less than those before. If you lowered it, set it back first. The
    old window of a model with rotary positions is what its configuration says (``max_position_embeddings``); up to that length
    nothing has to be changed but the limit.

    The copy can be saved. After ``recurrent`` and ``ntk`` it loads as any other encoder. The other methods treat long texts
    otherwise than short ones, which takes code of Rarebit: load the folder with ``SentenceTransformer(folder,
    trust_remote_code=True)`` where Rarebit is installed; without that flag sentence-transformers refuses, and says so. The
    model in it, loaded by transformers alone, knows nothing of that: short texts then have other vectors after
    ``interpolation`` and ``grouped``, and long ones untrained distances after ``self_extend``.

    Args:
        encoder: begins with a transformer, with a table of absolute positions (BERT, RoBERTa, XLM-R, MPNet and their kin) or
            with rotary ones (Llama, Qwen, ModernBERT, NomicBERT and others; ``self_extend`` knows fewer of them than ``ntk``).
        length: tokens of the longest text, with those that the tokenizer adds.
        method: one that fits the positions; ``interpolation`` or ``ntk`` if left out.

    Raises:
        InputError: the length is no whole number or not above what is read now; the method is not known or does not fit; the
            model has other positions, or the encoder is extended already or begins with something else.
    """
    transformer, model = _parts(encoder)
    found = table_of(model)
    methods = _methods(model)
    method = methods[0] if method is None else method
    if method not in methods:
        raise InputError(
            f"got method={method!r} for a model of type {model.config.model_type!r}, wanted one that fits its positions: "
            f"{', '.join(methods)}"
        )
    if method in BY_LENGTH and type(transformer) is not Transformer:
        raise InputError(
            f"got an encoder that begins with {type(transformer).__name__}, wanted a plain Transformer for {method}: "
            "extend the original encoder, if this one is extended already"
        )
    positions = model.config.max_position_embeddings if found is None else len(found[1].weight) - first_row(found[1])
    window = min(encoder.max_seq_length or positions, positions)
    wanted = _longer(length, window)
    longer = deepcopy(encoder)
    if found is not None:
        _extend_table(longer[0], window, wanted, method)
    elif wanted > positions:
        _extend_rotary(longer[0], positions, wanted, method)
    longer.max_seq_length = longer.tokenizer.model_max_length = wanted
    return longer


def _parts(encoder: SentenceTransformer) -> tuple[Transformer, PreTrainedModel]:
    """Give the first module of an encoder and the model in it."""
    parts: list[Any] = list(encoder) if isinstance(encoder, SentenceTransformer) else [encoder]
    first = parts[0] if parts else None
    model = getattr(first, "auto_model", None)
    if not isinstance(first, Transformer) or not isinstance(model, PreTrainedModel):
        raise InputError(
            f"got {' -> '.join(type(part).__name__ for part in parts)}, wanted a SentenceTransformer that begins with a "
            "transformer in torch: other encoders have no positions to extend"
        )
    return first, model


def _methods(model: PreTrainedModel) -> tuple[str, ...]:
    """Say what fits the positions of a model, the default first."""
    kind, config = model.config.model_type, model.config
    if table_of(model) is not None:
        absolute = getattr(config, "position_embedding_type", "absolute") == "absolute"
        if not absolute or getattr(config, "relative_attention", False):
            raise InputError(
                f"got a model of type {kind!r}, which has relative positions beside its table, wanted absolute ones alone: "
                "choose another encoder"
            )
        takes = "position_ids" in inspect.signature(model.forward).parameters
        return TABLE_METHODS if takes else TABLE_METHODS[-1:]
    ropes = _ropes(model)
    described = [module for module in model.modules() if hasattr(module, "config")]
    if not any(hasattr(module, f"{prefix}inv_freq") for prefix in ropes for module in described):
        raise InputError(
            f"got a model of type {kind!r}, which has neither a table of absolute positions nor rotary ones that its "
            "configuration describes (rope_parameters): relative positions and ALiBi have no window to extend, so set "
            "encoder.max_seq_length and measure with passkey_report; others are not supported"
        )
    extended = {rope.get("rope_type", "default") for rope in ropes.values()} - {"default"}
    if extended:
        raise InputError(
            f"got a model whose rotary positions are extended already ({', '.join(extended)}), wanted plain ones: change "
            "rope_parameters of its configuration instead"
        )
    return ROTARY_METHODS if kind in SUPPORTED else ROTARY_METHODS[:1]


def _longer(length: int, present: int) -> int:
    """Check the length that is wanted."""
    try:
        wanted = 0 if isinstance(length, bool) else operator.index(length)
    except TypeError:
        wanted = 0
    if wanted <= present:
        raise InputError(
            f"got length={length!r} for an encoder that reads {present} tokens, wanted a whole number above that: "
            "set encoder.max_seq_length to read less"
        )
    return wanted


def _extend_table(transformer: Any, window: int, length: int, method: str) -> None:
    """Put a longer table in place of the model's, and say which rows short texts take."""
    module, table = cast("tuple[Any, Any]", table_of(transformer.auto_model))
    first, step = first_row(table), -(-length // window)
    weight = table.weight.detach()
    places = torch.arange(length if method == "recurrent" else window * step, device=weight.device)
    weight = torch.cat([weight[:first], _rows(weight[first : first + window], places, step, method)])
    extended = torch.nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        weight, freeze=not table.weight.requires_grad, padding_idx=table.padding_idx
    )
    setattr(module, TABLE, extended.train(table.training))
    _count_positions(transformer.auto_model, len(weight))
    if method in BY_LENGTH:
        # The transformer is loaded, and loading is all that the class below adds to making one.
        transformer.__class__ = SpreadPositions
        transformer.window, transformer.step = window, step
        transformer.unpad_inputs = False  # texts side by side in one row have no lengths of their own


def _rows(trained: Trained, places: Places, step: int, method: str) -> Rows:
    """Make rows of a longer table."""
    if method == "recurrent":
        return trained[places % len(trained)]
    lower = trained[places // step]
    if method == "grouped":
        return lower
    # Behind the last trained row there is none to mix it with.
    upper = trained[(places // step + 1).clamp(max=len(trained) - 1)]
    return torch.lerp(lower, upper, ((places % step) / step).to(trained.dtype)[:, None])


def _count_positions(model: PreTrainedModel, count: int) -> None:
    """Write the number of positions into the configuration, and fit the buffers that have one entry for each."""
    old = model.config.max_position_embeddings
    model.config.max_position_embeddings = count
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name in {"position_ids", "token_type_ids"} and buffer.shape == (1, old):
                entries = torch.arange(count) if name == "position_ids" else torch.zeros(count, dtype=torch.long)
                setattr(module, name, entries.to(buffer.device)[None])


def _ropes(model: PreTrainedModel) -> dict[str, dict[str, Any]]:
    """Give the rotary parameters of layers that see the whole text, by the prefix that their buffers have."""
    parameters = getattr(model.config, "rope_parameters", None) or {}
    if "rope_theta" in parameters:
        return {"": parameters}
    # A layer with a sliding window never meets a distance beyond it, so its frequencies are right for any length.
    return {f"{kind}_": each for kind, each in parameters.items() if each and kind != "sliding_attention"}


def _extend_rotary(transformer: Any, trained: int, length: int, method: str) -> None:
    """Change the frequencies, or the attention."""
    model = transformer.auto_model
    _count_positions(model, length)
    if method == "self_extend":
        transformer.__class__ = SelfExtended
        transformer.group(Grouping.for_length(trained, length))
    else:
        _slow_down(model, length / trained)
        _renew_frequencies(model)


def _slow_down(model: PreTrainedModel, scale: float) -> None:
    """Scale the base so that the fastest of the frequencies stays and the slowest is divided by ``scale``, as the window is."""
    for prefix, rope in _ropes(model).items():
        buffer = f"{prefix}inv_freq"
        rotated = 2 * next(len(getattr(module, buffer)) for module in model.modules() if hasattr(module, buffer))
        rope["rope_theta"] *= scale ** (rotated / (rotated - 2))


def _renew_frequencies(model: PreTrainedModel) -> None:
    """Compute the buffers of frequencies again, as they will be when the model is loaded."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            buffers = dict(child.named_buffers(recurse=False))
            if hasattr(child, "config") and any(each.endswith("inv_freq") for each in buffers):
                device = next(iter(buffers.values())).device
                setattr(parent, name, type(child)(config=child.config).to(device))
