"""The colours and spectrum of images, as sums that merge with ``+``."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vital.measuring.sums import joined_in_order

LOGIT_MARGIN = 0.02
"""Colours are kept this far from black and white when their logits are taken."""


@dataclass(frozen=True)
class ColourDistribution:
    """Mean and covariance of the logits of a data set's colours (red, green, blue in 0..1)."""

    mean: Float[np.ndarray, "3"]
    covariance: Float[np.ndarray, "3 3"]

    def basis(self) -> Float[np.ndarray, "3 3"]:
        """The symmetric square root of the covariance: independent unit colours become colours distributed like the
        data's."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return root


GREY = ColourDistribution(np.zeros(3), np.eye(3))
"""No knowledge of colours: independent ones around a medium grey."""


@dataclass(frozen=True)
class ImageSums:
    """Sums over images of the amplitude spectrum (3, row frequency, column frequency), and of colour logits with
    their products."""

    spectrum: Float[np.ndarray, "3 row column"]
    colour: Float[np.ndarray, "3"]
    products: Float[np.ndarray, "3 3"]
    count: int

    def __add__(self, other: ImageSums) -> ImageSums:
        return ImageSums(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    @classmethod
    def none(cls, side: int) -> ImageSums:
        """The sums of no image."""
        return cls(np.zeros((3, side, side // 2 + 1)), np.zeros(3), np.zeros((3, 3)), 0)

    @classmethod
    def of(cls, pixels: UInt8[Tensor, "image 3 side side"]) -> ImageSums:
        """The sums of a batch, one image added after the other, so that they do not depend on how images were
        batched."""
        colours = pixels.float() / 255
        amplitudes = torch.fft.rfft2(colours - colours.mean((2, 3), keepdim=True), norm="ortho").abs()
        logits = torch.logit(colours.clamp(LOGIT_MARGIN, 1 - LOGIT_MARGIN)).flatten(2)
        products = logits @ logits.transpose(1, 2) / logits.shape[2]
        return cls(joined_in_order(amplitudes), joined_in_order(logits.mean(2)), joined_in_order(products), len(pixels))

    def colours(self) -> ColourDistribution:
        """Mean and covariance of the colour logits."""
        mean = self.colour / max(self.count, 1)
        return ColourDistribution(mean, self.products / max(self.count, 1) - np.outer(mean, mean))
