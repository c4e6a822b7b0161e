"""The site: layers of atlases written chunk by chunk, then what lists them, then the page itself."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stores.pages.content import AtlasPage, Curve, LayerPage, NeuronPage, Photo
from stores.pages.folder import OWN, SiteFolder, digest
from stores.pages.sheets import ACROSS, PER_SHEET, TILES, mask_file, picture_file, sheet_files

VERSION = "1"
"""Goes into every digest: a change of what is written raises it."""
MADE = 1
CURVE_POINTS = 36
SCRIPTS = (
    "data.js", "dom.js", "format.js", "plots.js", "wall.js", "order.js", "controls.js", "overview.js", "parts.js",
    "neuron.js", "compare.js", "credits.js", "main.js",
)  # fmt: skip
STYLES = ("page.css", "wall.css", "neuron.css")


class Site:
    """A site under way. Call `chunk` for the neurons of a layer, then `layer`, in any order of layers; `close` last."""

    def __init__(self, out: Path, title: str, atlases: Sequence[AtlasPage], pool: Executor) -> None:
        self.folder = SiteFolder(out)
        self._title, self._atlases, self._pool = title, list(atlases), pool
        self._layers: list[list[dict[str, Any]]] = [[] for _ in self._atlases]
        self._made = [0 for _ in self._atlases]
        self._credited = False
        for name in (*SCRIPTS, *STYLES):
            self.folder.write(f"{OWN}/page/{name}", _asset(name))

    def photo_name(self, name: str) -> str:
        """Where a photograph of this name lies."""
        return f"{OWN}/photos/{name[:2]}/{name}.jpg"

    def chunk(
        self,
        atlas: int,
        layer: str,
        number_: int,
        neurons: Sequence[NeuronPage],
        photos: Callable[[Sequence[str]], Mapping[str, bytes]],
    ) -> bool:
        """Write the neurons from ``number_ · PER_SHEET`` on: pictures, opacities, sheets, photographs and their data.

        A chunk that was written from the same data is left alone, which returns False. ``photos`` gives JPEGs by name,
        of those that are not there yet.
        """
        part, place, made_of = _part(atlas, layer, number_), _place(atlas, layer), _made_of(neurons)
        if self.folder.keeps(part, made_of):
            return False
        self.folder.begin(part)
        names = sorted({photo.file for neuron in neurons for photo in neuron.photos})
        for name, data in photos([name for name in names if not self.folder.has(self.photo_name(name))]).items():
            self.folder.write(self.photo_name(name), data)
        sheets = self._pool.submit(sheet_files, {neuron.neuron % PER_SHEET: neuron.pixels for neuron in neurons})
        encoded = self._encoded(neurons)
        encoded |= {f"sheet-{number_}-{size}.webp": data for size, data in sheets.result().items()}
        encoded[f"neurons-{number_}.js"] = script(
            f"{place}/{number_}", {str(neuron.neuron): _neuron_data(neuron) for neuron in neurons}
        )
        for name, data in encoded.items():
            self.folder.write(f"{OWN}/{place}/{name}", data)
        photographs = [name.removeprefix(f"{OWN}/photos/") for name in map(self.photo_name, names)]
        self.folder.complete(part, made_of, {place: list(encoded), "photos": photographs})
        return True

    def _encoded(self, neurons: Sequence[NeuronPage]) -> dict[str, bytes]:
        jobs = {f"{neuron.neuron}.webp": self._pool.submit(picture_file, neuron.pixels) for neuron in neurons}
        for neuron in neurons:
            if neuron.alpha is not None:
                jobs[f"{neuron.neuron}-mask.webp"] = self._pool.submit(mask_file, neuron.alpha)
        return {name: job.result() for name, job in jobs.items()}

    def layer(self, atlas: int, page: LayerPage) -> None:
        """Write what the overview of a layer needs; its chunks are written or kept by then."""
        place = _place(atlas, page.name)
        made = np.flatnonzero(page.status == MADE)
        self._made[atlas] += len(made)
        self.folder.write(f"{OWN}/{place}/layer.js", script(place, _layer_data(page, made)))
        self._layers[atlas].append(
            {"name": page.name, "place": place, "neurons": len(page.status), "made": len(made), "side": page.side}
        )

    def credits(self, credits_: Mapping[str, str]) -> None:
        """Write who made the photographs shown, by key."""
        self._credited = bool(credits_)
        if credits_:
            self.folder.write(f"{OWN}/credits.js", script("credits", sorted(credits_.items())))

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
        self.folder.write(f"{OWN}/site.js", script("site", site))
        self.folder.write("index.html", _index(self._title))
        self.folder.sweep()
        return self.folder.root / "index.html"


def place_name(layer: str) -> str:
    """A folder's name for a layer: its own where that is safe, else with a digest that keeps it apart.

    >>> place_name("layer4.2"), place_name("a/b")[:4]
    ('layer4.2', 'a-b~')
    """
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", layer).strip(".") or "layer"
    same = safe == layer and len(safe) < 100
    return safe if same else f"{safe[:80]}~{hashlib.sha256(layer.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _place(atlas: int, layer: str) -> str:
    return f"{atlas}/{place_name(layer)}"


def _part(atlas: int, layer: str, number_: int) -> str:
    return f"{_place(atlas, layer)}/{number_}"


def _made_of(neurons: Sequence[NeuronPage]) -> str:
    parts = [VERSION.encode()]
    for neuron in neurons:
        alpha = b"" if neuron.alpha is None else neuron.alpha.tobytes()
        parts += [str(neuron.neuron).encode(), neuron.pixels.tobytes(), alpha]
        parts.append(json.dumps(_neuron_data(neuron)).encode())
    return digest(*parts)


def _asset(name: str) -> bytes:
    return (resources.files("stores.pages") / "assets" / name).read_bytes()


def _index(title: str) -> bytes:
    head = "".join(f'<link rel="stylesheet" href="{OWN}/page/{name}">\n' for name in STYLES)
    scripts = "".join(f'<script defer src="{OWN}/page/{name}"></script>\n' for name in SCRIPTS[:-1])
    last = f'<script defer src="{OWN}/site.js"></script>\n<script defer src="{OWN}/page/{SCRIPTS[-1]}"></script>\n'
    page = _asset("index.html").decode("utf-8")
    parts = {"{title}": escape(title), "{styles}": head, "{scripts}": scripts + last, "{own}": OWN}
    return re.sub("|".join(map(re.escape, parts)), lambda found: parts[found.group()], page).encode("utf-8")


def _layer_data(page: LayerPage, made: np.ndarray) -> dict[str, Any]:
    reasons, counts = np.unique(page.status[page.status != MADE], return_counts=True)
    places = None if page.places is None else np.round(page.places[made] * 9999).astype(int)
    return {
        "name": page.name,
        "side": page.side,
        "steps": page.steps,
        "status": "".join(str(min(int(code), 9)) for code in page.status),
        "meanings": {str(code): text for code, text in page.meanings.items()},
        "missing": [[int(code), int(count)] for code, count in zip(reasons, counts, strict=True)],
        "made": made.tolist(),
        "names": [str(page.names[neuron]) for neuron in made] if len(page.names) == len(page.status) else None,
        "places": None if places is None else [places[:, 0].tolist(), places[:, 1].tolist()],
        "columns": [
            {
                "name": column.name,
                "meaning": column.meaning,
                "units": column.units,
                "values": numbers(column.values[made]),
            }
            for column in page.columns
        ],
        "facts": list(page.facts.items()),
        "commands": list(page.commands),
    }


def _neuron_data(page: NeuronPage) -> dict[str, Any]:
    return {
        "seed": str(page.seed),
        "mask": page.alpha is not None,
        "loss": numbers(page.loss),
        "curves": [_curve_data(curve) for curve in page.curves],
        "sources": [[one.node, list(map(int, one.channels)), numbers(one.importance)] for one in page.sources],
        "photos": [_photo_data(photo) for photo in page.photos],
    }


def _curve_data(curve: Curve) -> list[Any]:
    """Node, least and greatest value, and both rows as thousandths between them: half the bytes, and no less to see."""
    rows = [np.asarray(_thinned(row), np.float64) for row in (curve.target, curve.picture)]
    known = np.concatenate(rows)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    span = high - low or 1.0
    shown = [
        [round(float(value)) if np.isfinite(value) else None for value in (row - low) / span * 999] for row in rows
    ]
    return [curve.node, number(low), number(high), *shown]


def _thinned(row: Float[np.ndarray, "level"]) -> Float[np.ndarray, "point"]:
    """At most `CURVE_POINTS` of a row's levels, the ends among them."""
    if len(row) <= CURVE_POINTS:
        return row
    kept: np.ndarray = row[np.linspace(0, len(row) - 1, CURVE_POINTS).round().astype(int)]
    return kept


def _photo_data(photo: Photo) -> list[Any]:
    box = None if photo.box is None else numbers(photo.box)
    return [photo.file, photo.key, number(photo.score), photo.label, photo.credit, box]


_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def script(key: str, value: Any) -> bytes:
    """A script that hands ``value`` to the page under ``key``; nothing in it can end a script or begin a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"VITAL.put({json.dumps(key)},{text});\n".translate(_UNSAFE).encode("ascii")


def number(value: float) -> float | int | None:
    """Four significant digits, which is more than a plot shows; None where the value is unknown.

    >>> number(0.123456), number(float("nan")), number(2.0)
    (0.1235, None, 2)
    """
    value = float(value)
    if not math.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def numbers(values: Any) -> list[float | int | None]:
    """`number` of each."""
    return [number(value) for value in np.asarray(values, np.float64).ravel()]
