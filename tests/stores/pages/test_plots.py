"""Bars read back from the picture itself."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from stores.pages.plots import MeanBar, bars_png

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
