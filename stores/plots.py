"""Bars with their intervals, as PNG files."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stores.errors import StoreError


@dataclass(frozen=True)
class Bar:
    """A mean and the ends of its interval."""

    label: str
    mean: float
    low: float
    high: float


ACROSS = 4
"""Panels side by side."""


def bars_png(title: str, groups: Mapping[str, Sequence[Bar]], emphasised: str) -> bytes:
    """One panel a group, a horizontal bar for each of its entries with its 95 % interval; the one labelled
    ``emphasised`` stands out.

    Raises:
        StoreError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise StoreError(f"plots need the package {error.name}: pip install 'vital-atlas[report]'") from error
    most = max((len(bars) for bars in groups.values()), default=1)
    lines, across = -(-len(groups) // ACROSS), min(ACROSS, len(groups))
    figure = Figure(figsize=(2.3 * across + 1.4, lines * (0.2 * most + 0.7) + 0.4), layout="constrained", dpi=140)
    panels = figure.subplots(max(1, lines), max(1, across), squeeze=False).flatten()
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color="#1d1c1a")
    for place, (panel, (name, bars)) in enumerate(zip(panels, groups.items(), strict=False)):
        rows = range(len(bars))
        colours = ["#3f6f8f" if bar.label == emphasised else "#c9c4ba" for bar in bars]
        panel.barh(rows, [bar.mean for bar in bars], color=colours, height=0.66)
        reach = [[max(0.0, bar.mean - bar.low) for bar in bars], [max(0.0, bar.high - bar.mean) for bar in bars]]
        panel.errorbar(
            [bar.mean for bar in bars], rows, xerr=reach, fmt="none", ecolor="#1d1c1a", elinewidth=0.9, capsize=2
        )
        panel.set_yticks(rows, [bar.label for bar in bars] if place % ACROSS == 0 else [""] * len(bars), fontsize=8)
        panel.invert_yaxis()
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
