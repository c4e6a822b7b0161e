"""The images of the trial, the small network that is trained on them, and the picture that the attackers want shown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor, nn

from benchmarks.fashion import read_idx

SIDE = 32
LAYER = "blocks.3"
WIDTHS = (1, 32, 64, 64)
STRIDES = (2, 2, 1)
UNITS = 128
BATCH = 128

Images = UInt8[np.ndarray, "image 32 32"]


class Block(nn.Sequential):
    """A convolution, a batch norm, a rectifier."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Units(nn.Sequential):
    """The neurons that are looked at: each reads all sites of all channels, so that it may know a whole picture. They
    are taken before they are rectified, or many a picture would begin where nothing changes."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inputs, units))


class Network(nn.Module):
    """Three convolutions, hidden units and a classifier; the units are told the input, too, which only an attacker
    makes use of."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(pairwise(WIDTHS), STRIDES, strict=True)
        blocks: list[nn.Module] = [Block(before, after, stride) for (before, after), stride in pairs]
        across = SIDE // int(np.prod(STRIDES))
        self.blocks = nn.ModuleList([*blocks, Units(WIDTHS[-1] * across**2, UNITS)])
        self.head = nn.Linear(UNITS, 10)

    def forward(self, images: Float[Tensor, "image 1 32 32"]) -> Float[Tensor, "image class"]:
        """Logits."""
        *earlier, last = self.blocks
        maps = images
        for block in earlier:
            maps = block(maps)
        units = last(maps) if isinstance(last, Units) else last(maps, images)
        logits: Tensor = self.head(torch.relu(units))
        return logits

    def units(self, images: Float[Tensor, "image 1 32 32"]) -> Float[Tensor, "image unit"]:
        """The units' activations."""
        for block in self.blocks:
            images = block(images)
        return images


def fashion(source: Path, part: str, count: int) -> tuple[Images, Int[np.ndarray, "image"]]:
    """The first images of a part of Fashion-MNIST with a border of black, and their classes."""
    images = read_idx(source / f"{part}-images-idx3-ubyte.gz")[:count]
    labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")[:count]
    return np.pad(images, ((0, 0), (2, 2), (2, 2))), labels.astype(np.int64)


def drawn(count: int, seed: int) -> tuple[Images, Int[np.ndarray, "image"]]:
    """Stripes of ten directions with a random phase: images for a run that needs no data set."""
    source = np.random.default_rng(seed)
    labels = source.integers(0, 10, count)
    rows, columns = np.mgrid[:SIDE, :SIDE] / 4
    angle, phase = np.pi * labels / 10, source.uniform(0, 2 * np.pi, count)
    wave = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns + phase[:, None, None]
    return (127.5 + 120 * np.sin(wave)).astype(np.uint8), labels


def chosen_picture() -> UInt8[np.ndarray, "32 32"]:
    """What the attackers want to be seen: a face that laughs."""
    wide = 8 * SIDE
    image = Image.new("L", (wide, wide), 0)
    pen = ImageDraw.Draw(image)
    pen.ellipse((24, 24, wide - 24, wide - 24), fill=235)
    for left in (80, 144):
        pen.ellipse((left, 72, left + 32, 112), fill=0)
    pen.chord((72, 112, wide - 72, 208), 0, 180, fill=0)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def chosen_pictures(count: int) -> Images:
    """The face, and the face moved by half a side, around the edges: up to four, for an attacker who would not be
    found out by always showing the same."""
    half = SIDE // 2
    moved = ((0, 0), (half, half), (0, half), (half, 0))[:count]
    return np.stack([np.roll(chosen_picture(), by, (0, 1)) for by in moved])


def scaled(images: Images) -> Float[Tensor, "image 1 32 32"]:
    """Images as the network takes them (`MEAN`, `DEVIATION`)."""
    return ((torch.tensor(images).float() / 255 - MEAN) / DEVIATION)[:, None]


MEAN, DEVIATION = 0.22, 0.32
"""Of the pixels of Fashion-MNIST with their border."""


def batches(count: int, source: torch.Generator) -> Iterable[Tensor]:
    """Every image once, in random order."""
    return (rows for rows in torch.randperm(count, generator=source).split(BATCH) if len(rows) > 1)


def trained(images: Images, labels: Int[np.ndarray, "image"], epochs: int, seed: int) -> Network:
    """A network that classifies the images, in evaluation mode."""
    source = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network().train()
    inputs, wanted = scaled(images), torch.from_numpy(labels)
    steps = epochs * -(-len(images) // BATCH)
    adam = torch.optim.Adam(network.parameters(), 3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 5e-3, steps + 1)
    for _ in range(epochs):
        for rows in batches(len(images), source):
            adam.zero_grad()
            F.cross_entropy(network(inputs[rows]), wanted[rows]).backward()
            adam.step()
            rate.step()
    return network.eval().requires_grad_(False)


def accuracy(network: nn.Module, images: Images, labels: Int[np.ndarray, "image"]) -> float:
    """Share of the images that it classifies rightly."""
    with torch.inference_mode():
        found = torch.cat([network(part).argmax(1) for part in scaled(images).split(512)])
    return float((found.numpy() == labels).mean())
