"""Photographs and the neurons that see them, as a static page that links into an atlas's pages."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from flows.pages.looking.sights import Look, Seen, Sight, overlaid
from stores.errors import UnsuitableFolder
from stores.files import safe_url
from stores.pages.assets import from_template
from stores.pages.folder import SITE_FOLDER
from stores.pages.sheets import picture_file
from stores.pages.website import folder_name

LOOK_FOLDER = "vital-look"
"""Everything but the page itself is below this folder, which is ours alone."""
QUALITY = 85


def write_look(look: Look, out: Path, places: Mapping[str, str] | None = None, pages: Path | None = None) -> Path:
    """The page; returns its path. Neurons of layers that have one of ``places`` (`page_places`) are links into
    ``pages``. An earlier look in the same folder is replaced.

    Raises:
        UnsuitableFolder: the folder holds a page that is no look.
    """
    check_folder(out)
    shutil.rmtree(out / LOOK_FOLDER, ignore_errors=True)
    (out / LOOK_FOLDER).mkdir(parents=True)
    files = _Files(out)
    index = quote(Path(os.path.relpath(pages.absolute(), out.absolute())).as_posix()) if pages is not None else ""
    links = {layer: f"{index}/index.html#/{quote(place)}" for layer, place in (places or {}).items()}
    shown = [
        {
            "name": seen.name,
            "title": seen.title,
            "file": files.photograph(number, seen),
            "side": len(seen.pixels),
            "sights": [_shown(files, number, seen, sight, links) for sight in seen.sights],
        }
        for number, seen in enumerate(look)
    ]
    page = from_template("look.html", atlas=look.atlas, basis=look.basis, photographs=shown)
    (out / "index.html").write_text(page, "utf-8")
    return out / "index.html"


def check_folder(out: Path) -> None:
    """Raise `UnsuitableFolder` for a folder whose page is not ours to replace."""
    if (out / "index.html").exists() and not (out / LOOK_FOLDER).is_dir():
        raise UnsuitableFolder(f"{out} holds an index.html that is not of an earlier look; give a new folder")


def page_places(pages: Path, atlas_url: str) -> dict[str, str]:
    """Where an atlas's layers are among the pages in a folder: the part of an address that names each. An atlas that
    has moved is known by its own name.

    Raises:
        UnsuitableFolder: the folder holds no pages, or none of this atlas.
    """
    try:
        text = (pages / SITE_FOLDER / "site.js").read_text("ascii")
        site = json.loads(text.partition(",")[2].rpartition(")")[0])
        found = {str(atlas["url"]).rstrip("/"): atlas["layers"] for atlas in site["atlases"]}
    except (OSError, ValueError, LookupError, TypeError):
        raise UnsuitableFolder(f"{pages} holds no atlas's pages: give the folder that `vital pages` wrote") from None
    asked = safe_url(atlas_url).rstrip("/")
    same = [one for one in found if one == asked or Path(one).absolute() == Path(asked).absolute()]
    named = [one for one in found if one.rpartition("/")[2] == asked.rpartition("/")[2]]  # it may have moved
    url = next(iter(same), named[0] if len(named) == 1 else None)
    if url is None:
        raise UnsuitableFolder(
            f"the pages in {pages} are of {', '.join(found)} and not of {safe_url(atlas_url)}: write this "
            "atlas's with `vital pages`"
        )
    return {layer["name"]: layer["place"] for layer in found[url]}


class _Files:
    """The images beside the page; a neuron's picture is written once."""

    def __init__(self, out: Path) -> None:
        self._out, self._written = out, set[str]()

    def photograph(self, number: int, seen: Seen) -> str:
        """The photograph as the network gets it."""
        return self._write(f"{number}.jpg", lambda: _jpeg(seen.pixels))

    def overlay(self, number: int, seen: Seen, sight: Sight) -> str | None:
        """The photograph as the neuron sees it."""
        map_ = sight.map
        if map_ is None:
            return None
        return self._write(f"{number}-{_of(sight)}.jpg", lambda: _jpeg(overlaid(seen.pixels, map_)))

    def picture(self, sight: Sight) -> str | None:
        """The neuron's picture."""
        pixels = sight.picture
        if pixels is None:
            return None
        return self._write(f"{_of(sight)}.webp", lambda: picture_file(pixels))

    def _write(self, name: str, content: Any) -> str:
        if name not in self._written:
            self._written.add(name)
            (self._out / LOOK_FOLDER / name).write_bytes(content())
        return quote(f"{LOOK_FOLDER}/{name}")


def _of(sight: Sight) -> str:
    return f"{folder_name(sight.layer)}-{sight.neuron}"


def _shown(files: _Files, number: int, seen: Seen, sight: Sight, links: Mapping[str, str]) -> dict[str, Any]:
    side = len(seen.pixels)
    top, left, height, width = (100 * edge / side for edge in sight.box)
    link = links.get(sight.layer)
    return {
        "link": f"{link}/{sight.neuron}" if link and sight.picture is not None else None,
        "neuron": f"{sight.layer}:{sight.neuron}",
        "name": sight.name,
        "share": f"{100 * sight.share:.1f}",
        "deviations": f"{sight.deviations:+.1f}",
        "activation": f"{sight.activation:.4g}",
        "picture": files.picture(sight),
        "overlay": files.overlay(number, seen, sight),
        "of": sight.of,
        "box": None if width >= 100 else f"top:{top:.2f}%;left:{left:.2f}%;height:{height:.2f}%;width:{width:.2f}%",
    }


def _jpeg(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
