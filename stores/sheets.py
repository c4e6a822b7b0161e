"""One image that shows many pictures, each beside its first reference: for a README, a report or a first look."""

import io
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stores.images import decode
from stores.pages import NeuronPage, Thumbnail, picture_image

PAGE = (251, 250, 248)
INK = (29, 28, 26)
QUIET = (119, 115, 107)
WELL = (241, 239, 234)


def contact_sheet(
    rows: Sequence[NeuronPage], title: str = "", columns: int = 4, side: int = 224, gap: int = 28
) -> Image.Image:
    """A sheet of ``columns`` cells per line, each a picture and its first reference, ``side`` pixels square, with a
    caption.

    Where no neuron has a reference, a cell is the picture alone. An empty sheet shows its title only.
    """
    paired = any(neuron.thumbnails for neuron in rows)
    columns = max(1, min(columns, len(rows)))
    small = max(11, side // 14)
    cell = 2 * side + gap // 7 if paired else side
    line = side + gap // 3 + 2 * small + gap
    top = gap + (4 * small if title else 0)
    sheet = Image.new(
        "RGB",
        (columns * (cell + gap) + gap, max(top + -(-len(rows) // columns) * line, top + gap)),
        PAGE,
    )
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), _shortened(title, sheet.width - 2 * gap, 2 * small), INK, _font(2 * small))
    for position, neuron in enumerate(rows):
        left = gap + position % columns * (cell + gap)
        upper = top + position // columns * line
        _paste(sheet, _square(picture_image(neuron.pixels, neuron.alpha), side), left, upper)
        if paired:
            right = left + cell - side
            draw.rectangle((right, upper, right + side - 1, upper + side - 1), WELL)
            if neuron.thumbnails:
                _paste(sheet, _square(_photo(neuron.thumbnails[0]), side), right, upper)
        number = f"{neuron.layer} {neuron.neuron}"
        width = math.ceil(_font(small).getlength(number))
        base = upper + side + gap // 3
        draw.text((left, base), _shortened(neuron.name, cell - width - gap, small), INK, _font(small))
        draw.text((left + cell - width, base), number, QUIET, _font(small))
    return sheet


def sheet_png(sheet: Image.Image) -> bytes:
    """The sheet as a PNG file."""
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, width: int, size: int) -> str:
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _photo(thumbnail: Thumbnail) -> Image.Image:
    image = thumbnail.image
    return Image.fromarray(decode(image) if isinstance(image, bytes) else np.asarray(image))


def _square(image: Image.Image, side: int) -> Image.Image:
    """The middle square, scaled to ``side``."""
    shorter = min(image.size)
    left, upper = (image.width - shorter) // 2, (image.height - shorter) // 2
    box = (left, upper, left + shorter, upper + shorter)
    return image.resize((side, side), Image.Resampling.LANCZOS, box=box)


def _paste(sheet: Image.Image, image: Image.Image, left: int, upper: int) -> None:
    sheet.paste(image, (left, upper), image if image.mode == "RGBA" else None)
