"""Photographs from a folder, from files or from memory, as a network wants them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Num
from PIL import Image
from torch import Tensor

from vital.errors import UnsuitableInput
from vital.network.preprocessing import Preprocessing

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".avif", ".jp2")
"""Endings of the files that are taken from a folder."""
ARRAY = ".npy"

Photo: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"
Photos: TypeAlias = "Photo | Sequence[Photo]"
"""One photograph or several: files, folders of them, Pillow images, or arrays (row, column, 3) of uint8; or with as
many channels as the network has."""
Decoder: TypeAlias = Callable[[bytes], np.ndarray]
"""Reads a file's bytes as an image of as many channels as the network takes."""


@dataclass(frozen=True, eq=False)
class Photographs:
    """Photographs resized and cropped to a network's input; ``names`` are their files, or else their numbers."""

    names: tuple[str, ...]
    pixels: Num[Tensor, "image colour side side"]

    def __len__(self) -> int:
        return len(self.names)


def read_photos(photos: Photos, preprocessing: Preprocessing, decoder: Decoder | None = None) -> Photographs:
    """Photographs as ``preprocessing`` crops them. Of a folder all images in it and below it are taken, by name. EXIF
    orientation is ignored and alpha dropped, as for images in shards. Of other channels than colours files are read by
    ``decoder``, and arrays are taken.

    Raises:
        UnsuitableInput: there are none, or one cannot be read; it says which.
    """
    plain = preprocessing.channels in (1, 3) and not preprocessing.black
    endings = SUFFIXES if decoder is None or plain else (*SUFFIXES, ARRAY)
    given = _listed(photos, endings)
    if not given:
        raise UnsuitableInput("no photographs were given: give a folder, or a list of files, Pillow images or arrays")
    names = [str(one) if isinstance(one, (str, os.PathLike)) else str(number) for number, one in enumerate(given)]
    crops = []
    for number, one in enumerate(given):
        array = isinstance(one, (str, os.PathLike)) and Path(one).suffix.lower() == ARRAY
        image = _decoded(one, number, preprocessing.colours, decoder if array or not plain else None)
        if image.shape[2] != preprocessing.colours:
            raise UnsuitableInput(
                f"photograph {number} has {image.shape[2]} channels and the network takes {preprocessing.colours}: "
                f"give an array of uint8 with axes (row, column, {preprocessing.colours})"
            )
        crops.append(preprocessing.crop(image))
    return Photographs(tuple(names), torch.stack(crops))


def _listed(photos: Photos, endings: Sequence[str]) -> list[Photo]:
    if isinstance(photos, np.ndarray):
        given: Sequence[Photo] = list(photos) if photos.ndim == 4 else [photos]
    else:
        alone = isinstance(photos, (str, os.PathLike, Image.Image)) or not isinstance(photos, Iterable)
        given = [photos] if alone else photos  # type: ignore[list-item, assignment]
    return [photo for one in given for photo in _unfolded(one, endings)]


def _unfolded(photo: Photo, endings: Sequence[str]) -> Iterator[Photo]:
    if not isinstance(photo, (str, os.PathLike)) or not Path(photo).is_dir():
        yield photo
        return
    files = list(_images_below(Path(photo), endings))
    if not files:
        raise UnsuitableInput(
            f"the folder {os.fspath(photo)!r} holds no photograph: files ending in {', '.join(endings)} are taken"
        )
    yield from files


def _images_below(folder: Path, endings: Sequence[str]) -> Iterator[Photo]:
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in endings and not file.name.startswith(".") and file.is_file():
            yield file


def _decoded(photo: Photo, number: int, colours: int, decoder: Decoder | None) -> Num[np.ndarray, "row column colour"]:
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != colours or 0 in photo.shape:
            raise UnsuitableInput(
                f"photograph {number} is an array of {photo.dtype} with shape {photo.shape}: "
                f"uint8 of (row, column, {colours}) was expected, from 0 to 255"
            )
        return photo
    if isinstance(photo, Image.Image):
        return _colours(photo)
    if not isinstance(photo, (str, os.PathLike)):
        raise UnsuitableInput(
            f"photograph {number} is a {type(photo).__name__}: give a file, a Pillow image, or an array of uint8 with "
            "axes (row, column, 3)"
        )
    try:
        if decoder is not None:
            return decoder(Path(photo).read_bytes())
        with Image.open(photo) as image:
            return _colours(image)
    except FileNotFoundError:
        elsewhere = "is at an address" if "://" in os.fspath(photo) else "is not there"
        raise UnsuitableInput(
            f"photograph {number}, {os.fspath(photo)!r}, {elsewhere}: give the name of a file here, or of a folder"
        ) from None
    except Exception as error:  # readers raise whatever the damage leads to
        raise UnsuitableInput(
            f"photograph {number}, {os.fspath(photo)!r}, cannot be decoded "
            f"({(str(error).splitlines() or [type(error).__name__])[0]}): replace it or leave it out"
        ) from error


def _colours(image: Image.Image) -> Num[np.ndarray, "row column colour"]:
    if image.mode == "F":
        raise UnsuitableInput("its pixels are floating-point numbers, and nobody says which is white")
    if image.mode == "I" and image.format == "TIFF":
        raise UnsuitableInput("its pixels are whole numbers of 32 bits, and nobody says which is white")
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip instead of scale
        grey = (np.asarray(image).clip(0, 65535) / np.float32(257)).astype(np.float32)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("P", "PA"):  # dropping a palette's transparency in one step makes Pillow warn
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
