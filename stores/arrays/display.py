"""How stores show themselves: statuses in words, lines as HTML, pixels as an image inside a page."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Num, Shaped, UInt8
from PIL import Image


def counted(status: Shaped[np.ndarray, "..."], meanings: Mapping[Any, str]) -> str:
    """How often each status occurs, in words.

    >>> counted(np.array([1, 0, 1]), {0: "not made", 1: "made"})
    '1 not made, 2 made'
    """
    counts = Counter(int(one) for one in status)
    return ", ".join(f"{count} {meanings[value]}" for value, count in sorted(counts.items())) or "none"


def in_line(text: str) -> str:
    """Text as it is, or where it would break its line or command a terminal, with its control characters spelt.

    >>> in_line("слой 1"), in_line("a\\tb") == r"a\\tb"
    ('слой 1', True)
    """
    return text if text.isprintable() else repr(text)[1:-1]


def lines_html(lines: Sequence[str]) -> str:
    """Lines of a summary for a notebook: the first as a heading, indented ones as a list."""
    first, *rest = lines
    items = "".join(f"<li>{escape(line.strip())}</li>" for line in rest)
    return f"<div><strong>{escape(first)}</strong><ul>{items}</ul></div>"


def shown_of(colours: int) -> tuple[int, ...]:
    """The channels that are shown where nobody says which: the first three, or the first alone of two."""
    return (0, 1, 2) if colours >= 3 else (0,)


def as_shown(pixels: Num[np.ndarray, "*picture colour"], shown: Sequence[int] = ()) -> UInt8[np.ndarray, "*picture 3"]:
    """What people see of channels: those ``shown`` as red, green and blue, or one as grey, in bytes.

    >>> as_shown(np.arange(5, dtype=np.uint8)[None], (4,)).tolist()
    [[4, 4, 4]]
    """
    seen = tuple(shown) or shown_of(pixels.shape[-1])
    if pixels.dtype != np.uint8:  # an image of more than bytes
        pixels = pixels.round().astype(np.uint8)
    if seen == (0, 1, 2) and pixels.shape[-1] == 3:
        return pixels
    made: np.ndarray = np.ascontiguousarray(pixels[..., list(seen * (3 // len(seen)))])
    return made


def shown_in_words(shown: Sequence[int], colours: int) -> str:
    """Which channels are shown, as a sentence; "" where they are colours.

    >>> shown_in_words((3, 2, 1), 5)
    'channels 3, 2, 1 of 5 as red, green, blue'
    """
    seen = tuple(shown) or shown_of(colours)
    if seen == (0, 1, 2) and colours == 3:
        return ""
    if len(seen) == 1:
        return f"channel {seen[0]} of {colours} as grey"
    return f"channels {', '.join(map(str, seen))} of {colours} as red, green, blue"


def image_html(pixels: UInt8[np.ndarray, "row column colour"], side: int, title: str = "") -> str:
    """Pixels as an ``img`` that carries its own PNG, ``side`` CSS pixels wide."""
    buffer, image = io.BytesIO(), Image.fromarray(pixels)
    if image.width > 2 * side:  # no finer than a fine screen shows
        image = image.resize((2 * side, 2 * side), Image.Resampling.LANCZOS)
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{data}" width="{side}" height="{side}" '
        f'title="{escape(title, quote=True)}" alt="{escape(title, quote=True)}">'
    )
