"""How a step sees a picture: shifted, turned, enlarged, blurred, and the learning rate it moves with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vital.network.probe import CLASSES
from vital.settings import PictureSettings

REFERENCE_SIDE = 224
"""Side of a picture, in pixels, that lengths in settings are given for."""


def rate(step: int, settings: PictureSettings) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a cosine to zero (VITAL, supplement)."""
    warmup = min(settings.warmup, settings.steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.steps - warmup)))


def glimpses(settings: PictureSettings, classes: bool) -> Bool[np.ndarray, "step"]:
    """Steps of method ``vital`` that see a window of a class's picture, and are judged by the class's logit alone:
    targets are of whole references. Every second one, where there are windows; what names a class in its parts, and
    not only as a whole, names it to other networks, too (docs/baselines.md)."""
    every: np.ndarray = np.arange(settings.steps) % 2 == 1
    return every & (settings.method == "vital" and classes and settings.own_weight > 0 and settings.window[0] < 1)


def stream(seed: int, layer: str, neuron: int) -> np.random.Generator:
    """The random stream of one picture: from run seed, layer and neuron alone, never from its batch."""
    digest = hashlib.blake2b(f"{seed}/{layer}/{neuron}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class Draws:
    """What chance decides of a run: the noise that pictures begin as, and how each step moves and blurs them."""

    noise: Float[Tensor, "picture 3 side side"]
    shifts: Int[np.ndarray, "picture step 2"]
    """Down and right, in pixels."""
    blurs: Float[np.ndarray, "picture step"]
    """Deviation of a Gaussian, in pixels."""
    views: Float[np.ndarray, "picture step 2 3"] | None = None
    """The part of the picture that each step sees (`vital.pictures.views`); the whole where there is none."""
    places: Int[np.ndarray, "picture step 2"] | None = None
    """Where in the first noise the grain of each step is taken from."""


def draw(settings: PictureSettings, layer: str, neurons: Sequence[int]) -> Draws:
    """All draws of a run, each picture's from its own stream."""
    scale = settings.side / REFERENCE_SIDE
    reach = round(settings.jitter * scale)
    noise, shifts, blurs, views, places = [], [], [], [], []
    matching, classes = settings.method == "vital", layer == CLASSES
    viewed = settings.rotation > 0 or settings.zoom > 0 or settings.window[0] < 1
    viewed &= classes or not matching
    grained = settings.grain > 0 and (not matching or bool(glimpses(settings, classes).any()))
    for neuron in neurons:
        source = stream(settings.seed, layer, neuron)
        noise.append(source.standard_normal((3, settings.side, settings.side), np.float32))
        shifts.append(source.integers(-reach, reach, (settings.steps, 2), endpoint=True))
        blurs.append(source.uniform(0, settings.softness * scale, settings.steps))
        if viewed:
            whole = ~glimpses(settings, classes) if matching else None
            views.append(random_views(source, settings.steps, settings.rotation, settings.zoom, settings.window, whole))
        if grained:
            places.append(source.integers(0, settings.side, (settings.steps, 2)))
    return Draws(
        torch.from_numpy(np.stack(noise)),
        np.stack(shifts),
        np.stack(blurs),
        np.stack(views) if views else None,
        np.stack(places) if places else None,
    )


def blur(
    pictures: Float[Tensor, "picture 3 side side"], deviations: Float[Tensor, "picture"]
) -> Float[Tensor, "picture 3 side side"]:
    """Each picture, as if it repeated itself, under a Gaussian of its own deviation in pixels."""
    side = pictures.shape[-1]
    vertical = torch.fft.fftfreq(side, device=pictures.device, dtype=pictures.dtype)
    horizontal = torch.fft.rfftfreq(side, device=pictures.device, dtype=pictures.dtype)
    square = vertical[:, None] ** 2 + horizontal[None] ** 2
    kept = torch.exp(-2 * (torch.pi * deviations.to(pictures)[:, None, None, None]) ** 2 * square)
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(pictures) * kept, s=(side, side))
    return blurred


def shift(
    pictures: Float[Tensor, "picture 3 side side"], by: Int[np.ndarray, "picture 2"]
) -> Float[Tensor, "picture 3 side side"]:
    """Each picture rolled by its own (down, right)."""
    rolled = [
        picture.roll((int(down), int(right)), (1, 2)) for picture, (down, right) in zip(pictures, by, strict=True)
    ]
    return torch.stack(rolled).contiguous(memory_format=torch.channels_last)


def random_views(
    source: np.random.Generator,
    steps: int,
    rotation: float,
    zoom: float,
    window: tuple[float, float],
    whole: Bool[np.ndarray, "step"] | None = None,
) -> Float[np.ndarray, "step 2 3"]:
    """Affine maps from what is seen to the picture, both in -1..1: an angle up to ``rotation`` degrees, a scale
    within 1 ± ``zoom``, and a window of a random share of the side at a random place inside the picture; no window in
    steps that are ``whole``."""
    angle = np.deg2rad(source.uniform(-rotation, rotation, steps))
    share = source.uniform(*window, steps)
    if whole is not None:
        share[whole] = 1
    scale = share * source.uniform(1 - zoom, 1 + zoom, steps)
    centre = source.uniform(-1, 1, (steps, 2)) * (1 - share)[:, None]
    turned = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(steps, 2, 2)
    return np.concatenate([scale[:, None, None] * turned, centre[..., None]], -1)


def view(
    pictures: Float[Tensor, "picture 3 side side"], maps: Float[Tensor, "picture 2 3"]
) -> Float[Tensor, "picture 3 side side"]:
    """Each picture through its own affine map, bilinear; beyond the edge it is mirrored."""
    grid = F.affine_grid(maps.to(pictures), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
