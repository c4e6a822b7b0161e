"""Images of other channels than red, green and blue: arrays in ``.npy`` files, and TIFF with as many bands or pages.

``black`` becomes 0, ``white`` 255, what is between keeps its place as float32, and what is not a number is 0. Where
neither is given they are those of the file's kind of numbers; bytes then stay bytes.
"""

from __future__ import annotations

import importlib
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Num, Shaped

from stores.errors import Status, UnreadableImage

NPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ARRAYS = ("npy",)
"""Endings of files that are images for a network of other channels, and often something else beside photographs."""
RANGES = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0, "float64": 1.0}
"""The value that is white where nothing is said, by kind of numbers; black is 0."""


@dataclass(frozen=True)
class Bands:
    """How many channels an image must have, and its values that are 0 and 1 of each, where they are given. Of one
    channel the image is grey, and has three that are alike."""

    channels: int = 3
    black: tuple[float, ...] = ()
    white: tuple[float, ...] = ()

    @property
    def photographs(self) -> bool:
        """Whether images are those that people look at, as they are."""
        return self.channels in (1, 3) and not self.black


RGB = Bands()


def is_array(data: bytes) -> bool:
    """Whether bytes begin as a ``.npy`` file does."""
    return data.startswith(NPY)


def is_tiff(data: bytes) -> bool:
    """Whether bytes begin as a TIFF does."""
    return data[:4] in TIFF


def npy_image(data: bytes, bands: Bands, max_pixels: int) -> Num[np.ndarray, "height width colour"]:
    """An array (row, column), (row, column, channel) or (channel, row, column), from 0 to 255; nothing in it is run.

    Raises `UnreadableImage` as `fitted` does, and for what is no array.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, kind = read_header(file)
        # not np.load, which takes the memory that a header asks for
        flat = np.frombuffer(data, kind, math.prod(shape), file.tell())
        array = flat.reshape(shape, order="F" if by_column else "C")
    except (ValueError, TypeError, OverflowError) as error:
        raise UnreadableImage(
            f"{len(data)} bytes are no plain .npy array ({error}): write it with numpy.save", Status.UNDECODABLE
        ) from error
    return fitted(array, bands, max_pixels)


def tiff_image(data: bytes, bands: Bands, max_pixels: int) -> Num[np.ndarray, "height width colour"]:
    """The first image of a TIFF with all of its bands, or its pages of one size, from 0 to 255.

    Raises `UnreadableImage` as `fitted` does, and where the package that reads it is missing.
    """
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ModuleNotFoundError:
        raise UnreadableImage(
            "TIFF of other channels needs the package tifffile: pip install 'vital-atlas[tiff]'", Status.UNDECODABLE
        ) from None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            if series.size > max_pixels * max(bands.channels, 3):
                raise _too_large(series.size, max_pixels)
            array, axes = series.asarray(), str(series.axes)
    except UnreadableImage:
        raise
    except Exception as error:  # whatever the damage leads to
        raise UnreadableImage(
            f"{len(data)} bytes cannot be decoded as TIFF ({' '.join(str(error).split())[:200]}); replace the file or "
            "leave it rejected",
            Status.UNDECODABLE,
        ) from error
    last = array.ndim == 3 and axes.endswith("YXS")
    return fitted(array, bands, max_pixels, last=last, first=array.ndim == 3 and axes.endswith("YX"))


def fitted(
    array: Shaped[np.ndarray, "..."], bands: Bands, max_pixels: int, first: bool = False, last: bool = False
) -> Num[np.ndarray, "height width colour"]:
    """An array as an image of as many channels as ``bands`` has, from 0 to 255. ``first`` or ``last`` says which axis
    they are; else it is the one that is as long.

    Raises `UnreadableImage`, with status ``OTHER_CHANNELS`` where there are others, or both axes are as long;
    ``TOO_LARGE``; or ``BEYOND_RANGE`` where nothing says which values are black and white.
    """
    wanted = (1, 3) if bands.channels == 1 else (bands.channels,)
    image, axes = (
        (array[..., None], (-1,)) if array.ndim == 2 else (array, (0,) if first else (-1,) if last else (0, -1))
    )
    where = [axis for axis in axes if image.ndim == 3 and image.shape[axis] in wanted]
    if len(where) != 1 or 0 in image.shape:
        which = "both its first and its last axis are" if len(where) > 1 else "neither its first nor its last axis is"
        raise UnreadableImage(
            f"an array of shape {array.shape} is no image of {bands.channels} channels, as {which} as long: give "
            "(row, column, channel) or (channel, row, column)",
            Status.OTHER_CHANNELS,
        )
    image = np.moveaxis(image, where[0], -1)
    if image.shape[0] * image.shape[1] > max_pixels:
        raise _too_large(image.shape[0] * image.shape[1], max_pixels)
    pixels = as_levels(image, bands)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 and bands.channels == 1 else pixels


def as_levels(image: Shaped[np.ndarray, "row column channel"], bands: Bands) -> Num[np.ndarray, "row column channel"]:
    """Values from 0, which is black, to 255, which is white: bytes of bytes, else float32; raises `UnreadableImage`
    where nothing says what they are."""
    kind = image.dtype.name
    if not bands.black and kind == "uint8":
        return np.ascontiguousarray(image)
    if image.dtype.kind not in "uifb" or (not bands.black and kind not in RANGES):
        raise UnreadableImage(
            f"values of {kind} have no range that is known: say which are black and white, as with --black 0 --white "
            "4095",
            Status.BEYOND_RANGE,
        )
    # a grey image has one channel of the three, which are alike
    black = np.array(bands.black[: image.shape[2]] or 0.0)
    white = np.array(bands.white[: image.shape[2]] or RANGES.get(kind, 1.0))
    share = (image.astype(np.float64) - black) / (white - black)
    known = share[np.isfinite(share)]
    if not bands.black and known.size and (known.min() < -0.001 or known.max() > 1.001):
        raise UnreadableImage(
            f"values of {kind} from {image[np.isfinite(share)].min():g} to {image[np.isfinite(share)].max():g} are not "
            "between 0 and 1: say which are black and white, as with --black 0 --white 10000",
            Status.BEYOND_RANGE,
        )
    made: np.ndarray = (np.nan_to_num(share, posinf=1.0, neginf=0.0).clip(0, 1) * 255).astype(np.float32)
    return made


def _too_large(pixels: int, most: int) -> UnreadableImage:
    return UnreadableImage(
        f"an image of {pixels} pixels is above the limit of {most}; make it smaller or raise it", Status.TOO_LARGE
    )
