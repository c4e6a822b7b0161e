"""Bytes to pixels, with a bound on the size before anything is decoded.

Pixels are bytes where the file has them. Where it has more, as PNG and TIFF of 16 bits, they are float32 between 0 and
255, and nothing is rounded, save of colour PPM of 16 bits, of which Pillow keeps the upper 8.

JPEG goes through simplejpeg, the rest through Pillow. EXIF orientation is ignored by both, save of TIFF, which Pillow
turns when it reads it: networks were trained on the pixels as they lie in the file. Alpha is dropped; greyscale and
palettes become RGB; of an animation the first frame counts. For networks of other channels `stores.shards.bands` reads
arrays and TIFF, and a file of another format must have as many bands.
"""

import io
import sys
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import Num, UInt8, UInt16
from PIL import AvifImagePlugin, Image, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin

from stores.errors import Status, UnreadableImage
from stores.shards.bands import RGB, Bands, fitted, is_array, is_tiff, npy_image, tiff_image

FORMATS = ("JPEG", "PNG", "WEBP", "PPM", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
"""What may be in a shard, as Pillow calls it; nobody puts its other formats there."""

# register these formats, and none of the forty others
Image.preinit()
_REGISTERED = (AvifImagePlugin, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin)

OTHER_BYTE = {f"{mode};16B": f"{mode};16L" for mode in ("RGB", "RGBA")}
OTHER_BYTE |= {low: high for high, low in OTHER_BYTE.items()}
OTHER_BYTE |= {f"{mode};16N": f"{mode};16{'B' if sys.byteorder == 'little' else 'L'}" for mode in ("RGB", "RGBA")}
"""Pillow has no colours of 16 bits: it reads one byte of each value by the first of these names, the other by the
second."""

SUBTRACTIVE, JPEG = {"CMYK", "YCCK"}, b"\xff\xd8\xff"


def decode(data: bytes, max_pixels: int = 64_000_000, bands: Bands = RGB) -> Num[np.ndarray, "height width colour"]:
    """Pixels of an image in RGB, or in as many channels as ``bands`` has, from 0 to 255: uint8, or float32 of a file
    that holds more than bytes.

    Raises:
        UnreadableImage: with status ``UNDECODABLE``, or ``TOO_LARGE`` for more than ``max_pixels`` pixels; of other
            channels as `stores.shards.bands.fitted` says.
    """
    if is_array(data):
        return npy_image(data, bands, max_pixels)
    if not bands.photographs and is_tiff(data):
        return tiff_image(data, bands, max_pixels)
    if not bands.photographs:
        return _decode_other(data, max_pixels, bands)
    if data.startswith(JPEG):
        pixels = _decode_jpeg(data, max_pixels)
        if pixels is not None:
            return pixels
    return _decode_other(data, max_pixels)


def _decode_jpeg(data: bytes, max_pixels: int) -> UInt8[np.ndarray, "height width colour"] | None:
    """None where Pillow has to try: inks instead of light, or flaws that libjpeg only warns about."""
    try:
        if jpeg_size(data, max_pixels) is None:
            return None
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"))
    except ValueError:
        return None


def jpeg_size(data: bytes, max_pixels: int = 64_000_000) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, before it is decoded; None where another decoder has to try: it is no JPEG, or has
    inks instead of light.

    Raises:
        UnreadableImage: with status ``TOO_LARGE`` for more than ``max_pixels`` pixels.
    """
    if not data.startswith(JPEG):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _bound(int(height), int(width), max_pixels)
    return None if str(colours).upper() in SUBTRACTIVE else (int(height), int(width))


def format_of(data: bytes) -> str | None:
    """The one of `FORMATS` that the first bytes announce, whatever the file's name is."""
    for name in FORMATS:
        _, accepts = Image.OPEN[name]
        if accepts is not None and accepts(data[:16]):
            return name
    return None


def _decode_other(data: bytes, max_pixels: int, bands: Bands = RGB) -> Num[np.ndarray, "height width colour"]:
    kind = format_of(data)
    if kind is None:
        raise UnreadableImage(
            f"{len(data)} bytes are no image of a known format; give JPEG, PNG, WebP, TIFF, AVIF, PPM, GIF, BMP "
            "or JPEG 2000",
            Status.UNDECODABLE,
        )
    try:
        # the format's own reader, not Image.open: that has a limit of its own for the whole process, which warns of
        # what is refused here, and it keeps to itself what is wrong with a header
        with Image.OPEN[kind][0](io.BytesIO(data), "") as image:
            _bound(image.height, image.width, max_pixels)
            if _planes_of_16_bits(image):
                return tiff_image(data, bands, max_pixels)
            deep = any(_raw_mode(tile) in OTHER_BYTE for tile in image.tile)
            image.load()
            if bands.photographs and not deep:
                return _rgb(image)
            values = _sixteen(image, kind, data) if deep else _banded(image, bands)
            return fitted(
                values[..., :3] if deep and bands.channels in (1, 3) else values, bands, max_pixels, last=True
            )
    except (UnreadableImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        # of WebP, whose reader checks the size before it can be asked for it
        raise UnreadableImage(f"an image is far too large ({error}); make it smaller", Status.TOO_LARGE) from error
    except Exception as error:
        # Pillow's readers raise whatever the damage leads to: OSError, SyntaxError, struct.error, IndexError,
        # zlib.error, …
        raise UnreadableImage(
            f"{len(data)} bytes cannot be decoded as {kind} ({error}); replace the file or leave it rejected",
            Status.UNDECODABLE,
        ) from error


def _banded(image: Image.Image, bands: Bands) -> np.ndarray:
    """All the bands that a file has; of three the colours of a palette, and without opacity."""
    if bands.channels in (1, 3) and not image.mode.startswith(("I", "F", "L")):
        image = image.convert("RGB")
    return np.asarray(image)


def _raw_mode(tile: Any) -> str:
    return str(tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0])


def _planes_of_16_bits(image: Image.Image) -> bool:
    """Whether this is a TIFF that Pillow reads wrongly, and says nothing."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    bits, apart = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,)), TiffImagePlugin.PLANAR_CONFIGURATION
    return len(bits) > 1 and max(bits) > 8 and image.tag_v2.get(apart, 1) == 2


def _sixteen(image: Image.Image, kind: str, data: bytes) -> UInt16[np.ndarray, "height width band"]:
    """All bits of an image that was loaded, and of which Pillow keeps one byte of two."""
    with Image.OPEN[kind][0](io.BytesIO(data), "") as again:
        again.tile = [tile._replace(args=_other_byte(tile.args)) for tile in again.tile]
        again.load()
        made: np.ndarray = np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)
    return made


def _other_byte(args: Any) -> Any:
    return OTHER_BYTE[args] if isinstance(args, str) else (OTHER_BYTE[args[0]], *args[1:])


def _rgb(image: Image.Image) -> Num[np.ndarray, "height width colour"]:
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("its pixels are whole numbers of no known range")
    if image.mode.startswith("I"):
        # 16 bits per pixel, which Pillow would clip instead of scale
        grey = (np.asarray(image).clip(0, 65535) / np.float32(257)).astype(np.float32)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no known range")
    if image.mode in {"P", "PA"} and "transparency" in image.info:
        # dropping a palette's transparency in one step makes Pillow warn
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _bound(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise UnreadableImage(
            f"an image of {width} × {height} pixels is above the limit of {max_pixels}; make it smaller or raise it",
            Status.TOO_LARGE,
        )
