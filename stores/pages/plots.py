"""Means with their intervals as bars, drawn by matplotlib."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stores.errors import StoreError


@dataclass(frozen=True)
class MeanBar:
    """A bar of a plot: its label, a mean, and the ends of the mean's interval, NaN where it has none."""

    label: str
    mean: float
    low: float
    high: float


PANELS_ACROSS = 4
"""Panels side by side."""


def bars_png(title: str, groups: Mapping[str, Sequence[MeanBar]], emphasised: str) -> bytes:
    """A PNG of one panel a group, a horizontal bar for each of its entries with its 95 % interval; the one labelled
    ``emphasised`` stands out. An entry has the same height in every panel, empty where the group lacks it.

    Raises:
        StoreError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise StoreError(f"plots need the package {error.name}: pip install 'vital-atlas[report]'") from error
    labels = list(dict.fromkeys(bar.label for bars in groups.values() for bar in bars))
    lines, across = -(-len(groups) // PANELS_ACROSS), min(PANELS_ACROSS, len(groups))
    figure = Figure(
        figsize=(2.3 * across + 1.4, lines * (0.2 * len(labels) + 0.7) + 0.4), layout="constrained", dpi=140
    )
    panels = figure.subplots(max(1, lines), max(1, across), squeeze=False).flatten()
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color="#1d1c1a")
    for number, (panel, (name, bars)) in enumerate(zip(panels, groups.items(), strict=False)):
        rows = [labels.index(bar.label) for bar in bars]
        means = [bar.mean for bar in bars]
        colours = ["#3f6f8f" if bar.label == emphasised else "#c9c4ba" for bar in bars]
        panel.barh(rows, means, color=colours, height=0.66)
        # a mean can be above its interval's end by rounding, and a length below zero is refused
        reach = [np.maximum(0.0, [mean - bar.low, bar.high - mean]) for mean, bar in zip(means, bars, strict=True)]
        panel.errorbar(means, rows, xerr=np.transpose(reach), fmt="none", ecolor="#1d1c1a", elinewidth=0.9, capsize=2)
        panel.set_yticks(range(len(labels)), labels if number % PANELS_ACROSS == 0 else [""] * len(labels), fontsize=8)
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.set_title(name, fontsize=9, loc="left", color="#1d1c1a")
        panel.tick_params(axis="x", labelsize=7, colors="#77736b", length=2)
        panel.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
        panel.spines["bottom"].set_color("#c9c4ba")
    buffer = io.BytesIO()
    # nothing of this machine and no date: the same figures give the same bytes
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
