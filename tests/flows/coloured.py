"""A network whose channels each mean a colour, shards of photographs of one colour each, and directions that mean one
colour or two: what facets are to find is known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from tests.flows.tiny import write_tar

SIDE, EACH = 16, 10
RED, GREEN, BLUE = range(3)
LAYER = "1"


def network() -> nn.Module:
    """Layer 0 has two channels a colour, layer 1 one: how much redder, greener, bluer a site is than the others. The
    means of these tell three classes apart."""
    made = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), nn.ReLU()), nn.Sequential(nn.Conv2d(6, 3, 1), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    first, second = made[0][0], made[1][0]  # type: ignore[index]
    with torch.no_grad():
        for colour in (RED, GREEN, BLUE):
            for copy, strength in enumerate((0.2, 0.3)):
                first.weight[2 * colour + copy] = -strength
                first.weight[2 * colour + copy, colour] = strength
            second.weight[colour] = 0
            second.weight[colour, 2 * colour : 2 * colour + 2] = 1
        first.bias.fill_(0)
        second.bias.fill_(0)
    return made


def photograph(number: int) -> bytes:
    """Red, green or blue in turn, more or less, with a texture of its own."""
    stream = np.random.default_rng(number)
    pixels = stream.integers(0, 60, (SIDE * 2, SIDE * 2, 3))
    pixels[..., number % 3] += stream.integers(120, 190)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def shards(folder: Path) -> Path:
    """One shard with `EACH` photographs of each colour; an image's colour is its id modulo 3."""
    write_tar(folder / "coloured-000000.tar", {f"p{row:03d}.png": photograph(row) for row in range(3 * EACH)})
    return folder


def directions() -> np.ndarray:
    """Neurons of layer 1, in two blocks: one colour, and sums of two. The others read nothing."""
    made = np.zeros((34, 3), np.float32)
    made[0, RED] = 1
    made[1, [RED, BLUE]] = 1
    made[33, [GREEN, BLUE]] = 1
    return made
