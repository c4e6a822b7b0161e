"""How a run proceeds: learning rate over steps, and the random stream of each picture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vital.settings import PictureSettings

JITTER_SIDE = 224
"""Side of a picture, in pixels, that ``jitter`` is given for."""


def rate(step: int, settings: PictureSettings) -> float:
    """Learning rate as a share of its peak: linear warm-up, then a cosine to zero (VITAL, supplement)."""
    warmup = min(settings.warmup, settings.steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, settings.steps - warmup)))


def stream(seed: int, layer: str, neuron: int) -> np.random.Generator:
    """The random stream of one picture: from run seed, layer and neuron alone, never from its batch."""
    digest = hashlib.blake2b(f"{seed}/{layer}/{neuron}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def draw(
    settings: PictureSettings, layer: str, neurons: Sequence[int]
) -> tuple[Float[Tensor, "picture 3 side side"], Int[np.ndarray, "picture step 2"]]:
    """Noise to begin with, and the shifts of all steps (down, right; pixels)."""
    reach = round(settings.jitter * settings.side / JITTER_SIDE)
    noise, shifts = [], []
    for neuron in neurons:
        source = stream(settings.seed, layer, neuron)
        noise.append(source.standard_normal((3, settings.side, settings.side), np.float32))
        shifts.append(source.integers(-reach, reach, (settings.steps, 2), endpoint=True))
    return torch.from_numpy(np.stack(noise)), np.stack(shifts)


def shift(
    pictures: Float[Tensor, "picture 3 side side"], by: Int[np.ndarray, "picture 2"]
) -> Float[Tensor, "picture 3 side side"]:
    """Each picture rolled by its own (down, right)."""
    rolled = [
        picture.roll((int(down), int(right)), (1, 2)) for picture, (down, right) in zip(pictures, by, strict=True)
    ]
    return torch.stack(rolled).contiguous(memory_format=torch.channels_last)
