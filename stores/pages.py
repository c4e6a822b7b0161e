"""An atlas as a folder of static pages that opens from disk, without a server and without a network.

The body is streamed: one neuron is in memory at a time, beside the keys of the photos that are written already.
"""

import hashlib
import io
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stores.images import decode
from stores.page_style import STYLE

PICTURE_QUALITY = 90
PHOTO_QUALITY = 85


@dataclass(frozen=True)
class Thumbnail:
    """A reference photo at the size it is shown at.

    ``image`` is a JPEG or RGB pixels; thumbnails of one ``key`` are the same and are written once.
    """

    image: bytes | UInt8[np.ndarray, "height width 3"]
    key: str
    credit: str = ""
    caption: str = ""


@dataclass(frozen=True)
class NeuronPage:
    """What the pages show of one neuron. ``alpha`` is its picture's opacity, or None for an opaque picture."""

    layer: str
    neuron: int
    name: str
    pixels: UInt8[np.ndarray, "side side 3"]
    alpha: UInt8[np.ndarray, "side side"] | None = None
    thumbnails: list[Thumbnail] = field(default_factory=list)
    facts: Mapping[str, str] = field(default_factory=dict)


def write_pages(out: Path, title: str, facts: Mapping[str, str], neurons: Iterable[NeuronPage]) -> Path:
    """Write ``OUT/index.html``, its pictures and photos; returns the path of the index.

    Neurons are expected layer by layer; each change of layer begins a section. Files of an earlier run are written
    over, and the index comes last, so that it never points to a picture that is not there.
    """
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    (out / "photos").mkdir(exist_ok=True)
    photos = _Photos(out)
    layers: list[tuple[str, int]] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as body:
        for neuron in neurons:
            if not layers or layers[-1][0] != neuron.layer:
                body.write("</div></section>\n" if layers else "")
                layers.append((neuron.layer, 0))
                body.write(_section(neuron.layer, len(layers)))
            layers[-1] = (neuron.layer, layers[-1][1] + 1)
            body.write(_card(out, neuron, photos))
        body.write("</div></section>\n" if layers else '<p class="none">No pictures yet.</p>\n')
        body.seek(0)
        unfinished = out / ".index.html"
        with unfinished.open("w", encoding="utf-8") as page:
            page.write(_head(title, facts, layers))
            shutil.copyfileobj(body, page)
            _foot(page, photos)
    return unfinished.replace(out / "index.html")


def picture_image(
    pixels: UInt8[np.ndarray, "side side 3"], alpha: UInt8[np.ndarray, "side side"] | None
) -> Image.Image:
    """The picture as a Pillow image, RGBA where it has an opacity."""
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image


class _Photos:
    """Writes each distinct photo once and remembers whom it is from."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "photos"
        self.credits: dict[str, str] = {}
        self._written: set[str] = set()

    def path(self, thumbnail: Thumbnail) -> str:
        # keys come from tars and may hold anything; a digest is always a file name
        name = f"{hashlib.sha256(thumbnail.key.encode('utf-8', 'replace')).hexdigest()[:16]}.jpg"
        if name not in self._written:
            (self._folder / name).write_bytes(_jpeg(thumbnail.image))
            self._written.add(name)
            if thumbnail.credit:
                self.credits[thumbnail.key] = thumbnail.credit
        return f"photos/{name}"


def _jpeg(image: bytes | UInt8[np.ndarray, "height width 3"]) -> bytes:
    if isinstance(image, bytes) and image.startswith(b"\xff\xd8\xff"):
        return image
    pixels = decode(image) if isinstance(image, bytes) else image
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=PHOTO_QUALITY)
    return buffer.getvalue()


def _head(title: str, facts: Mapping[str, str], layers: list[tuple[str, int]]) -> str:
    links = "".join(
        f'<a href="#section-{number}">{escape(layer)}<small>{count}</small></a>'
        for number, (layer, count) in enumerate(layers, 1)
    )
    navigation = f'<nav aria-label="Layers">{links}</nav>\n' if len(layers) > 1 else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{_facts(facts)}{navigation}</header>\n<main>\n"
    )


def _section(layer: str, number: int) -> str:
    heading = "Classes" if layer == "classes" else layer
    return f'<section id="section-{number}"><h2>{escape(heading)}</h2><div class="grid">\n'


def _card(out: Path, neuron: NeuronPage, photos: _Photos) -> str:
    folder = re.sub(r"[^\w.-]+", "-", neuron.layer).strip(".") or "layer"
    path = f"pictures/{folder}/{neuron.neuron:05d}.webp"
    (out / path).parent.mkdir(exist_ok=True)
    picture_image(neuron.pixels, neuron.alpha).save(out / path, "WEBP", quality=PICTURE_QUALITY, method=4)
    side = neuron.pixels.shape[0]
    name = escape(neuron.name)
    strip = "".join(_photo(photos.path(thumbnail), thumbnail) for thumbnail in neuron.thumbnails)
    detail = _facts(neuron.facts)
    return (
        f'<article id="{escape(folder)}-{neuron.neuron}">'
        f'<a href="{escape(path)}"><img class="picture" src="{escape(path)}" width="{side}" height="{side}" '
        f'loading="lazy" alt="Picture of neuron {neuron.neuron} of {escape(neuron.layer)}: {name}"></a>'
        f"<h3>{name}<small>{neuron.neuron}</small></h3>"
        + (f'<div class="strip">{strip}</div>' if strip else "")
        + (f"<details><summary>Details</summary>{detail}</details>" if detail else "")
        + "</article>\n"
    )


def _photo(path: str, thumbnail: Thumbnail) -> str:
    caption = thumbnail.caption or thumbnail.key
    hint = " — ".join(text for text in (caption, thumbnail.credit) if text)
    return (
        f'<a href="{escape(path)}" title="{escape(hint)}">'
        f'<img src="{escape(path)}" loading="lazy" alt="Reference photo: {escape(caption)}"></a>'
    )


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f"<dl>{rows}</dl>\n"


def _foot(page: TextIO, photos: _Photos) -> None:
    page.write("</main>\n")
    if photos.credits:
        page.write("<footer>\n<h2>Photographs</h2>\n<ul>\n")
        for key in sorted(photos.credits):
            page.write(f"<li><b>{escape(key)}</b> {escape(photos.credits[key])}</li>\n")
        page.write("</ul>\n</footer>\n")
    page.write("</body>\n</html>\n")
