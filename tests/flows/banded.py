"""A network of five channels, of which each neuron means one, and images of five bands: what pictures show is known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tifffile
import torch
from torch import nn

from tests.flows.tiny import write_tar

SIDE, BANDS, EACH = 16, 5, 6
LAYER = "1"


def network() -> nn.Module:
    """Layer 0 has two channels a band, layer 1 one: how much brighter than the others the band is at a site."""
    made = nn.Sequential(
        nn.Sequential(nn.Conv2d(BANDS, 2 * BANDS, 2, stride=2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(2 * BANDS, BANDS, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    first, second = made[0][0], made[1][0]  # type: ignore[index]
    with torch.no_grad():
        for band in range(BANDS):
            for copy, strength in enumerate((0.1, 0.15)):
                first.weight[2 * band + copy] = -strength / 2
                first.weight[2 * band + copy, band] = strength
            second.weight[band] = 0
            second.weight[band, 2 * band : 2 * band + 2] = 1
        first.bias.fill_(0)
        second.bias.fill_(0)
    return made


def bands(number: int) -> np.ndarray:
    """Twelve bits (band, row, column); one band in turn is bright, more or less, with a texture of its own."""
    stream = np.random.default_rng(number)
    pixels = stream.integers(0, 1000, (BANDS, 2 * SIDE, 2 * SIDE))
    pixels[number % BANDS] += stream.integers(2000, 3000)
    return pixels.astype(np.uint16)


def npy(pixels: np.ndarray) -> bytes:
    """As numpy.save writes them."""
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **how: object) -> bytes:
    """As tifffile writes them."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **how)  # type: ignore[arg-type]
    return buffer.getvalue()


def file(row: int) -> tuple[str, bytes]:
    """The ending and the bytes of an image: TIFF with bands, TIFF with pages, and both kinds of arrays in turn."""
    pixels = bands(row)
    last = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    if row % 4 == 0:
        return "tif", tiff(last, photometric="minisblack", planarconfig="contig")
    if row % 4 == 1:
        return "tiff", tiff(pixels, photometric="minisblack")
    return "npy", npy(pixels if row % 4 == 2 else last)


def shards(folder: Path) -> Path:
    """One shard; an image's bright band is its id modulo 5. Beside the first lies a photograph, which is no image of
    this network."""
    members: dict[str, bytes] = {"p000.jpg": b"a preview"}
    for row in range(BANDS * EACH):
        ending, data = file(row)
        members[f"p{row:03d}.{ending}"] = data
    write_tar(folder / "banded-000000.tar", members)
    return folder
