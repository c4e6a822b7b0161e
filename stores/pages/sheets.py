"""Pictures as files: single ones, the sheets of the wall, and contact sheets for a README or a first look."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from stores.arrays.display import in_line

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


def picture_file(pixels: UInt8[np.ndarray, "side side colour"]) -> bytes:
    """The picture at full size, opaque: what the opacity hides can still be looked at."""
    return webp(Image.fromarray(pixels), PICTURE_QUALITY)


def mask_file(alpha: UInt8[np.ndarray, "side side"]) -> bytes:
    """The opacity as a grey image."""
    return webp(Image.fromarray(alpha), MASK_QUALITY)


def maps_file(maps: UInt8[np.ndarray, "photo row column"]) -> bytes:
    """Small maps side by side as a grey image, without loss: a blur would move what is bright."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(maps), axis=1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def sheet_files(
    pictures: Mapping[int, UInt8[np.ndarray, "side side colour"]],
) -> dict[str, bytes]:
    """Sheets of at most `PER_SHEET` pictures by size, each at its position of the sheet; other positions stay grey."""
    sheets = {name: Image.new("RGB", (side * ACROSS,) * 2, (128, 128, 128)) for name, (side, _) in TILES.items()}
    for position, pixels in sorted(pictures.items()):
        image = Image.fromarray(pixels)
        for name, (side, _) in TILES.items():
            small = image.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
            sheets[name].paste(small, (position % ACROSS * side, position // ACROSS * side))
    return {name: webp(sheet, TILES[name][1]) for name, sheet in sheets.items()}


PAGE = (251, 250, 248)
INK = (29, 28, 26)
QUIET = (119, 115, 107)
WELL = (241, 239, 234)


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet with its caption, and a photograph beside it, or None.

    ``box`` is outlined on the photograph: (left, top, right, bottom), fractions of it.
    """

    name: str
    number: str
    pixels: UInt8[np.ndarray, "side side colour"]
    photo: UInt8[np.ndarray, "height width 3"] | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Grid:
    """How cells lie on a sheet."""

    columns: int = 4
    side: int = 224
    """Of a picture, in pixels."""
    gap: int = 28
    """Between cells, in pixels."""
    paired: bool = False
    """Whether there is room for a photograph right of each picture."""


def contact_sheet(cells: Iterable[Cell], count: int, grid: Grid = Grid(), title: str = "") -> Image.Image:
    """A sheet of ``count`` cells with captions; ``cells`` are taken one by one. An empty sheet shows its title only."""
    side, gap, paired = grid.side, grid.gap, grid.paired
    columns = max(1, min(grid.columns, count))
    small = max(11, side // 14)
    cell = 2 * side + gap // 7 if paired else side
    line = side + gap // 3 + 2 * small + gap
    top = gap + (4 * small if title else 0)
    sheet = Image.new(
        "RGB",
        (columns * (cell + gap) + gap, max(top + -(-count // columns) * line, top + gap)),
        PAGE,
    )
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), _shortened(title, sheet.width - 2 * gap, 2 * small), INK, _font(2 * small))
    for position, shown in enumerate(cells):
        left = gap + position % columns * (cell + gap)
        upper = top + position // columns * line
        sheet.paste(_square(shown.pixels, side), (left, upper))
        if paired:
            _beside(sheet, draw, shown, left + cell - side, upper, side)
        width = math.ceil(_font(small).getlength(shown.number))
        base = upper + side + gap // 3
        draw.text((left, base), _shortened(shown.name, cell - width - gap // 2, small), INK, _font(small))
        draw.text((left + cell - width, base), shown.number, QUIET, _font(small))
    return sheet


def _beside(sheet: Image.Image, draw: ImageDraw.ImageDraw, shown: Cell, left: int, upper: int, side: int) -> None:
    draw.rectangle((left, upper, left + side - 1, upper + side - 1), WELL)
    if shown.photo is None:
        return
    sheet.paste(_square(shown.photo, side), (left, upper))
    if shown.box is not None:
        edges = [
            start + round(edge * (side - 1)) for start, edge in zip((left, upper, left, upper), shown.box, strict=True)
        ]
        draw.rectangle((edges[0] - 1, edges[1] - 1, edges[2] + 1, edges[3] + 1), outline=INK)
        draw.rectangle(tuple(edges), outline=PAGE)


def sheet_png(sheet: Image.Image) -> bytes:
    """The sheet as a PNG file. Pillow's smallest is up to a twentieth smaller, and takes seven times as long."""
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, width: int, size: int) -> str:
    font, text = _font(size), in_line(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _square(pixels: UInt8[np.ndarray, "height width 3"], side: int) -> Image.Image:
    """The middle square, scaled to ``side``."""
    image = Image.fromarray(pixels)
    shorter = min(image.size)
    left, upper = (image.width - shorter) // 2, (image.height - shorter) // 2
    box = (left, upper, left + shorter, upper + shorter)
    return image.resize((side, side), Image.Resampling.LANCZOS, box=box)


@dataclass(frozen=True)
class Strip:
    """A row of pictures with their names, in groups, and what the row is called."""

    title: str
    groups: Sequence[Sequence[tuple[str, UInt8[np.ndarray, "side side colour"]]]]


def strips_sheet(strips: Sequence[Strip], heads: Sequence[str], side: int = 128, gap: int = 14) -> Image.Image:
    """Rows of pictures one below the other, a group beside the next under its head, names below the pictures."""
    small = 12
    named = min(260, 2 * gap + max((math.ceil(_font(small + 1).getlength(strip.title)) for strip in strips), default=0))
    longest = [max((len(strip.groups[group]) for strip in strips), default=0) for group in range(len(heads))]
    *starts, total = accumulate((count * (side + gap // 2) + 2 * gap for count in longest), initial=named)
    line = side + 2 * small + gap
    sheet = Image.new("RGB", (total, 3 * small + gap + len(strips) * line), PAGE)
    draw = ImageDraw.Draw(sheet)
    for head, left in zip(heads, starts, strict=True):
        draw.text((left, gap), head, QUIET, _font(small + 2))
    for row, strip in enumerate(strips):
        upper = 3 * small + gap + row * line
        draw.text((gap, upper), _shortened(strip.title, named - 2 * gap, small + 1), INK, _font(small + 1))
        for group, left in zip(strip.groups, starts, strict=True):
            for position, (name, pixels) in enumerate(group):
                corner = left + position * (side + gap // 2)
                sheet.paste(_square(pixels, side), (corner, upper))
                draw.text((corner, upper + side + 3), _shortened(name, side, small - 1), QUIET, _font(small - 1))
    return sheet
