"""Pictures as a browser wants them: a file each, the opacity beside it, and sheets of small ones for the wall."""

import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image

PICTURE_QUALITY = 88
MASK_QUALITY = 60
TILES = {"small": (40, 76), "middle": (112, 80)}
"""Side of a tile in pixels and quality, of the sheet for a far view and of that for the usual one."""
ACROSS = 8
"""Tiles in a sheet's row; a sheet is a square of them."""
PER_SHEET = ACROSS * ACROSS


def webp(image: Image.Image, quality: int) -> bytes:
    """The image as a WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def picture_file(pixels: UInt8[np.ndarray, "side side 3"]) -> bytes:
    """The picture at full size, opaque: what the opacity hides can still be looked at."""
    return webp(Image.fromarray(pixels), PICTURE_QUALITY)


def mask_file(alpha: UInt8[np.ndarray, "side side"]) -> bytes:
    """The opacity as a grey image."""
    return webp(Image.fromarray(alpha), MASK_QUALITY)


def sheet_files(
    pictures: Mapping[int, UInt8[np.ndarray, "side side 3"]],
) -> dict[str, bytes]:
    """Sheets of at most `PER_SHEET` pictures by size, each at its place of the sheet; other places stay grey."""
    sheets = {name: Image.new("RGB", (side * ACROSS,) * 2, (128, 128, 128)) for name, (side, _) in TILES.items()}
    for place, pixels in sorted(pictures.items()):
        image = Image.fromarray(pixels)
        for name, (side, _) in TILES.items():
            small = image.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
            sheets[name].paste(small, (place % ACROSS * side, place // ACROSS * side))
    return {name: webp(sheet, TILES[name][1]) for name, sheet in sheets.items()}
