"""The site: layers of atlases written chunk by chunk, then what lists them, then the page itself."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from stores.pages.assets import asset, from_template
from stores.pages.content import AtlasPage, LayerPage, NeuronPage
from stores.pages.data.layers import MADE, layer_files
from stores.pages.data.neurons import chunk_data, neuron_data
from stores.pages.data.values import script
from stores.pages.folder import SITE_FOLDER, SiteFolder, digest
from stores.pages.sheets import ACROSS, PER_SHEET, TILES, maps_file, mask_file, picture_file, sheet_files

VERSION = "8"
"""Goes into every digest: a change of what is written raises it."""
SCRIPTS = (
    "data.js", "dom.js", "format.js", "plots.js", "wall.js", "search.js", "photographs.js", "order.js", "controls.js",
    "overview.js", "parts.js", "naming.js", "neuron.js", "compare.js", "credits.js", "main.js",
)  # fmt: skip
STYLES = ("page.css", "wall.css", "neuron.css")


class Site:
    """A site under way. Call `chunk` for the neurons of a layer, then `layer`, in any order of layers; `close` last."""

    def __init__(self, out: Path, title: str, atlases: Sequence[AtlasPage], pool: Executor) -> None:
        self.folder = SiteFolder(out)
        self._title, self._atlases, self._pool = title, list(atlases), pool
        self._layers: list[list[dict[str, Any]]] = [[] for _ in self._atlases]
        self._credited = False
        for name in (*SCRIPTS, *STYLES):
            self.folder.write(f"{SITE_FOLDER}/page/{name}", asset(name))

    def photo_name(self, name: str) -> str:
        """The file of the photograph of this name, below the site's folder."""
        return f"{SITE_FOLDER}/photos/{name[:2]}/{name}.jpg"

    def chunk(
        self,
        atlas: int,
        layer: str,
        sheet: int,
        neurons: Sequence[NeuronPage],
        photos: Callable[[Sequence[str]], Mapping[str, bytes]],
        maps: Callable[[], Mapping[int, UInt8[np.ndarray, "_photo _row _column"]]] = dict,
    ) -> bool:
        """Write a sheet's neurons, those from ``sheet · PER_SHEET`` on: pictures, opacities, sheets, photographs, data.

        A chunk that was written from the same data is left alone, which returns False. ``photos`` gives JPEGs by name,
        of those that are not there yet, and ``maps`` those of each neuron's photographs, of neurons that have them.
        """
        folder, made_of = _folder(atlas, layer), _made_of(neurons)
        part = f"{folder}/{sheet}"
        if self.folder.keeps(part, made_of):
            return False
        self.folder.begin(part)
        names = sorted({photo.file for neuron in neurons for photo in neuron.every_photo})
        for name, data in photos([name for name in names if not self.folder.has(self.photo_name(name))]).items():
            self.folder.write(self.photo_name(name), data)
        sheets = self._pool.submit(sheet_files, {neuron.neuron % PER_SHEET: neuron.pixels for neuron in neurons})
        own = self._encoded(neurons) | {f"{neuron}-maps.png": maps_file(tiles) for neuron, tiles in maps().items()}
        encoded = {f"{sheet}/{name}": data for name, data in own.items()}  # no folder holds all of a wide layer
        encoded |= {f"sheet-{sheet}-{size}.webp": data for size, data in sheets.result().items()}
        encoded[f"neurons-{sheet}.js"] = script(f"{folder}/{sheet}", chunk_data(neurons))
        for name, data in encoded.items():
            self.folder.write(f"{SITE_FOLDER}/{folder}/{name}", data)
        photographs = [name.removeprefix(f"{SITE_FOLDER}/photos/") for name in map(self.photo_name, names)]
        self.folder.complete(part, made_of, {folder: list(encoded), "photos": photographs})
        return True

    def _encoded(self, neurons: Sequence[NeuronPage]) -> dict[str, bytes]:
        jobs = {f"{neuron.neuron}.webp": self._pool.submit(picture_file, neuron.pixels) for neuron in neurons}
        for neuron in neurons:
            if neuron.alpha is not None:
                jobs[f"{neuron.neuron}-mask.webp"] = self._pool.submit(mask_file, neuron.alpha)
            for number, facet in enumerate(neuron.facets, 1):
                jobs[f"{neuron.neuron}-facet{number}.webp"] = self._pool.submit(picture_file, facet.pixels)
        return {name: job.result() for name, job in jobs.items()}

    def layer(self, atlas: int, page: LayerPage) -> None:
        """Write what the overview of a layer needs; its chunks are written or kept by then."""
        folder = _folder(atlas, page.name)
        for name, part in layer_files(page):
            key = folder if name == "layer" else f"{folder}/{name}"
            self.folder.write(f"{SITE_FOLDER}/{folder}/{name}.js", script(key, part))
        made = int(np.count_nonzero(page.status == MADE))
        self._layers[atlas].append(
            {"name": page.name, "folder": folder, "neurons": len(page.status), "made": made, "side": page.side}
        )

    def credits(self, credits_: Mapping[str, str]) -> None:
        """Write who made the photographs shown, by key."""
        self._credited = bool(credits_)
        if credits_:
            self.folder.write(f"{SITE_FOLDER}/credits.js", script("credits", sorted(credits_.items())))

    def close(self) -> Path:
        """Write the list of atlases and the index page, and remove what an earlier run left over; returns the path of
        the index page."""
        atlases = [
            {"title": atlas.title, "url": atlas.url, "facts": list(atlas.facts.items()), "layers": layers}
            for atlas, layers in zip(self._atlases, self._layers, strict=True)
        ]
        site = {
            "title": self._title,
            "atlases": atlases,
            "credits": self._credited,
            "perSheet": PER_SHEET,
            "across": ACROSS,
            "tiles": {name: side for name, (side, _) in TILES.items()},
        }
        self.folder.write(f"{SITE_FOLDER}/site.js", script("site", site))
        self.folder.write("index.html", _index(self._title).encode("utf-8"))
        self.folder.sweep()
        return self.folder.root / "index.html"


def folder_name(layer: str) -> str:
    """A folder's name for a layer: its own where that is safe, else with a digest that keeps it apart.

    >>> folder_name("layer4.2"), folder_name("a/b")[:4]
    ('layer4.2', 'a-b~')
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", layer).strip(".") or "layer"
    same = safe == layer and len(safe) < 100
    return safe if same else f"{safe[:80]}~{hashlib.sha256(layer.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _folder(atlas: int, layer: str) -> str:
    return f"{atlas}/{folder_name(layer)}"


def _made_of(neurons: Sequence[NeuronPage]) -> str:
    parts = [VERSION.encode()]
    for neuron in neurons:
        alpha = b"" if neuron.alpha is None else neuron.alpha.tobytes()
        parts += [str(neuron.neuron).encode(), neuron.pixels.tobytes(), alpha, neuron.maps_of.encode()]
        parts += [facet.pixels.tobytes() for facet in neuron.facets]
        parts.append(json.dumps(neuron_data(neuron)).encode())
    return digest(*parts)


def _index(title: str) -> str:
    scripts = [f"{SITE_FOLDER}/page/{name}" for name in SCRIPTS]
    return from_template(
        "index.html",
        title=title,
        styles=[f"{SITE_FOLDER}/page/{name}" for name in STYLES],
        # the last script starts the page, with what site.js says of it
        scripts=[*scripts[:-1], f"{SITE_FOLDER}/site.js", scripts[-1]],
        folder=SITE_FOLDER,
    )
