"""Means with their intervals, drawn by matplotlib: as bars, and as levels beside what ever more of something gives."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stores.errors import StoreError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MeanBar:
    """A bar of a plot: its label, a mean, and the ends of the mean's interval, NaN where it has none."""

    label: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Levels:
    """A curve through ``steps``, from left to right, and ``levels`` to read it at."""

    steps: Sequence[MeanBar]
    levels: Sequence[MeanBar]


PANELS_ACROSS = 4
"""Panels side by side."""
INK, QUIET, PALE, EMPHASIS = "#1d1c1a", "#77736b", "#c9c4ba", "#3f6f8f"
"""Of text, of what stands beside it, of bars, and of the one that stands out."""
APART = 0.05
"""Least distance between the labels of two levels, over the height of a panel."""


def bars_png(title: str, groups: Mapping[str, Sequence[MeanBar]], emphasised: str) -> bytes:
    """A PNG of one panel a group, a horizontal bar for each of its entries with its 95 % interval; the one labelled
    ``emphasised`` stands out. An entry has the same height in every panel, empty where the group lacks it.

    Raises:
        StoreError: matplotlib is not installed.
    """
    labels = list(dict.fromkeys(bar.label for bars in groups.values() for bar in bars))
    figure, panels = _panels(title, list(groups), 0.2 * len(labels) + 0.7, (2.3, 1.4))
    for number, (panel, bars) in enumerate(zip(panels, groups.values(), strict=True)):
        rows = [labels.index(bar.label) for bar in bars]
        means = [bar.mean for bar in bars]
        colours = [EMPHASIS if bar.label == emphasised else PALE for bar in bars]
        panel.barh(rows, means, color=colours, height=0.66)
        panel.errorbar(means, rows, xerr=_reach(bars), fmt="none", ecolor=INK, elinewidth=0.9, capsize=2)
        panel.set_yticks(range(len(labels)), labels if number % PANELS_ACROSS == 0 else [""] * len(labels), fontsize=8)
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.tick_params(axis="x", labelsize=7, colors=QUIET, length=2)
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
    return _png(figure)


def levels_png(title: str, groups: Mapping[str, Levels], emphasised: str, along: str) -> bytes:
    """A PNG of one panel a group: a curve with 95 % intervals, called ``along`` below, and a line across at each level
    with its label at the right; the level ``emphasised`` stands out. Where a level meets the curve is how many steps
    it is worth.

    Raises:
        StoreError: matplotlib is not installed.
    """
    figure, panels = _panels(title, list(groups), 2.9, (3.1, 0.2))
    for panel, one in zip(panels, groups.values(), strict=True):
        means, places = [step.mean for step in one.steps], range(len(one.steps))
        panel.errorbar(places, means, yerr=_reach(one.steps), color=INK, elinewidth=0.9, capsize=2, marker="o", ms=3)
        panel.set_xticks(places, [step.label for step in one.steps], fontsize=8)
        panel.set_xlabel(along, fontsize=8, color=QUIET)
        panel.tick_params(labelsize=7, colors=QUIET, length=2)
        for level in one.levels:
            panel.axhline(level.mean, color=EMPHASIS if level.label == emphasised else PALE, linewidth=1.2, zorder=0)
        panel.margins(y=0.08)
        low, high = panel.get_ylim()
        for level, place in zip(
            one.levels, _apart([level.mean for level in one.levels], APART * (high - low)), strict=True
        ):
            of = EMPHASIS if level.label == emphasised else QUIET
            panel.annotate(
                f" {level.label}", (1, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=of
            )
    return _png(figure)


def _apart(values: Sequence[float], least: float) -> list[float]:
    """Places for labels, as near to their ``values`` as ``least`` between any two of them allows from below.

    >>> [round(place, 6) for place in _apart([0.6, 0.5, 0.51], 0.05)]
    [0.6, 0.5, 0.55]
    """
    places = list(values)
    below = -np.inf
    for number in np.argsort(values, kind="stable"):
        places[number] = below = max(values[number], below + least)
    return places


def _reach(bars: Sequence[MeanBar]) -> np.ndarray:
    """How far whiskers go to either side. A mean can be above its interval's end by rounding, and a length below zero
    is refused."""
    return np.transpose([np.maximum(0.0, [bar.mean - bar.low, bar.high - bar.mean]) for bar in bars])


def _panels(
    title: str, names: Sequence[str], height: float, widths: tuple[float, float]
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with a panel for each name, so high each, and as wide as ``widths`` say, one panel and what all need
    beside."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise StoreError(f"plots need the package {error.name}: pip install 'vital-atlas[report]'") from error
    lines, across = max(1, -(-len(names) // PANELS_ACROSS)), max(1, min(PANELS_ACROSS, len(names)))
    figure = Figure(figsize=(widths[0] * across + widths[1], lines * height + 0.4), layout="constrained", dpi=140)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    every = figure.subplots(lines, across, squeeze=False).flatten()
    for panel in every[len(names) :]:
        panel.set_axis_off()
    for panel, name in zip(every, names, strict=False):
        panel.set_title(name, fontsize=9, loc="left", color=INK)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(PALE)
    return figure, every[: len(names)].tolist()


def _png(figure: Figure) -> bytes:
    """Nothing of this machine and no date: the same figures give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
