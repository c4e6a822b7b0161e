"""Bars read back from the picture itself."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from stores.pages.plots import Levels, MeanBar, bars_png, levels_png

BLUE = (0x3F, 0x6F, 0x8F)


def blue_rows(png: bytes, part: slice) -> list[int]:
    """The lines of a vertical part of the picture that have the emphasised colour."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    width = pixels.shape[1]
    seen = pixels[:, int(part.start * width) : int(part.stop * width)]
    return np.flatnonzero((np.abs(seen - BLUE).max(-1) < 12).any(1)).tolist()


def test_an_entry_has_the_same_height_in_every_panel() -> None:
    """The second panel lacks two entries above and below; its bar stays level with the one that the labels name."""
    first = [MeanBar(label, 1.0, 0.9, 1.1) for label in ("pixel", "vital", "photographs")]
    png = bars_png("Compared", {"one": first, "two": [MeanBar("vital", 2.0, math.nan, math.nan)]}, "vital")
    left, right = blue_rows(png, slice(0.0, 0.55)), blue_rows(png, slice(0.62, 1.0))
    assert left
    assert left == right


def test_a_single_value_has_no_whisker() -> None:
    drawn = []
    for low, high in ((math.nan, math.nan), (0.2, 1.8)):
        png = bars_png(
            "Compared", {"one": [MeanBar("maco", 1.0, low, high), MeanBar("pixel", 2.0, math.nan, math.nan)]}, ""
        )
        drawn.append(int((np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 60).sum()))
    assert drawn[1] > drawn[0] + 50


def test_the_same_figures_are_the_same_bytes() -> None:
    groups = {"one": [MeanBar("maco", 1.0, 0.5, 1.5)]}
    assert bars_png("Compared", groups, "maco") == bars_png("Compared", groups, "maco")


def test_a_level_is_drawn_where_its_value_is_on_the_curve() -> None:
    """The blue line across is at the height of the curve's second point when it has its value, and between the first
    two when it has less."""
    steps = [MeanBar(label, mean, math.nan, math.nan) for label, mean in (("1", 0.5), ("2", 0.6), ("all", 0.7))]
    heights = {}
    for level in (0.5, 0.55, 0.6, 0.7):
        levels = [MeanBar("vital", level, math.nan, math.nan), MeanBar("maco", 0.65, math.nan, math.nan)]
        png = levels_png("Compared", {"judge": Levels(steps, levels)}, "vital", "photographs")
        heights[level] = float(np.mean(blue_rows(png, slice(0.2, 0.5))))
    assert heights[0.5] > heights[0.55] > heights[0.6] > heights[0.7]
    low, high = heights[0.5], heights[0.7]
    assert abs(heights[0.55] - (low + 0.25 * (high - low))) < 3
    assert abs(heights[0.6] - (low + 0.5 * (high - low))) < 3


def test_labels_of_levels_that_are_alike_do_not_cover_each_other() -> None:
    steps = [MeanBar(label, mean, mean - 0.02, mean + 0.02) for label, mean in (("1", 0.5), ("all", 0.7))]
    names, inked = ("vital", "vital again"), []
    for second in (0.67, 0.601):
        levels = [MeanBar(name, mean, math.nan, math.nan) for name, mean in zip(names, (0.6, second), strict=True)]
        png = levels_png("Compared", {"judge": Levels(steps, levels)}, "", "photographs")
        grey = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
        inked.append(int((grey[:, int(0.8 * grey.shape[1]) :] < 200).sum()))
    assert inked[1] >= 0.95 * inked[0]
