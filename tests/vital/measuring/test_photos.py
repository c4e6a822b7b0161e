"""Photographs from folders, files and memory: the same pixels, and a sentence for each that will not do."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stores.shards.decoding import decode
from vital.errors import UnsuitableInput
from vital.measuring.photos import Photo, read_photos
from vital.network.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(32, (0.5,) * 3, (0.25,) * 3)


def some(seed: int, rows: int = 40, columns: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


def in_tiff(pixels: np.ndarray) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    return Image.open(buffer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs, one of them in a sub-folder, beside what is none."""
    (tmp_path / "inner").mkdir()
    for seed, name in enumerate(("b.png", "inner/c.PNG", "a.png")):
        Image.fromarray(some(seed)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photograph")
    (tmp_path / "._a.png").write_bytes(b"left behind by another system")
    return tmp_path


def test_a_folder_files_images_and_arrays_give_the_same_pixels(folder: Path) -> None:
    expected = torch.stack([PREPROCESSING.crop(some(seed)) for seed in (2, 0, 1)])
    files = [folder / "a.png", str(folder / "b.png"), folder / "inner" / "c.PNG"]
    arrays = [some(2), some(0), some(1)]
    images = [Image.fromarray(one) for one in arrays]
    kinds = [folder, str(folder), files, arrays, images, np.stack(arrays), (files[0], arrays[1], images[2])]
    for given in (*kinds, (*files[:2], folder / "inner")):  # a folder among files
        assert torch.equal(read_photos(given, PREPROCESSING).pixels, expected)  # type: ignore[arg-type]
    assert read_photos(folder, PREPROCESSING).names == tuple(map(str, files))
    assert read_photos(images, PREPROCESSING).names == ("0", "1", "2")


def test_one_photograph_needs_no_list(folder: Path) -> None:
    for given in (folder / "b.png", some(0), Image.fromarray(some(0))):
        photographs = read_photos(given, PREPROCESSING)
        assert len(photographs) == 1
        assert torch.equal(photographs.pixels[0], PREPROCESSING.crop(some(0)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_pixels_becomes_the_colours_that_shards_give(mode: str, tmp_path: Path) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 1 << 16, (40, 40), np.uint16))
    else:
        image = Image.fromarray(some(0)).convert(mode)
    file = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    image.save(file)
    expected = PREPROCESSING.crop(decode(file.read_bytes()))
    assert torch.equal(read_photos([file], PREPROCESSING).pixels[0], expected)
    with Image.open(file) as opened:
        assert torch.equal(read_photos([opened], PREPROCESSING).pixels[0], expected)


def test_the_orientation_that_a_camera_noted_is_ignored_as_in_shards(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(some(0, 40, 60)).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_photos(tmp_path, PREPROCESSING).pixels[0], PREPROCESSING.crop(some(0, 40, 60)))


def broken() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(some(0)).save(buffer, "png")
    return buffer.getvalue()[:200]


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([], "no photographs were given: give a folder"),
        ([some(0), "missing.jpg"], r"photograph 1, 'missing\.jpg', is not there: give the name"),
        ([some(0), some(1) / 255], r"photograph 1 is an array of float64 with shape \(40, 50, 3\): uint8 of \(row"),
        ([some(0)[..., 0]], r"photograph 0 is an array of uint8 with shape \(40, 50\)"),
        ([some(0).transpose(2, 0, 1)], r"shape \(3, 40, 50\)"),
        (np.empty((2, 0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (["https://lab.example/cat.jpg"], "is at an address: give the name of a file here"),
        ([in_tiff(np.zeros((4, 4), np.int32))], "whole numbers of 32 bits, and nobody says which is white"),
        ([Image.fromarray(np.zeros((4, 4), np.float32))], "floating-point numbers, and nobody says which is white"),
    ],
    ids=["none", "missing", "floats", "grey", "channels first", "empty", "address", "scanned", "grey floats"],
)
def test_what_is_no_photograph_is_named(photos: list[Photo], message: str) -> None:
    with pytest.raises(UnsuitableInput, match=message) as caught:
        read_photos(photos, PREPROCESSING)
    assert "\n" not in str(caught.value)


def test_broken_files_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableInput, match=r"folder .* holds no photograph: files ending in \.jpg, .* are taken"):
        read_photos(tmp_path, PREPROCESSING)
    (tmp_path / "broken.png").write_bytes(broken())
    with pytest.raises(UnsuitableInput, match=r"photograph 0, '.*broken\.png', cannot be decoded \(.+\): replace it"):
        read_photos(tmp_path, PREPROCESSING)
    (tmp_path / "broken.png").write_bytes(b"words")
    with pytest.raises(UnsuitableInput, match=r"broken\.png', cannot be decoded"):
        read_photos([tmp_path / "broken.png"], PREPROCESSING)
