"""From a decoded image to what a network gets: resized, the middle cut out, normalised.

Sizes and places are torchvision's (`torchvision.transforms.Resize`, `CenterCrop`): what weights were evaluated with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from PIL import Image
from torch import Tensor

PATCH = 64 / 224
"""Side of a reference patch as a share of the input's side."""
USUAL = 256 / 224
"""The shorter side of a resized image over the input's side, where the weights do not say otherwise."""

LUMINANCE = (0.299, 0.587, 0.114)
"""What red, green and blue add to the luminance (ITU-R BT.601, as Pillow's mode L)."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The deviation is what published methods count pixels in, so that photographs have a deviation of about 1."""
FAR = 16
"""A deviation that is smaller by more than this is no data set's: values are not normalised by it, but reach to 255."""

Images = Float[Tensor, "image colour row column"]
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]


@lru_cache(maxsize=32)
def _on_device(colour: tuple[float, ...], device: torch.device) -> Float[Tensor, "colour 1 1"]:
    """A number of each colour, copied to a device once: each copy makes the host wait for all that it has asked for."""
    with torch.inference_mode(False):  # it is kept, and later images may need a gradient
        return torch.tensor(colour, dtype=torch.float32, device=device).view(-1, 1, 1)


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for a network: its input's side in pixels, mean and deviation of each colour in 0..1,
    and how they are resized before the middle is cut out."""

    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    """The shorter side of the resized image in pixels; `USUAL` of the side where none is given."""
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    channels: int = 3
    """What the network takes: 3 colours; or (1) their luminance, whose mean and deviation stand three times; or as many
    channels of its own, of which there are no colours."""
    squash: bool = False
    """Whether both sides are resized to ``resize``, whatever the image's proportions."""
    black: tuple[float, ...] = ()
    """The value of a file that is 0 of each channel, and ``white`` the one that is 1; by default those of the file's
    kind of numbers: 0 and 255 of bytes, 65535 of 16 bits, 1 of floats."""
    white: tuple[float, ...] = ()
    shown: tuple[int, ...] = ()
    """The channels that people and judges are shown as red, green and blue, or one as grey; it changes no result."""

    @property
    def shown_channels(self) -> tuple[int, ...]:
        """The channels that are shown: those that were asked for, or the first three, or the first alone of two."""
        return self.shown or ((0, 1, 2) if self.colours >= 3 else (0,))

    @property
    def colours(self) -> int:
        """How many numbers a pixel of an image, and of a picture, has."""
        return 3 if self.channels == 1 else self.channels

    @property
    def shorter(self) -> int:
        """The shorter side of the resized image in pixels."""
        return self.resize or round(self.side * USUAL)

    @property
    def published_unit(self) -> tuple[float, ...]:
        """How many of the network's units make one that published methods count pixels in. It is 1 where images are
        normalised to a deviation of about 1, and more where colours reach further, as those to 255 do. There a step of
        the published length, or noise of the published strength, would change nothing that anybody sees."""
        if len(self.std) != len(IMAGENET_STD):  # nobody published what is usual of other channels
            return (1.0,) * len(self.std)
        return tuple(one / own if one > FAR * own else 1.0 for one, own in zip(IMAGENET_STD, self.std, strict=True))

    @property
    def counts_as_published(self) -> bool:
        """Whether the network's own units are those that published methods count pixels in."""
        return set(self.published_unit) == {1.0}

    def to_published(self, images: Images) -> Images:
        """Images in the published unit instead of the network's; the same images where these are one."""
        if self.counts_as_published:
            return images
        return images / _on_device(self.published_unit, images.device).to(images.dtype)

    def from_published(self, images: Images) -> Images:
        """The other way round."""
        if self.counts_as_published:
            return images
        return images * _on_device(self.published_unit, images.device).to(images.dtype)

    def at(self, side: int) -> Preprocessing:
        """The same for another side of the input, which sees as much of an image."""
        resize = self.resize and max(1, round(self.resize * side / self.side))
        return replace(self, side=side, resize=resize)

    def of_channels(self, channels: int) -> Preprocessing:
        """The same for a network that takes so many: of one, mean and deviation are those of the luminance."""
        if channels != 1:
            return replace(self, channels=channels)
        mean, std = (sum(w * part for w, part in zip(LUMINANCE, parts, strict=True)) for parts in (self.mean, self.std))
        return replace(self, channels=channels, mean=(mean,) * 3, std=(std,) * 3)

    def identity(self) -> dict[str, object]:
        """What makes two preprocessings the same, by name."""
        return {
            "input_size": self.side,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.shorter,
            "interpolation": self.interpolation,
            "antialias": self.antialias,
            "squash": self.squash,
            "channels": self.channels,
            **({"black": list(self.black), "white": list(self.white)} if self.black else {}),
        }

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `identity`; other fields may be among them, as in what a store was made from."""
        rest = {name: identity[name] for name in ("resize", "interpolation", "antialias", "channels", "squash")}
        rest |= {name: tuple(identity.get(name, ())) for name in ("black", "white")}
        return cls(identity["input_size"], tuple(identity["mean"]), tuple(identity["std"]), **rest)

    def crop(self, image: Num[np.ndarray, "row column colour"]) -> Num[Tensor, "colour side side"]:
        """One decoded image at the input's size: resized, the middle cut out; black where it does not reach. Bytes stay
        bytes, as the weights were evaluated; what is finer, as float32 from 0 to 255, is not rounded."""
        return self.crop_decoded(torch.from_numpy(np.array(image)).permute(2, 0, 1))

    def crop_decoded(self, pixels: Num[Tensor, "colour row column"]) -> Num[Tensor, "colour side side"]:
        """The same of an image on any device; a GPU rounds otherwise, so that a pixel may differ by one step."""
        rows, columns = pixels.shape[1:]
        shorter, short = self.shorter, min(rows, columns)
        size = (shorter, shorter) if self.squash else (shorter * rows // short, shorter * columns // short)
        if size != (rows, columns):
            pixels = self._resized(pixels, size)
        if min(size) < self.side:
            missing = [max(self.side - length, 0) for length in size]
            pixels = F.pad(pixels, [part for gap in reversed(missing) for part in (gap // 2, gap - gap // 2)])
        top, left = (round((length - self.side) / 2) for length in pixels.shape[1:])
        return pixels[:, top : top + self.side, left : left + self.side]

    def _resized(self, pixels: Num[Tensor, "colour _ _"], size: tuple[int, int]) -> Num[Tensor, "colour _ _"]:
        if self.interpolation not in ("bilinear", "bicubic"):
            filter_ = Image.Resampling[self.interpolation.upper()]
            each = [Image.fromarray(one).resize(size[::-1], filter_) for one in pixels.numpy(force=True)]
            return torch.from_numpy(np.stack([np.asarray(one) for one in each])).clamp_(0, 255).to(pixels.device)
        if self.antialias and pixels.device.type == "cpu" and not pixels.is_floating_point():  # a GPU resizes no bytes
            return F.interpolate(pixels[None], size, mode=self.interpolation, antialias=True)[0]
        return self._smooth(pixels, size)

    def _smooth(self, pixels: Num[Tensor, "colour _ _"], size: tuple[int, int]) -> Num[Tensor, "colour _ _"]:
        smooth = F.interpolate(pixels[None].float(), size, mode=self.interpolation, antialias=self.antialias)[0]
        smooth = smooth.clamp_(0, 255)  # bicubic goes beyond
        return smooth if pixels.is_floating_point() else smooth.round_().byte()

    def normalise(self, pixels: Num[Tensor, "image colour row column"]) -> Float[Tensor, "image colour row column"]:
        """Bytes, or what lies between two of them, as the network wants them, channels last in memory."""
        mean, std = (_on_device(part, pixels.device) for part in (self.mean, self.std))
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
        self, image: Num[Tensor, "colour side side"], box: Int[np.ndarray, "4"] | Sequence[int]
    ) -> Num[Tensor, "colour side side"]:
        """A patch of a cropped image, resized to the input."""
        top, left, height, width = (int(edge) for edge in box)
        if (height, width) == (self.side, self.side):
            return image
        part = image[None, :, top : top + height, left : left + width]
        return F.interpolate(part, (self.side, self.side), mode="bilinear", antialias=True)[0]
