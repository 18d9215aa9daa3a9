"""The plot of the codec benchmark: size against quality, one line a codec.

``python -m rarebit.cookbook.benchmarks.plots FIGURES.json [MORE.json] --out OUT.svg``

A point is the mean over collections. Only points of methods that were measured on all collections are drawn, so that all are
means over the same ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from rarebit.cookbook.benchmarks.codec_methods import OURS
from rarebit.cookbook.benchmarks.codec_rivals import FLAT
from rarebit.cookbook.benchmarks.figures import Figure, means, table
from rarebit.errors import MissingExtraError

PANELS = {
    "recall@10": "recall@10, codes alone",
    "ndcg@10_share": "nDCG@10, share of float32's, codes alone",
}
"""Metric -> the title above its panel."""

COLOURS = ("#d1495b", "#1d6fb8", "#2a9d5c", "#e08e1b", "#8b4fb3", "#00a3a3", "#7a5230", "#5f7a1f", "#c13f94", "#2f4858")
GREYS = ("#444444", "#777777", "#a0a0a0")
DASHES = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "p", "d")
WIDTH, HEIGHT = 10.5, 6.6
"""Inches; text of 10 points is then legible at the width of a README."""

Line: TypeAlias = list[tuple[float, float]]
"""Points: bytes a vector, and the quality, by ascending size."""


def lines(figures: Sequence[Figure], metric: str) -> dict[str, Line]:
    """Make the line of each method from the means over collections."""
    averaged = means(figures)
    sizes = {(figure.method, figure.setting): figure.value for figure in averaged if figure.metric == "bytes"}
    found: dict[str, Line] = {}
    for figure in averaged:
        if figure.metric == metric and figure.method != FLAT:
            found.setdefault(figure.method, []).append((sizes[figure.method, figure.setting], figure.value))
    return {method: sorted(points) for method, points in found.items()}


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Draw both panels to an svg or png file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("drawing needs the package 'matplotlib', which is not installed: pip install matplotlib")
    matplotlib = import_module("matplotlib")
    drawn = {metric: lines(figures, metric) for metric in PANELS}
    methods = list(dict.fromkeys(method for found in drawn.values() for method in found))
    styles = _styles(methods)
    # A fixed salt and no date: the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "rarebit", "font.size": 10}):
        canvas = import_module("matplotlib.figure").Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        handles: dict[str, Any] = {}
        for axes, (metric, title) in zip(canvas.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            handles |= _draw_panel(axes, drawn[metric], styles)
            axes.set_title(title, fontsize=11)
        ordered = [method for method in methods if method in handles]
        canvas.legend(
            [handles[method] for method in ordered], ordered, loc="outside lower center", ncols=3, frameon=False, fontsize=9.5
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, dpi=150, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)


def _styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give Rarebit's methods colours and whole lines, and the others greys, dashes and markers."""
    ours = [method for method in methods if method.startswith(OURS)]
    theirs = [method for method in methods if not method.startswith(OURS)]
    styles: dict[str, dict[str, Any]] = {
        method: {"color": COLOURS[place % len(COLOURS)], "marker": "o", "linewidth": 2.0, "zorder": 3}
        for place, method in enumerate(ours)
    }
    for place, method in enumerate(theirs):
        styles[method] = {
            "color": GREYS[place % len(GREYS)],
            "linestyle": DASHES[place % len(DASHES)],
            "marker": MARKERS[place % len(MARKERS)],
            "linewidth": 1.2,
        }
    return styles


def _draw_panel(axes: Any, found: dict[str, Line], styles: dict[str, dict[str, Any]]) -> dict[str, Any]:
    axes.set_xscale("log", base=2)
    handles = {}
    for method, points in found.items():
        sizes, values = zip(*points, strict=True)
        handles[method] = axes.plot(sizes, values, markersize=5, **styles[method])[0]
    ticks = [size for size in (16, 24, 32, 48, 64, 96, 128, 192, 256, 384) if found]
    axes.set_xticks(ticks, labels=[str(size) for size in ticks])
    axes.minorticks_off()
    axes.set_xlabel("bytes a vector")
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return handles


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and draw the means of files of figures."""
    parser = argparse.ArgumentParser(
        prog="python -m rarebit.cookbook.benchmarks.plots", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("figures", type=Path, nargs="+", help="what runs of the benchmark wrote with --json")
    parser.add_argument("--out", type=Path, required=True, help="svg or png file")
    given = parser.parse_args(arguments)
    figures = [Figure(**row) for path in given.figures for row in json.loads(path.read_text(encoding="utf-8"))]
    print(table(means(figures), ()))
    draw(figures, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
