"""What a step does to a picture before the network runs: it is shifted, turned, enlarged, cropped, blurred. And the
learning rate of the step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def random_crop_steps(settings: PictureSettings, classes: bool) -> Bool[np.ndarray, "step"]:
    """Steps of method ``vital`` with a random crop of a class's picture. Their loss is the class's logit alone, since
    targets are of whole references. Every second one, where crops are asked for: what shows a class in its parts, and
    not only as a whole, shows it to other networks, too (docs/baselines.md)."""
    every: np.ndarray = np.arange(settings.steps) % 2 == 1
    asked = settings.method == "vital" and settings.weight_of_own(classes) > 0 and settings.window[0] < 1
    return every & (classes and asked)


def stream(seed: int, layer: str, neuron: int) -> np.random.Generator:
    """The random stream of one picture: from run seed, layer and neuron alone, never from its batch."""
    digest = hashlib.blake2b(f"{seed}/{layer}/{neuron}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


@dataclass(frozen=True)
class Draws:
    """What chance decides of a run: the noise that pictures begin as, and how each step moves and blurs them."""

    noise: Float[Tensor, "picture colour side side"]
    shifts: Int[np.ndarray, "picture step 2"]
    """Down and right, in pixels."""
    blurs: Float[np.ndarray, "picture step"]
    """Deviation of a Gaussian, in pixels."""
    warps: Float[np.ndarray, "picture step 2 3"] | None = None
    """The affine map of each step (`random_warps`); the identity where there is none."""
    noise_shifts: Int[np.ndarray, "picture step 2"] | None = None
    """The first noise, rolled down and right by this, is what each step adds; nothing where there is none."""


def draw(settings: PictureSettings, layer: str, neurons: Sequence[int], colours: int = 3) -> Draws:
    """All draws of a run, each picture's from its own stream."""
    scale = settings.side / REFERENCE_SIDE
    reach = round(settings.jitter * scale)
    noise, shifts, blurs, warps, noise_shifts = [], [], [], [], []
    matching, classes = settings.method == "vital", layer == CLASSES
    warped = settings.rotation > 0 or settings.zoom > 0 or settings.window[0] < 1
    warped &= classes or not matching
    noisy = settings.noise > 0 and (not matching or bool(random_crop_steps(settings, classes).any()))
    for neuron in neurons:
        source = stream(settings.seed, layer, neuron)
        noise.append(source.standard_normal((colours, settings.side, settings.side), np.float32))
        shifts.append(source.integers(-reach, reach, (settings.steps, 2), endpoint=True))
        blurs.append(source.uniform(0, settings.softness * scale, settings.steps))
        if warped:
            whole = ~random_crop_steps(settings, classes) if matching else None
            warps.append(random_warps(source, settings.steps, settings.rotation, settings.zoom, settings.window, whole))
        if noisy:
            noise_shifts.append(source.integers(0, settings.side, (settings.steps, 2)))
    return Draws(
        torch.from_numpy(np.stack(noise)),
        np.stack(shifts),
        np.stack(blurs),
        np.stack(warps) if warps else None,
        np.stack(noise_shifts) if noise_shifts else None,
    )


def blur(
    pictures: Float[Tensor, "picture colour side side"], deviations: Float[Tensor, "picture"]
) -> Float[Tensor, "picture colour side side"]:
    """Each picture, as if it repeated itself, under a Gaussian of its own deviation in pixels."""
    side = pictures.shape[-1]
    vertical = torch.fft.fftfreq(side, device=pictures.device, dtype=pictures.dtype)
    horizontal = torch.fft.rfftfreq(side, device=pictures.device, dtype=pictures.dtype)
    square = vertical[:, None] ** 2 + horizontal[None] ** 2
    kept = torch.exp(-2 * (torch.pi * deviations.to(pictures)[:, None, None, None]) ** 2 * square)
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(pictures) * kept, s=(side, side))
    return blurred


class _Shift(torch.autograd.Function):
    """Every pixel goes to one place, so the gradient is the shift back: a gather, too, and no sum over places."""

    @staticmethod
    def forward(ctx: Any, pictures: Tensor, by: Tensor) -> Tensor:
        ctx.save_for_backward(by)
        return _gathered(pictures, by)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (by,) = ctx.saved_tensors
        return _gathered(upstream, -by), None


def _gathered(pictures: Tensor, by: Tensor) -> Tensor:
    count, colours, side, _ = pictures.shape
    at = torch.arange(side, device=by.device)
    first = torch.arange(0, count * side, side, device=by.device)[:, None]
    rows, columns = first + (at - by[:, :1]) % side, (at - by[:, 1:]) % side
    pixels = torch.add(columns[:, None], rows[:, :, None], alpha=side)
    # Colours lie innermost, as convolutions want them; a pixel is then moved as a whole.
    moved = pictures.permute(0, 2, 3, 1).reshape(-1, colours).index_select(0, pixels.flatten())
    return moved.view(count, side, side, colours).permute(0, 3, 1, 2)


def shift(
    pictures: Float[Tensor, "picture colour side side"], by: Int[Tensor, "picture 2"]
) -> Float[Tensor, "picture colour side side"]:
    """Each picture rolled by its own (down, right), all in one operation.

    >>> shift(torch.arange(4.0).view(1, 1, 2, 2).expand(1, 3, 2, 2), torch.tensor([[0, 1]]))[0, 0]
    tensor([[1., 0.],
            [3., 2.]])
    """
    moved: Tensor = _Shift.apply(pictures, by)  # type: ignore[no-untyped-call]
    return moved


def random_warps(
    source: np.random.Generator,
    steps: int,
    rotation: float,
    zoom: float,
    window: tuple[float, float],
    whole: Bool[np.ndarray, "step"] | None = None,
) -> Float[np.ndarray, "step 2 3"]:
    """Affine maps from positions in the result to positions in the picture, both in -1..1: an angle up to ``rotation``
    degrees, a scale within 1 ± ``zoom``, and a random crop, whose side is a share of the picture's from ``window`` and
    which lies inside the picture before it is turned and scaled; no crop in steps that are ``whole``."""
    angle = np.deg2rad(source.uniform(-rotation, rotation, steps))
    share = source.uniform(*window, steps)
    if whole is not None:
        share[whole] = 1
    scale = share * source.uniform(1 - zoom, 1 + zoom, steps)
    centre = source.uniform(-1, 1, (steps, 2)) * (1 - share)[:, None]
    turned = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(steps, 2, 2)
    return np.concatenate([scale[:, None, None] * turned, centre[..., None]], -1)


def warp(
    pictures: Float[Tensor, "picture colour side side"], maps: Float[Tensor, "picture 2 3"]
) -> Float[Tensor, "picture colour side side"]:
    """Each picture through its own affine map, bilinear; beyond the edge it is mirrored."""
    grid = F.affine_grid(maps.to(pictures), list(pictures.shape), align_corners=False)
    if torch.are_deterministic_algorithms_enabled():  # on a GPU the other's gradient adds in any order
        return _bilinear(pictures, grid)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def _bilinear(
    pictures: Float[Tensor, "picture colour side side"], grid: Float[Tensor, "picture side side 2"]
) -> Float[Tensor, "picture colour side side"]:
    """As `torch.nn.functional.grid_sample` does it in `warp`, by gathering the four pixels around every position."""
    side = pictures.shape[-1]
    position = ((grid + 1) * side - 1) / 2
    mirrored = (position + 0.5).abs() % (2 * side)  # beyond an edge, which lies half a pixel outside, and back again
    position = (torch.minimum(mirrored, 2 * side - mirrored) - 0.5).clamp(0, side - 1)
    first = position.floor()
    share = position - first
    (column, row), (right, down) = first.long().unbind(-1), share[:, None].unbind(-1)
    flat = pictures.flatten(2)

    def pixels(rows: Tensor, columns: Tensor) -> Tensor:
        index = (rows.clamp(max=side - 1) * side + columns.clamp(max=side - 1)).flatten(1)
        return flat.gather(2, index[:, None].expand(-1, pictures.shape[1], -1)).view_as(pictures)

    above = torch.lerp(pixels(row, column), pixels(row, column + 1), right)
    below = torch.lerp(pixels(row + 1, column), pixels(row + 1, column + 1), right)
    return torch.lerp(above, below, down)
