"""The colours and spectrum of images, as sums that merge with ``+``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor

from vital.measuring.exact import ExactSum, carried, total_of
from vital.measuring.rows import resample, site_levels, stored_levels

LOGIT_MARGIN = 0.02
"""Colours are kept this far from black and white when their logits are taken."""

LEVELS = 128
"""Most that are kept of an image's sorted colours."""

IN_CACHE = 8
"""Images taken together on a CPU."""


@dataclass(frozen=True)
class ColourDistribution:
    """Mean and covariance of the logits of a data set's colours (red, green, blue, or other channels, in 0..1)."""

    mean: Float[np.ndarray, "colour"]
    covariance: Float[np.ndarray, "colour colour"]

    def basis(self) -> Float[np.ndarray, "colour colour"]:
        """The symmetric square root of the covariance: independent unit colours become colours distributed like the
        data's."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return root


def grey(colours: int = 3) -> ColourDistribution:
    """No knowledge of colours: independent ones around a medium grey."""
    return ColourDistribution(np.zeros(colours), np.eye(colours))


@dataclass(frozen=True)
class ImageSums:
    """Sums over images of the amplitude spectrum (colour, row frequency, column frequency), of colour logits with their
    products, and of each colour's sorted values; each in the two parts of an exact sum, so that ``+`` gives the same
    bits in any order."""

    spectrum: Float[np.ndarray, "2 colour row column"]
    colour: Float[np.ndarray, "2 colour"]
    products: Float[np.ndarray, "2 colour colour"]
    rows: Float[np.ndarray, "2 colour level"]
    count: int

    def __add__(self, other: ImageSums) -> ImageSums:
        both = {name: carried(getattr(self, name) + getattr(other, name)) for name in PARTED}
        return ImageSums(**both, count=self.count + other.count)

    @classmethod
    def none(cls, side: int, colours: int = 3) -> ImageSums:
        """The sums of no image."""
        return ImageTotal(side, colours=colours).sums()

    @classmethod
    def of(cls, pixels: Num[Tensor, "image colour side side"]) -> ImageSums:
        """The sums of a batch."""
        total = ImageTotal(pixels.shape[2], pixels.device, pixels.shape[1])
        total.add(pixels)
        return total.sums()

    def stored(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """As a store keeps them: the coarse parts by their names, the fine ones as ``NAME_rest``, and the count."""
        parts = {f"{name}{rest}": getattr(self, name)[part] for name in PARTED for part, rest in enumerate(RESTS)}
        return {**parts, "count": np.asarray(self.count)}

    @classmethod
    def from_stored(cls, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> ImageSums:
        """The sums whose arrays `stored` gave, by their names."""
        parts = {name: np.stack([arrays[f"{name}{rest}"] for rest in RESTS]) for name in PARTED}
        return cls(**parts, count=int(arrays["count"]))

    def mean_spectrum(self) -> Float[np.ndarray, "colour row column"]:
        """Mean over the images of their amplitude spectrum."""
        mean: np.ndarray = total_of(self.spectrum) / max(self.count, 1)
        return mean

    def colours(self) -> ColourDistribution:
        """Mean and covariance of the colour logits."""
        mean = total_of(self.colour) / max(self.count, 1)
        return ColourDistribution(mean, total_of(self.products) / max(self.count, 1) - np.outer(mean, mean))


PARTED = tuple(part.name for part in fields(ImageSums) if part.name != "count")
RESTS = ("", "_rest")
"""What a part's name in a store ends in."""


class ImageTotal:
    """`ImageSums` while a pass goes on, on the device of the pixels; they are copied to the host once."""

    def __init__(self, side: int, device: torch.device | str = "cpu", colours: int = 3) -> None:
        self._spectrum = ExactSum((colours, side, side // 2 + 1), device)
        self._colour, self._products = ExactSum((colours,), device), ExactSum((colours, colours), device)
        self._sites, self._levels = site_levels(side * side), stored_levels(side * side, LEVELS)
        self._rows = ExactSum((colours, len(self._levels)), device)
        light = np.clip(np.arange(256) / 255, LOGIT_MARGIN, 1 - LOGIT_MARGIN)
        self._logits = torch.from_numpy(np.log(light / (1 - light)).astype(np.float32)).to(device)
        self._count = 0

    def add(self, pixels: Num[Tensor, "image colour side side"]) -> None:
        """Add a batch of images: on a CPU few at a time, which stay in its cache."""
        for part in pixels.split(IN_CACHE) if pixels.device.type == "cpu" else [pixels]:
            colours = part.to(torch.float32, copy=True).div_(255)
            waves = torch.fft.rfft2(colours.sub_(colours.mean((2, 3), keepdim=True)), norm="ortho")
            logits = self._logits_of(part)
            # less than half the time of abs(), whose care for overflow amplitudes do not need
            self._spectrum.add(waves.real.square().addcmul_(waves.imag, waves.imag).sqrt_())
            self._colour.add(logits.mean(2))
            self._products.add(logits @ logits.transpose(1, 2) / logits.shape[2])
            self._rows.add(resample(_sorted(part.flatten(2)).float(), self._sites, self._levels))
        self._count += len(pixels)

    def _logits_of(self, pixels: Num[Tensor, "image colour _ _"]) -> Float[Tensor, "image colour site"]:
        """Those of bytes are known; of what lies between two bytes they are computed."""
        if pixels.is_floating_point():
            return (pixels.double() / 255).clamp_(LOGIT_MARGIN, 1 - LOGIT_MARGIN).logit_().float().flatten(2)
        return self._logits.index_select(0, pixels.flatten().int()).view(*pixels.shape[:2], -1)

    def sums(self) -> ImageSums:
        """What was added, copied to the host."""
        spectrum, colour, products, rows = (
            part.numpy() for part in (self._spectrum, self._colour, self._products, self._rows)
        )
        return ImageSums(spectrum, colour, products, rows, self._count)


def _sorted(values: Num[Tensor, "image colour site"]) -> Num[Tensor, "image colour site"]:
    """Each row sorted; NumPy counts bytes instead of comparing them."""
    if values.device.type != "cpu":
        return values.sort(-1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=-1, kind="stable"))
