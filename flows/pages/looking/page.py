"""Photographs and the neurons that see them, as a static page that links into an atlas's pages."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from flows.pages.looking.sights import Look, Seen, Sight, overlaid
from stores.errors import UnsuitableFolder
from stores.files import join, local_path, read_bytes, safe_url
from stores.pages.assets import from_template
from stores.pages.folder import SITE_FOLDER
from stores.pages.sheets import picture_file
from stores.pages.website import folder_name

LOOK_FOLDER = "vital-look"
"""Everything but the page itself is below this folder, which is ours alone."""
QUALITY = 85


def write_look(looks: Sequence[Look], out: Path, links: Sequence[Mapping[str, str]] = ()) -> Path:
    """The page of photographs seen by one atlas, or by several; returns its path. Neurons of layers that have one of
    their atlas's ``links`` (`page_links`) lead there. An earlier look in the same folder is replaced.

    Raises:
        UnsuitableFolder: the folder holds a page that is no look.
    """
    check_folder(out)
    shutil.rmtree(out / LOOK_FOLDER, ignore_errors=True)
    (out / LOOK_FOLDER).mkdir(parents=True)
    files = _Files(out)
    atlases = [
        {
            "atlas": look.atlas,
            "basis": look.basis,
            "photographs": [
                {
                    "name": seen.name,
                    "title": seen.title,
                    "file": files.photograph(f"{number}-{photo}", seen),
                    "sights": [_shown(files, number, photo, seen, sight, pages) for sight in seen.sights],
                }
                for photo, seen in enumerate(look)
            ],
        }
        for number, (look, pages) in enumerate(zip(looks, links or [{}] * len(looks), strict=True))
    ]
    (out / "index.html").write_text(from_template("look.html", atlases=atlases), "utf-8")
    return out / "index.html"


def check_folder(out: Path) -> None:
    """Raise `UnsuitableFolder` for a folder whose page is not ours to replace."""
    if (out / "index.html").exists() and not (out / LOOK_FOLDER).is_dir():
        raise UnsuitableFolder(f"{out} holds an index.html that is not of an earlier look; give a new folder")


def page_links(pages: str | Path, atlas_url: str, seen_from: Path) -> dict[str, str]:
    """Where the neurons of an atlas's layers have their pages, of those in the folder ``pages``, or at this address of
    a web server: an address, of a folder's relative to the folder ``seen_from``, behind which comes a slash and the
    neuron's number. An atlas that has moved is known by its own name.

    Raises:
        UnsuitableFolder: no pages are there, none of this atlas or of this version, or they are where no browser opens
            them.
    """
    site = str(pages).removesuffix("index.html").rstrip("/")
    folder = local_path(site)
    if folder is None and not site.startswith(("http://", "https://")):
        raise UnsuitableFolder(
            f"{safe_url(site)} is no address that a browser opens: give the one that begins with https://, at which "
            "these pages are seen, or their folder"
        )
    atlases = _atlases(site)
    if any("folder" not in layer for layers in atlases.values() for layer in layers):
        raise UnsuitableFolder(
            f"the pages in {safe_url(site)} are of an earlier version: write them again with `vital pages`"
        )
    asked = safe_url(atlas_url).rstrip("/")
    same = [one for one in atlases if one == asked or Path(one).absolute() == Path(asked).absolute()]
    named = [one for one in atlases if one.rpartition("/")[2] == asked.rpartition("/")[2]]  # it may have moved
    url = next(iter(same), named[0] if len(named) == 1 else None)
    if url is None:
        raise UnsuitableFolder(
            f"the pages in {safe_url(site)} are of {', '.join(atlases)} and not of {safe_url(atlas_url)}: write this "
            "atlas's with `vital pages`"
        )
    index = (
        safe_url(site)
        if folder is None
        else quote(Path(os.path.relpath(folder.absolute(), seen_from.absolute())).as_posix())
    )
    return {layer["name"]: f"{index}/index.html#/{quote(layer['folder'])}" for layer in atlases[url]}


def _atlases(site: str) -> dict[str, list[dict[str, str]]]:
    """The layers of each atlas of the pages in a folder or at an address, by the atlas's URL."""
    try:
        text = (read_bytes(join(site, SITE_FOLDER, "site.js")) or b"").decode("ascii")
        told = json.loads(text.partition(",")[2].rpartition(")")[0])
        return {str(atlas["url"]).rstrip("/"): atlas["layers"] for atlas in told["atlases"]}
    except (OSError, ValueError, LookupError, TypeError, ImportError):
        raise UnsuitableFolder(
            f"{safe_url(site)} holds no atlas's pages: give the folder that `vital pages` wrote"
        ) from None


class _Files:
    """The images beside the page; a neuron's picture is written once."""

    def __init__(self, out: Path) -> None:
        self._out, self._written = out, set[str]()

    def photograph(self, number: str, seen: Seen) -> str:
        """The photograph as the network gets it."""
        return self._write(f"{number}.jpg", lambda: _jpeg(seen.pixels))

    def overlay(self, number: str, seen: Seen, sight: Sight) -> str | None:
        """The photograph as the neuron sees it."""
        map_ = sight.map
        if map_ is None:
            return None
        return self._write(f"{number}-{_of(sight)}.jpg", lambda: _jpeg(overlaid(seen.pixels, map_)))

    def picture(self, atlas: int, sight: Sight) -> str | None:
        """Where the neuron's own picture lies, written at its first use; None where the atlas has none."""
        pixels = sight.picture
        if pixels is None:
            return None
        facet = f"-facet{sight.facet}" if sight.facet else ""
        return self._write(f"{atlas}-{_of(sight)}{facet}.webp", lambda: picture_file(pixels))

    def _write(self, name: str, content: Any) -> str:
        if name not in self._written:
            self._written.add(name)
            (self._out / LOOK_FOLDER / name).write_bytes(content())
        return quote(f"{LOOK_FOLDER}/{name}")


def _of(sight: Sight) -> str:
    return f"{folder_name(sight.layer)}-{sight.neuron}"


def _shown(files: _Files, atlas: int, photo: int, seen: Seen, sight: Sight, links: Mapping[str, str]) -> dict[str, Any]:
    side = len(seen.pixels)
    top, left, height, width = (100 * edge / side for edge in sight.box)
    link = links.get(sight.layer)
    nowhere = sight.map is not None and sight.site is None
    return {
        "link": f"{link}/{sight.neuron}" if link and sight.picture is not None else None,
        "facet": sight.of_facets,
        "neuron": f"{sight.layer}:{sight.neuron}",
        "name": sight.name,
        "share": f"{100 * sight.share:.1f}",
        "deviations": f"{sight.deviations:+.1f}".replace("-", "−"),
        "activation": f"{sight.activation:.4g}".replace("-", "−"),
        "picture": files.picture(atlas, sight),
        "overlay": files.overlay(f"{atlas}-{photo}", seen, sight),
        "of": sight.of,
        "box": None
        if width >= 100 or nowhere
        else f"top:{top:.2f}%;left:{left:.2f}%;height:{height:.2f}%;width:{width:.2f}%",
    }


def _jpeg(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
