"""The plot of the store benchmark: memory against the time of a query, one panel a size, recall beside each store's name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rarebit.cookbook.benchmarks.figures import Figure
from rarebit.cookbook.benchmarks.store_data import K
from rarebit.cookbook.benchmarks.store_process import Row
from rarebit.errors import MissingExtraError

AXES = ("memory", "ratio_to_flat", f"recall@{K}")
OURS, OTHERS, COLOURS = "rarebit", "#5a6570", ("#d1495b", "#1d6fb8")
MARKERS = {"LangChain": "o", "LlamaIndex": "s", "": "^"}
PANEL_WIDTH, HEIGHT = 6.4, 6.2
"""Inches."""

NEAREST = 0.042
"""Labels are at least so far from each other, as a share of the height."""

Point = tuple[float, float, float]
"""Memory in bytes a vector, time over IndexFlatIP's, recall."""


def points(rows: Sequence[Row]) -> dict[str, dict[str, Point]]:
    """Give, for each size, the point of each method that has all three figures."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        if isinstance(row, Figure) and row.metric in AXES:
            found.setdefault(row.setting, {}).setdefault(row.method, {})[row.metric] = row.value
    return {
        setting: {
            method: (own[AXES[0]], own[AXES[1]], own[AXES[2]])
            for method, own in methods.items()
            if all(name in own for name in AXES) and own[AXES[0]] > 0
        }
        for setting, methods in found.items()
        if any(AXES[0] in own for own in methods.values())  # a filter's setting has no memory
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw to an svg or png file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("drawing needs the package 'matplotlib', which is not installed: pip install matplotlib")
    matplotlib = import_module("matplotlib")
    drawn = {setting: own for setting, own in points(rows).items() if own}
    # A fixed salt and no date: the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "rarebit", "font.size": 10}):
        size = (PANEL_WIDTH * max(1, len(drawn)), HEIGHT)
        canvas = import_module("matplotlib.figure").Figure(figsize=size, layout="constrained")
        panels = canvas.subplots(1, max(1, len(drawn)), squeeze=False)[0]
        for axes, (setting, own) in zip(panels, drawn.items(), strict=False):
            _draw_panel(axes, own)
            axes.set_title(f"{setting}; recall@{K} beside the name", fontsize=11, loc="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, dpi=150, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_panel(axes: Any, own: dict[str, Point]) -> None:
    axes.set(xscale="log", yscale="log", xlabel="memory, bytes a vector", ylabel="time of one query / IndexFlatIP")
    axes.axhline(1, color="#c8c8c8", linewidth=1, zorder=0)
    axes.grid(visible=True, color="#ececec", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for method, (memory, ratio, _) in own.items():
        axes.plot(memory, ratio, _marker(method), color=_colour(method), markersize=7 if method.startswith(OURS) else 5.5)
    # Room for the names at the right.
    least, most = min(memory for memory, _, _ in own.values()), max(memory for memory, _, _ in own.values())
    axes.set_xlim(least / 1.5, most * (most / least + 3) ** 0.9)
    low, high = axes.get_ylim()
    heights = _apart(
        {method: axes.transAxes.inverted().transform(axes.transData.transform((1, own[method][1])))[1] for method in own}
    )
    for method, (memory, ratio, recall) in own.items():
        axes.annotate(
            f"{method}  {recall:.3f}",
            (memory, ratio),
            xytext=(0.62, heights[method]),
            textcoords="axes fraction",
            fontsize=8.5,
            va="center",
            color=_colour(method),
            fontweight="bold" if method.startswith(OURS) else "normal",
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": "#c8c8c8",
                "linewidth": 0.7,
                "shrinkA": 2,
                "shrinkB": 4,
            },
        )
    axes.set_ylim(low, high)


def _apart(heights: dict[str, float]) -> dict[str, float]:
    """Move labels so that none covers another, from the lowest up, and down again where they pass the top."""
    order = sorted(heights, key=lambda method: heights[method])
    placed: dict[str, float] = {}
    least = 0.0
    for method in order:
        placed[method] = max(heights[method], least)
        least = placed[method] + NEAREST
    most = 0.98
    for method in reversed(order):
        placed[method] = min(placed[method], most)
        most = placed[method] - NEAREST
    return placed


def _marker(method: str) -> str:
    return next(marker for name, marker in MARKERS.items() if name in method)


def _colour(method: str) -> str:
    return COLOURS["LlamaIndex" in method] if method.startswith(OURS) else OTHERS
