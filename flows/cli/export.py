"""Pictures as files and archives, and a folder of pages served on this machine."""

from __future__ import annotations

import csv
import functools
import http.server
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from PIL import Image

from flows.running.neurons import parse_neurons, shown_channels
from stores import AtlasLayer, open_atlas
from stores.arrays.display import as_shown
from stores.errors import UnsuitableFolder
from stores.pages.sheets import Cell, Grid, contact_sheet, sheet_png
from stores.pages.website import folder_name
from vital.errors import UnknownNeuron

Format = Literal["png", "webp"]
SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
LARGEST_SHEET = 600
"""Pictures of an exported contact sheet; more would be an image that few programs open."""
SHEET = "contact-sheet.png"
TABLE = "neurons.csv"


@dataclass(frozen=True)
class Saving:
    """How pictures are saved: opacity, channels, side, format, and whether a sheet goes with them."""

    masked: bool = False
    """What mattered little is transparent."""
    shown: str = ""
    """The channels that are red, green and blue, or grey; the atlas's by default."""
    side: int | None = None
    """Of a single picture, as it was made by default."""
    kind: Format = "png"
    """Of a selection; of a single picture the file's name tells it."""
    sheet: bool = True
    """With a contact sheet beside a selection."""


def save_picture(
    atlas_url: str,
    layer: str,
    neuron: int,
    out: Path,
    how: Saving = Saving(),
    facet: int = 0,
) -> Path:
    """One picture as a file whose kind the name tells.

    Raises:
        SchemaMismatch: the atlas has no such layer, or the neuron no such facet.
        UnknownNeuron: the neuron is out of range, or has no picture.
        UnsuitableFolder: the name's ending is of no kind that is written, or its folder is missing.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UnsuitableFolder(f"{out} ends in no kind of picture: name it {', '.join(SUFFIXES[:-1])}")
    if how.masked and out.suffix.lower() not in (".png", ".webp"):
        raise UnsuitableFolder(f"{out} cannot be transparent: name it .png or .webp, or leave --mask out")
    pictures = open_atlas(atlas_url).require_layer(layer)
    _require_picture(pictures, atlas_url, neuron)
    pictures.require_facet(neuron, facet)
    image = _image(pictures, neuron, facet, how.masked, shown_channels(how.shown, pictures))
    if how.side:
        image = image.resize((how.side, how.side), Image.Resampling.LANCZOS)
    if not out.parent.is_dir():
        raise UnsuitableFolder(f"there is no folder {out.parent} to save {out.name} in: make it first")
    image.save(out, **_how(out.suffix))
    return out


def export(atlas_url: str, layer: str, neurons: str, out: Path, how: Saving = Saving()) -> int:
    """A selection of a layer's pictures, a contact sheet of them and a table that says what they are, in the folder
    ``out``, or in one file where its name ends in ``.zip``; returns how many pictures.

    Neurons without a picture are left out, since a selection may be a range of an atlas half finished.

    Raises:
        SchemaMismatch: the atlas has no such layer.
        UnknownNeuron: a neuron is out of range, or none of them has a picture.
        UnsuitableFolder: ``out`` is there already and not an empty folder.
    """
    pictures = open_atlas(atlas_url).require_layer(layer)
    made = pictures.made()
    chosen = [neuron for neuron in parse_neurons(neurons, len(made), layer) if made[neuron]]
    if not chosen:
        raise UnknownNeuron(
            f"none of the neurons {neurons or 'asked for'} of layer {layer!r} has a picture: "
            f"`vital info {atlas_url}` says which have, and why not"
        )
    if out.exists() and not (out.is_dir() and out.suffix != ".zip" and not any(out.iterdir())):
        raise UnsuitableFolder(f"{out} exists already: remove it, or choose another output")
    files = _files(pictures, chosen, how, shown_channels(how.shown, pictures))
    if out.suffix.lower() == ".zip":
        _write_zip(out, files)
    else:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files:
            (out / name).write_bytes(data)
    return len(_facets(pictures, chosen))


def _files(
    pictures: AtlasLayer, chosen: Sequence[int], how: Saving, shown: tuple[int, ...]
) -> Iterator[tuple[str, bytes]]:
    kind = how.kind
    for neuron, facet in _facets(pictures, chosen):
        buffer = io.BytesIO()
        _image(pictures, neuron, facet, how.masked, shown).save(buffer, kind.upper(), **_how(f".{kind}"))
        yield _file_name(pictures.name, neuron, kind, facet), buffer.getvalue()
    if how.sheet:
        few = _facets(pictures, chosen)[:LARGEST_SHEET]
        cells = (
            Cell(
                pictures.neuron_name(neuron),
                f"{pictures.name} {neuron}",
                as_shown(pictures.pixels([neuron], [facet])[0], shown),
            )
            for neuron, facet in few
        )
        yield SHEET, sheet_png(contact_sheet(cells, len(few), Grid(columns=8, side=160, gap=24)))
    yield TABLE, _table(pictures, chosen, kind)


def _table(pictures: AtlasLayer, chosen: Sequence[int], kind: Format) -> bytes:
    text, layer = io.StringIO(), pictures.name
    rows = csv.writer(text)
    facets = _facets(pictures, chosen)
    several = pictures.most_facets > 1
    rows.writerow(("file", "layer", "neuron", *(["facet"] if several else []), "name", "seed", "loss"))
    neurons, numbers = zip(*facets, strict=True)
    seeds, losses = pictures.rows(neurons, ("seed", "loss"), numbers).values()
    names = pictures.neuron_names(neurons)
    for (neuron, facet), name, seed, loss in zip(facets, names, seeds, losses, strict=True):
        which = (layer, neuron, *([facet] if several else []), name)
        rows.writerow((_file_name(layer, neuron, kind, facet), *which, int(seed), f"{loss[-1]:.6g}"))
    return text.getvalue().encode("utf-8")


def _facets(pictures: AtlasLayer, chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Neurons with each of their facets, counted from 0."""
    counts = pictures.facets(chosen).tolist()
    return [(neuron, facet) for neuron, count in zip(chosen, counts, strict=True) for facet in range(count)]


def _file_name(layer: str, neuron: int, kind: str, facet: int = 0) -> str:
    return f"{folder_name(layer)}-{neuron:05d}{f'-facet{facet}' if facet else ''}.{kind}"


def _write_zip(out: Path, files: Iterator[tuple[str, bytes]]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        # pictures are compressed already; a fixed date makes the same selection the same bytes
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for name, data in files:
                archive.writestr(zipfile.ZipInfo(f"{out.stem}/{name}"), data)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def _image(pictures: AtlasLayer, neuron: int, facet: int, masked: bool, shown: tuple[int, ...]) -> Image.Image:
    rows = pictures.rows([neuron], ("pixels", "alpha"), [facet])
    image = Image.fromarray(as_shown(rows["pixels"][0], shown))
    if masked:
        image.putalpha(Image.fromarray(rows["alpha"][0]))
    return image


def _how(suffix: str) -> dict[str, Any]:
    return {"lossless": True} if suffix.lower() == ".webp" else {"quality": 95} if suffix.lower() != ".png" else {}


def _require_picture(pictures: AtlasLayer, atlas_url: str, neuron: int) -> None:
    made = pictures.made()
    if not 0 <= neuron < len(made):
        raise UnknownNeuron(
            f"neuron {neuron} is not in layer {pictures.name!r}, which has {len(made)}: ask for 0 to {len(made) - 1}"
        )
    if not made[neuron]:
        raise UnknownNeuron(
            f"neuron {neuron} of layer {pictures.name!r} has no picture: `vital info {atlas_url}` says which have, and "
            "why not"
        )


LOOPBACK = "127.0.0.1"
"""Nobody but this machine may see the pages: photographs may be private."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Without a line for every file, and without listings of folders."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class calls
        """Write no line for a request: the command prints its own."""

    def list_directory(self, path: object) -> None:
        """Answer that there is no such page where a folder has no index; its files are not listed."""
        self.send_error(404)


def require_pages(folder: Path) -> Path:
    """The index page of a folder; raises UnsuitableFolder where there is none."""
    index = folder / "index.html"
    if not index.is_file():
        raise UnsuitableFolder(
            f"{folder} holds no pages (no index.html): write them with `vital pages ATLAS --out {folder}` first"
        )
    return index


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve ``folder`` while the block lasts; gives the URL. Port 0 is any free one.

    Raises:
        UnsuitableFolder: the folder holds no pages, or the port is taken.
    """
    require_pages(folder)
    handler = functools.partial(_Quiet, directory=str(folder))
    try:
        server = http.server.ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError as error:
        raise UnsuitableFolder(
            f"port {port} cannot be used ({error.strerror}): give another --port, or none for any free one"
        ) from None
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
