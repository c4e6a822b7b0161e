"""What a report shows of a layer beside its tables: plots of the figures, and strips of pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from flows.reports.figures import MethodFigures, badness
from flows.reports.plan import ABLATIONS, VITAL, Comparison
from flows.reports.tables import Figures
from stores import open_atlas
from stores.arrays.display import as_shown
from stores.pages.plots import Levels, MeanBar, bars_png, levels_png
from stores.pages.report import PageImage
from stores.pages.sheets import Strip, sheet_png, strips_sheet
from vital.judging.names import EVERY_JUDGE, OWN_NETWORK, meaning_of, metric_name
from vital.judging.readability import FEW
from vital.network.probe import CLASSES

SHOWN = 5
"""Median and worst pictures of each method on a strip."""
PLOTTED = {
    CLASSES: ("top1_own", "top1", "frechet", "nearest_reference", "clipped"),
    "": ("peak_ratio", "readability", "processing_gap", "references_reached", "rank", "frechet"),
}
"""Metrics that are plotted, by layer; "" stands for every layer of channels."""
PHOTOGRAPHS = {**{str(count): metric for metric, count in FEW.items()}, "all": "readability_references"}
"""What photographs of a neuron tell, by how many they are."""


def images(
    comparison: Comparison, name: str, title: str, layer: str, methods: Sequence[MethodFigures], figures: Figures
) -> list[PageImage]:
    """Write a layer's plot and strips into the report's folder, in files called after ``name``."""
    out = Path(comparison.job.out).absolute()
    stem = name.replace("/", "-").replace(":", "-")
    written = []
    panels = _panels(layer, comparison.job.judges, figures)
    if panels:
        plot = bars_png(title, panels, VITAL)
        text = f"{name}: metrics of every method with 95 % intervals"
        written.append(_written(out / f"{stem}-metrics.png", plot, text))
    curves = _told_by_photographs(comparison.job.judges, figures)
    if curves:
        plot = levels_png(f"{title}: what photographs tell, and pictures", curves, VITAL, "photographs")
        text = f"{name}: what one, two, four and all photographs of a neuron tell a judge, and pictures of every method"
        written.append(_written(out / f"{stem}-photographs.png", plot, text))
    strips = [_strip(comparison, layer, method) for method in methods if method.neurons]
    text = f"{name}: of each method its median and its worst pictures, under the first seed"
    sheet = sheet_png(strips_sheet(strips, ("median", "worst")))
    return [*written, _written(out / f"{stem}-pictures.png", sheet, text)]


def _panels(layer: str, judges: Sequence[str], figures: Figures) -> dict[str, list[MeanBar]]:
    """The bars of each metric that is plotted of the layer and that any method has."""
    panels: dict[str, list[MeanBar]] = {}
    for plotted in PLOTTED.get(layer, PLOTTED[""]):
        for metric in _names(plotted, (OWN_NETWORK, *judges)):
            if bars := _bars(figures, metric):
                panels[metric.replace("_", " ")] = bars
    return panels


def _told_by_photographs(judges: Sequence[str], figures: Figures) -> dict[str, Levels]:
    """By judge, first of their mean: readability of ever more photographs, which is the same for every method, and of
    each method's pictures."""
    told = {}
    for judge in (EVERY_JUDGE, *judges):
        steps = [
            replace(bars[0], label=label)
            for label, metric in PHOTOGRAPHS.items()
            if (bars := _bars(figures, metric_name(metric, judge)))
        ]
        pictures = _bars(figures, metric_name("readability", judge))
        levels = [bar for bar in pictures if bar.label not in ABLATIONS]
        if steps and levels:
            told["mean of all judges" if judge == EVERY_JUDGE else judge] = Levels(steps, levels)
    return told


def _bars(figures: Figures, metric: str) -> list[MeanBar]:
    """Of every method that has the metric."""
    return [
        MeanBar(label, one.mean, one.low if one.bounded else math.nan, one.high if one.bounded else math.nan)
        for label, metrics in figures.items()
        if (one := metrics.get(metric)) is not None and math.isfinite(one.mean)
    ]


def _names(plotted: str, judges: Sequence[str]) -> list[str]:
    """The metrics that an entry of `PLOTTED` stands for: one a judge, or itself."""
    try:
        meaning_of(plotted)
    except KeyError:
        return [metric_name(plotted, judge) for judge in judges]
    return [plotted]


def _strip(comparison: Comparison, layer: str, method: MethodFigures) -> Strip:
    order = np.argsort(badness(method, layer), kind="stable")
    start = max(0, (len(order) - SHOWN) // 2)
    pictures = open_atlas(comparison.atlas(method.cases[0])).layer(layer)
    groups = []
    for rows in (order[start : start + SHOWN], order[-SHOWN:]):
        neurons = [method.neurons[row] for row in rows]
        pixels = as_shown(pictures.pixels(neurons), pictures.shown)
        groups.append(list(zip(pictures.neuron_names(neurons), pixels, strict=True)))
    return Strip(method.label, groups)


def _written(path: Path, png: bytes, text: str) -> PageImage:
    path.write_bytes(png)
    with Image.open(io.BytesIO(png)) as image:
        return PageImage(path.name, text, image.width, image.height)
