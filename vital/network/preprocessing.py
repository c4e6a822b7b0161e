"""From a decoded image to what a network gets: shorter side to 256/224 of the input's side, centre crop,
normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num, UInt8
from torch import Tensor

PATCH = 64 / 224
"""Side of a reference patch as a share of the input's side."""


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for a network: its input's side in pixels, mean and deviation of each colour in 0..1."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def crop(self, image: UInt8[np.ndarray, "row column 3"]) -> UInt8[Tensor, "3 side side"]:
        """One decoded image at the input's size: shorter side resized (antialiased bilinear), centre cropped."""
        return self.crop_decoded(torch.from_numpy(np.array(image)).permute(2, 0, 1))

    def crop_decoded(self, image: UInt8[Tensor, "3 row column"]) -> UInt8[Tensor, "3 side side"]:
        """The same of an image on any device; a GPU rounds otherwise, so that a pixel may differ by one step."""
        pixels = image[None]
        rows, columns = image.shape[1:]
        shorter = round(self.side * 256 / 224)
        scale = shorter / min(rows, columns)
        size = (max(shorter, round(rows * scale)), max(shorter, round(columns * scale)))
        if size != (rows, columns):
            # a GPU resizes no bytes
            exact = pixels if pixels.device.type == "cpu" else pixels.float()
            resized = F.interpolate(exact, size, mode="bilinear", antialias=True)
            pixels = resized if resized.dtype == torch.uint8 else resized.round_().clamp_(0, 255).to(torch.uint8)
        top, left = (size[0] - self.side) // 2, (size[1] - self.side) // 2
        return pixels[0, :, top : top + self.side, left : left + self.side]

    def normalise(self, pixels: Num[Tensor, "image 3 row column"]) -> Float[Tensor, "image 3 row column"]:
        """Bytes, or what lies between two of them, as the network wants them, channels last in memory."""
        mean, std = (torch.tensor(part, device=pixels.device).view(3, 1, 1) for part in (self.mean, self.std))
        return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def patch_side(self) -> int:
        """Side of a patch in pixels of the input."""
        return max(1, round(self.side * PATCH))

    def box(self, site: int, sites: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the patch around a site of a square map, shifted to stay inside the input.

        >>> Preprocessing(224, (0, 0, 0), (1, 1, 1)).box(24, 49)
        (80, 80, 64, 64)
        """
        across = round(sites**0.5)
        size = self.patch_side()
        corner = [
            min(max(int((index + 0.5) * self.side / across - size / 2), 0), self.side - size)
            for index in divmod(site, across)
        ]
        return corner[0], corner[1], size, size

    def boxes(self, sites: int) -> Int[np.ndarray, "site 4"]:
        """The box that a neuron's evidence at each site of a map is cut out by: the patch around the site; all of the
        input where the sites are no square map, and for a single site, which sees the whole image and not its middle.

        >>> Preprocessing(224, (0, 0, 0), (1, 1, 1)).boxes(1)
        array([[  0,   0, 224, 224]], dtype=int32)
        """
        whole, square = (0, 0, self.side, self.side), sites > 1 and round(sites**0.5) ** 2 == sites
        return np.array([self.box(site, sites) if square else whole for site in range(sites)], np.int32)

    def cut(
        self, image: UInt8[Tensor, "3 side side"], box: Int[np.ndarray, "4"] | Sequence[int]
    ) -> UInt8[Tensor, "3 side side"]:
        """A patch of a cropped image, resized to the input."""
        top, left, height, width = (int(edge) for edge in box)
        if (height, width) == (self.side, self.side):
            return image
        part = image[None, :, top : top + height, left : left + width]
        return F.interpolate(part, (self.side, self.side), mode="bilinear", antialias=True)[0]
