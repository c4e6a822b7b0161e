import contextlib
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stores.errors import Status, UnreadableImage
from stores.shards.bands import Bands
from stores.shards.decoding import decode
from tests.flows.banded import tiff

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP", "TIFF", "JPEG2000"])
def test_lossless_formats_come_back_exactly(kind: str) -> None:
    np.testing.assert_array_equal(decode(saved(Image.fromarray(PIXELS), kind)), PIXELS)


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "RGB"), ("AVIF", "RGB")]
)
def test_lossy_formats_come_back_nearly(kind: str, mode: str) -> None:
    smooth = np.broadcast_to(np.array([200, 90, 30], np.uint8), (20, 30, 3))
    decoded = decode(saved(Image.fromarray(np.array(smooth)).convert(mode), kind))
    assert decoded.shape == (20, 30, 3)
    assert np.abs(decoded.astype(int) - smooth).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_greyscale_becomes_rgb(kind: str) -> None:
    decoded = decode(saved(Image.fromarray(np.full((5, 6), 77, np.uint8)), kind))
    np.testing.assert_array_equal(decoded, np.full((5, 6, 3), 77))


def test_palettes_opacity_and_sixteen_bits() -> None:
    red = Image.new("RGBA", (4, 3), (250, 0, 0, 9))
    np.testing.assert_array_equal(decode(saved(red, "PNG")), np.broadcast_to([250, 0, 0], (3, 4, 3)))
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(
        decode(saved(palette, "PNG", transparency=bytes(16))), np.asarray(palette.convert("RGB"))
    )
    deep = Image.fromarray(np.full((3, 4), 0x8040, np.uint16))
    np.testing.assert_allclose(decode(saved(deep, "PNG")), np.full((3, 4, 3), 0x8040 / 0xFFFF * 255), rtol=1e-6)


DEEP = np.random.default_rng(2).integers(0, 1 << 16, (5, 7, 4), np.uint16)


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits, as its specification says: Pillow writes none of colours."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows, columns, bands = pixels.shape
    header = struct.pack(">IIBBBBB", columns, rows, 16, {3: 2, 4: 6}[bands], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        png16(DEEP[..., :3]),
        png16(DEEP),
        *(
            tiff(DEEP[..., :3], photometric="rgb", byteorder=order, compression=compression)
            for order in "<>"
            for compression in (None, "zlib")
        ),
        tiff(np.ascontiguousarray(np.moveaxis(DEEP[..., :3], -1, 0)), photometric="rgb", planarconfig="separate"),
    ],
)
def test_colours_of_16_bits_keep_them(data: bytes) -> None:
    found = decode(data)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, DEEP[..., :3] / 65535 * 255, rtol=1e-6)


def test_four_channels_of_16_bits_and_a_stated_range() -> None:
    np.testing.assert_allclose(decode(png16(DEEP), bands=Bands(4)), DEEP / 65535 * 255, rtol=1e-6)
    found = decode(png16(DEEP[..., :3]), bands=Bands(3, (100.0,) * 3, (50000.0,) * 3))
    np.testing.assert_allclose(found, ((DEEP[..., :3] - 100.0) / 49900 * 255).clip(0, 255), rtol=1e-5, atol=1e-5)


def test_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(saved(Image.fromarray(PIXELS), "JPEG", exif=exif)).shape == (20, 30, 3)
    assert decode(saved(Image.fromarray(PIXELS), "PNG", exif=exif)).shape == (20, 30, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_size_is_bounded_before_decoding(kind: str) -> None:
    data = saved(Image.fromarray(PIXELS), kind)
    assert decode(data, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(UnreadableImage, match="30 × 20") as caught:
        decode(data, max_pixels=599)
    assert caught.value.status is Status.TOO_LARGE


def test_a_bomb_is_refused_without_a_warning() -> None:
    with pytest.raises(UnreadableImage) as caught:
        decode(saved(Image.new("1", (30000, 30000)), "PNG"))
    assert caught.value.status is Status.TOO_LARGE


def test_a_bomb_just_above_the_limit_makes_no_warning_of_pillow_s() -> None:
    """Pillow's own check warns between 89 and 179 million pixels."""
    with pytest.raises(UnreadableImage, match="10000 × 10000") as caught:
        decode(saved(Image.new("1", (10000, 10000)), "PNG"))
    assert caught.value.status is Status.TOO_LARGE


def test_a_webp_bomb_is_too_large() -> None:
    """A header alone: 16384 × 16384, the greatest WebP there is."""
    side = (16383).to_bytes(3, "little")
    chunk = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + side + side
    with pytest.raises(UnreadableImage) as caught:
        decode(b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk)
    assert caught.value.status is Status.TOO_LARGE


@pytest.mark.parametrize("kind", [np.int32, np.int16])
def test_whole_numbers_of_a_tiff_have_no_range(kind: type) -> None:
    """As of a scanner: of 0 to 200 a network would see black."""
    with pytest.raises(UnreadableImage, match="whole numbers of no known range"):
        decode(tiff(np.full((3, 4), 200, kind)))


def test_floating_point_pixels_have_no_range() -> None:
    with pytest.raises(UnreadableImage, match="floating-point") as caught:
        decode(saved(Image.fromarray(np.full((3, 4), 0.5, np.float32)), "PPM"))
    assert caught.value.status is Status.UNDECODABLE


def test_damage_that_libjpeg_forgives_is_forgiven(jpeg: Callable[..., bytes]) -> None:
    data = jpeg(90)
    # stray bytes before the next marker
    assert decode(data[:20] + b"\x00\x00\x00" + data[20:]).shape == (8, 12, 3)


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "PPM", "BMP", "TIFF", "AVIF", "JPEG2000"]), data=st.data())
def test_damaged_bytes_decode_or_are_rejected(kind: str, data: st.DataObject) -> None:
    content = bytearray(saved(Image.fromarray(PIXELS), kind))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[position] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(UnreadableImage):
        assert decode(bytes(content[:cut])).ndim == 3


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF"])
def test_what_is_no_image_is_undecodable(data: bytes) -> None:
    with pytest.raises(UnreadableImage) as caught:
        decode(data)
    assert caught.value.status is Status.UNDECODABLE
