"""From atlases to the pages that people look at: every layer chunk by chunk, with its references' photographs."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import groupby
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8

from flows.jobs import Running
from flows.pages.layer import LayerSource
from flows.pages.photographs.maps import LayerMaps
from flows.pages.photographs.shown import LayerPhotographs
from flows.pages.photographs.thumbnails import Thumbnails
from flows.running.neurons import shown_channels
from flows.running.process import LoadedModel, load_stored
from flows.running.progress import bar
from flows.steps.reading.labels import network_names
from stores import Statistics, open_atlas
from stores.arrays.display import as_shown
from stores.errors import SchemaMismatch, StoreError
from stores.files import safe_url
from stores.pages.content import AtlasPage
from stores.pages.sheets import PER_SHEET, Cell, Grid, contact_sheet, sheet_png
from stores.pages.website import Site
from stores.shards.decoding import decode
from vital.errors import UnsuitableInput, VitalError, in_line
from vital.network.probe import CLASSES

ON_SHEET = 48
"""Pictures of the contact sheet that stands beside the pages."""


@dataclass(frozen=True)
class Showing:
    """What pages show of an atlas, and where it is."""

    photos: bool = True
    """Whether pictures stand beside photographs. Without them the statistics may be out of reach: then the pages show
    no sources and no similarity."""
    store: str | None = None
    """Where the statistics are, when they moved."""
    shards: Sequence[str] = ()
    """Where the shards are, when they moved."""
    credits: Mapping[str, str] = field(default_factory=dict)
    """Whose the photographs are, by key."""
    maps: Running | None = None
    """Where the network runs that shows where neurons are active on the photographs; left out without it."""
    channels: str = ""
    """Those that stand for red, green and blue, or the one for grey, such as ``3,2,1``; the atlas's by default."""


def write_gallery(
    atlas_url: str | Sequence[str], out: Path, showing: Showing | None = None, title: str = "VITAL Atlas"
) -> Path:
    """The pages of one atlas, or of several that can be compared, and a contact sheet; returns the path of the index
    page. What an earlier run wrote from the same data stays as it is.

    Raises:
        SchemaMismatch: an atlas holds no finished picture, or its statistics are not where they were.
        UnsuitableInput: maps were asked for, and there is no such network here.
    """
    urls = [atlas_url] if isinstance(atlas_url, str) else list(atlas_url)
    sources = [_AtlasSource(url, showing or Showing()) for url in urls]
    workers = os.cpu_count() or 1
    # What another run is just writing there would be swept away.
    lock = out.absolute().parent / f".{out.absolute().name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock), ThreadPoolExecutor(workers) as pool:
        site = Site(out, title, [source.page(name) for source, name in zip(sources, titles(urls), strict=True)], pool)
        for number, source in enumerate(sources):
            source.write(site, number, pool)
        site.credits({key: text for source in sources for key, text in source.credited().items()})
        index = site.close()
    site.folder.write("contact-sheet.png", sources[0].sheet(site))
    return index


def titles(urls: Sequence[str]) -> list[str]:
    """Short names of atlases: the last part of each URL, with as many parts before it as tell them apart.

    >>> titles(["a/atlas.zarr", "b/atlas.zarr"]), titles(["x/paper.zarr", "x/natural.zarr"])
    (['a/atlas', 'b/atlas'], ['paper', 'natural'])
    """
    parts = [safe_url(url).rstrip("/").removesuffix(".zarr").split("/") for url in urls]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


class _AtlasSource:
    """One atlas of the site."""

    def __init__(self, url: str, showing: Showing) -> None:
        self.url = url
        self.atlas = open_atlas(url)
        self.statistics = self._reach(showing.store, showing.photos)
        names = network_names(self.statistics) if self.statistics is not None else {}
        shown = safe_url(self.statistics.url if self.statistics is not None else self.atlas.statistics_url)
        self.layers = [
            LayerSource(self.atlas, pictures, shown, self.statistics, shown_channels(showing.channels, pictures), names)
            for pictures in map(self.atlas.layer, self.atlas.layers)
        ]
        if self.atlas.empty:
            raise SchemaMismatch(f"{url} holds no finished picture yet: `vital info {url}` says how far it is")
        self._network: LoadedModel | None = None
        self._photographs: Thumbnails | None = None
        if showing.photos and self.statistics is not None:
            self._network = self._loaded(self.statistics, showing.maps) if showing.maps else None
            self._photographs = Thumbnails(
                self.statistics, showing.shards, showing.credits, self._class_names(), self.layers[0].shown
            )

    def _loaded(self, statistics: Statistics, running: Running) -> LoadedModel:
        try:
            return load_stored(statistics, running)
        except (VitalError, StoreError) as error:
            raise UnsuitableInput(f"{error}; or leave out where neurons are active with --no-maps") from error

    def _maps(self, layer: str) -> LayerMaps | None:
        if self._network is None or self._photographs is None:
            return None
        maps = LayerMaps(self._photographs.statistics, self._network, layer, self._photographs.moved)
        return maps if maps.grid else None

    def _reach(self, store: str | None, needed: bool) -> Statistics | None:
        try:
            return self.atlas.statistics(store)
        except SchemaMismatch:
            if needed or store:
                raise
            return None

    def _class_names(self) -> list[str]:
        if CLASSES in self.atlas.layers:
            return self.atlas.layer(CLASSES).names
        return list(self._network.model.class_names) if self._network is not None else []

    def page(self, title: str) -> AtlasPage:
        """What the site says of the atlas."""
        base = self.statistics.base if self.statistics is not None else {}
        facts = {"model": str(base["model"])} if "model" in base else {}
        facts |= {"weights": str(base["weights"])} if "weights" in base else {}
        return AtlasPage(title, safe_url(self.url), facts)

    def credited(self) -> Mapping[str, str]:
        """Credits of the photographs shown."""
        return self._photographs.shown if self._photographs else {}

    def write(self, site: Site, number: int, pool: ThreadPoolExecutor) -> None:
        """Write every layer's wall and pages into ``site``, as the atlas of this ``number``; ``pool`` makes images."""
        for source in self.layers:
            made = source.made
            shown = self._shown(source)
            part = _LayerPages(source, shown, self._maps(source.layer), self._photographs)
            chunks: dict[int, list[int]] = {}
            for neuron in made:
                chunks.setdefault(neuron // PER_SHEET, []).append(neuron)
            if not made:
                sys.stderr.write(
                    f"{in_line(source.layer)}: no neuron has a picture, so none has a page; `vital info "
                    f"{safe_url(self.url)}` says why, and `vital atlas` makes those that are not made yet\n"
                )
                site.layer(number, source.page())
                continue
            with bar(f"{source.layer}: pages written", len(made)) as line:
                for chunk, neurons in chunks.items():
                    part.write(site, number, chunk, neurons, pool)
                    line.tick(len(neurons))
            page = source.page()
            if shown:
                page = replace(page, photographs=shown.seen_by(made), labels=shown.labelled(made))
            site.layer(number, page)

    def _shown(self, source: LayerSource) -> LayerPhotographs | None:
        return LayerPhotographs(self._photographs, source.pictures) if self._photographs else None

    def sheet(self, site: Site) -> bytes:
        """A contact sheet of pictures spread over all layers, as PNG, each beside its first photograph."""
        everyone = [(source, neuron) for source in self.layers for neuron in source.made]
        chosen = everyone[:: max(1, -(-len(everyone) // ON_SHEET))]
        cells = (
            cell
            for source, of_source in groupby(chosen, lambda one: one[0])
            for cell in self._cells(site, source, [neuron for _, neuron in of_source])
        )
        paired = self._photographs is not None
        return sheet_png(
            contact_sheet(cells, len(chosen), Grid(columns=6 if paired else 8, side=112, gap=24, paired=paired))
        )

    def _cells(self, site: Site, source: LayerSource, neurons: Sequence[int]) -> Iterator[Cell]:
        """The cells of some neurons of a layer, of which what is shown is read together."""
        pictures, shown, whole = source.pictures, self._shown(source), source.whole
        photographs = shown.of(neurons)[0] if shown else {}
        seen = as_shown(pictures.pixels(neurons), source.shown)
        for neuron, name, pixels in zip(neurons, pictures.neuron_names(neurons), seen, strict=True):
            number = f"{source.layer} {neuron}"
            photos = photographs[neuron].references if shown else []
            if not photos:
                yield Cell(name, number, pixels)
                continue
            data = (site.folder.root / site.photo_name(photos[0].file)).read_bytes()
            top, left, height, width = photos[0].box or (0.0, 0.0, 1.0, 1.0)
            box = (left, top, left + width, top + height) if photos[0].box and not whole else None
            yield Cell(name, number, pixels, decode(data), box)


@dataclass(frozen=True)
class _LayerPages:
    """What the pages of a layer's neurons are made of."""

    source: LayerSource
    shown: LayerPhotographs | None
    maps: LayerMaps | None
    photographs: Thumbnails | None

    def write(self, site: Site, number: int, chunk: int, neurons: Sequence[int], pool: ThreadPoolExecutor) -> None:
        """Write the pages of some neurons, whose pictures are of one sheet, into the atlas of this ``number``."""
        photographs, maps = self.photographs, self.maps
        photos, images = self.shown.of(neurons) if self.shown else ({}, {})
        words, evidence = self.source.words.of(neurons, photographs)
        images = {**images, **evidence}

        def read(names: Sequence[str]) -> Mapping[str, bytes]:
            return photographs.read({name: images[name] for name in names}, pool) if photographs else {}

        def mapped() -> Mapping[int, UInt8[np.ndarray, "_photo _row _column"]]:
            return maps.of({neuron: seen.shown for neuron, seen in photos.items()}) if maps else {}

        pages = self.source.neurons(neurons, photos, words, maps.made_of if maps else "")
        site.chunk(number, self.source.layer, chunk, pages, read, mapped)


def read_credits(file: Path | None) -> dict[str, str]:
    """Credits by key from a CSV with the columns key, author, licence; the embedded photos' by default."""
    try:  # a spreadsheet may write a mark of the byte order first
        source = (file or resources.files("flows.demo") / "CREDITS.csv").read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnsuitableInput(f"{file} is no text in UTF-8 ({error.reason}): save it as CSV in UTF-8") from error
    rows = csv.DictReader(source.splitlines())
    if "key" not in (rows.fieldnames or ()):
        raise UnsuitableInput(f"{file} has the columns {rows.fieldnames}, but key, author, licence were expected")
    return {row["key"]: ", ".join(filter(None, (row.get("author"), row.get("licence")))) for row in rows}
