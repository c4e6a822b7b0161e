"""Images of other channels than three: which axis they are, what their values become, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stores.arrays.display import as_shown, shown_in_words
from stores.errors import Status, UnreadableImage, UnsuitableFolder
from stores.shards.bands import Bands
from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.folders import survey
from stores.shards.labels import image_of
from stores.shards.reading import ShardReader
from stores.shards.tar import TarMember
from stores.shards.writing import pack
from tests.flows.banded import npy, tiff

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 7, 5), np.uint8)
FIVE = Bands(5)


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        npy(PIXELS),
        npy(np.asfortranarray(PIXELS)),
        npy(np.moveaxis(PIXELS, -1, 0)),
        tiff(PIXELS, photometric="minisblack", planarconfig="contig"),
        tiff(np.moveaxis(PIXELS, -1, 0), photometric="minisblack", planarconfig="separate"),
        tiff(np.moveaxis(PIXELS, -1, 0), photometric="minisblack"),  # pages
        tiff(PIXELS, photometric="minisblack", planarconfig="contig", compression="zlib", bigtiff=True),
    ],
)
def test_channels_first_or_last_come_back_last(data: bytes) -> None:
    np.testing.assert_array_equal(decode(data, bands=FIVE), PIXELS)


def test_as_many_rows_as_channels_are_told_apart_by_a_tiff_and_refused_of_an_array() -> None:
    square = PIXELS[:5, :5]
    np.testing.assert_array_equal(
        decode(tiff(square, photometric="minisblack", planarconfig="contig"), bands=FIVE), square
    )
    with pytest.raises(UnreadableImage, match="as both its first and its last axis are as long") as caught:
        decode(npy(square), bands=FIVE)
    assert caught.value.status == Status.OTHER_CHANNELS


@pytest.mark.parametrize("channels", [2, 4])
def test_a_file_of_another_format_must_have_as_many_bands(channels: int) -> None:
    pixels = PIXELS[..., :channels]
    image = Image.fromarray(pixels, {2: "LA", 4: "RGBA"}[channels])
    np.testing.assert_array_equal(decode(saved(image, "PNG"), bands=Bands(channels)), pixels)
    with pytest.raises(UnreadableImage, match="is no image of 5 channels"):
        decode(saved(image, "PNG"), bands=FIVE)


@pytest.mark.parametrize(
    ("values", "bands", "expected"),
    [
        (np.array([0, 128, 255], np.uint8), Bands(1), [0, 128, 255]),
        (np.array([0, 257, 65535], np.uint16), Bands(1), [0, 1, 255]),
        (np.array([0, 0.5, 1, np.nan], np.float32), Bands(1), [0, 127.5, 255, 0]),
        (np.array([0, 300, 301], np.uint16), Bands(1), [0, 300 / 257, 301 / 257]),  # both within one byte
        (np.array([0, 0.25, 1], np.float16), Bands(1), [0, 63.75, 255]),
        (np.array([-1024, 0, 1024, 3071], np.int16), Bands(1, (-1024,) * 3, (1024,) * 3), [0, 127.5, 255, 255]),
        (np.array([0, 100], np.uint8), Bands(1, (100,) * 3, (0,) * 3), [255, 0]),  # inverted, as X-rays may be
    ],
)
def test_values_keep_their_place_between_black_and_white(
    values: np.ndarray, bands: Bands, expected: list[float]
) -> None:
    found = decode(npy(values[None]), bands=bands)
    assert found.shape == (1, len(values), 3)  # grey: three that are alike
    assert found.dtype == (np.float32 if bands.black or values.dtype != np.uint8 else np.uint8)
    np.testing.assert_allclose(found[0], np.array([[one] * 3 for one in expected]), rtol=1e-6)
    np.testing.assert_array_equal(decode(tiff(values[None]), bands=bands) if bands.black else found, found)


def test_each_channel_has_its_own_black_and_white() -> None:
    values = np.full((4, 3, 2), 50, np.uint16)
    found = decode(npy(values), bands=Bands(2, (0.0, 40.0), (100.0, 60.0)))
    assert found[0, 0].tolist() == [127.5, 127.5]
    assert decode(npy(values), bands=Bands(2, (0.0, 0.0), (50.0, 500.0)))[0, 0].tolist() == [255, 25.5]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0.0, 300.0]]), "values of float64 from 0 to 300 are not between 0 and 1"),
        (np.array([[0, 300]], np.int32), "values of int32 have no range that is known"),
    ],
)
def test_values_of_no_known_range_are_refused(values: np.ndarray, said: str) -> None:
    with pytest.raises(UnreadableImage, match=said) as caught:
        decode(npy(values), bands=Bands(1))
    assert caught.value.status == Status.BEYOND_RANGE


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1")


@pytest.mark.parametrize(
    "data",
    [
        b"\x93NUMPY",
        b"\x93NUMPY\x07\x00",
        npy(PIXELS)[:-1],
        npy(np.array([{}], object)),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 5), }\n"),
        header("no header"),
        b"II*\0 and no more",
        tiff(PIXELS, photometric="minisblack")[:60],
    ],
)
def test_damage_is_told_and_takes_no_memory(data: bytes) -> None:
    with pytest.raises(UnreadableImage) as caught:
        decode(data, bands=FIVE)
    assert caught.value.status == Status.UNDECODABLE


def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded() -> None:
    for data in (npy(np.zeros((40, 40, 5), np.uint8)), tiff(np.zeros((5, 40, 40), np.uint8), photometric="minisblack")):
        with pytest.raises(UnreadableImage) as caught:
            decode(data, 1000, FIVE)
        assert caught.value.status == Status.TOO_LARGE


def member(data: bytes = b"") -> TarMember:
    return TarMember(0, len(data), data)


@pytest.mark.parametrize(
    ("names", "photographs", "taken"),
    [
        (["jpg", "npy"], True, "jpg"),
        (["jpg", "npy"], False, "npy"),
        (["photo1.jpg", "embedding.npy"], True, "photo1.jpg"),
        (["npy", "tif"], False, "npy"),
        (["png"], False, "png"),
        (["left.npy", "right.npy"], False, None),
    ],
)
def test_an_array_beside_a_photograph_is_the_image_only_where_it_is_asked_for(
    names: list[str], photographs: bool, taken: str | None
) -> None:
    fields = {name: member(name.encode()) for name in names}
    found, status = image_of(fields, photographs)
    assert (found.data if found else None) == (taken.encode() if taken else None)
    assert status == (Status.OK if taken else Status.SEVERAL_IMAGES)


def write(folder: Path, **arrays: Any) -> Path:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_folders_of_arrays_are_read_and_packed(tmp_path: Path) -> None:
    for number, name in enumerate(("cloud", "field")):
        write(tmp_path / "bands" / name, **{f"{number}{row}": PIXELS + row for row in range(2)})
    np.save(tmp_path / "bands" / "labels.npy", np.zeros(4))  # beside class folders: no image
    packed = pack(tmp_path / "bands", tmp_path / "out")
    for shards in ([str(tmp_path / "bands")], [str(packed[0])]):
        samples = [sample for file in expand(shards) for sample in ShardReader(file, photographs=False)]
        assert [sample.label for sample in samples] == [0, 0, 1, 1]
        for sample in samples:
            assert decode(sample.image or b"", bands=FIVE).shape == PIXELS.shape


def test_arrays_beside_photographs_are_left_out_of_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", features=np.zeros(3))
    Image.fromarray(PIXELS[..., :3]).save(folder / "a.png")
    found = survey(folder)
    assert [path.name for path, _ in found.images] == ["a.png"]
    assert found.left_out == {"arrays beside images (.npy)": 1}
    with pytest.raises(UnsuitableFolder, match="holds no images"):
        survey(write(tmp_path / "none" / "empty").parent)


def test_what_is_shown_of_channels_is_said() -> None:
    np.testing.assert_array_equal(as_shown(PIXELS, (3, 2, 1)), PIXELS[..., [3, 2, 1]])
    np.testing.assert_array_equal(as_shown(PIXELS), PIXELS[..., :3])
    np.testing.assert_array_equal(as_shown(PIXELS[..., :2]), PIXELS[..., [0, 0, 0]])
    fine = as_shown(np.array([[0.4, 99.6, 255.0]], np.float32))
    assert fine.dtype == np.uint8
    assert fine.tolist() == [[0, 100, 255]]
    assert shown_in_words((), 3) == ""
    assert shown_in_words((2, 1, 0), 3) == "channels 2, 1, 0 of 3 as red, green, blue"
    assert shown_in_words((), 2) == "channel 0 of 2 as grey"
