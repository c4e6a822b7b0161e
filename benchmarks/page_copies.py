"""The pages of a layer of very many neurons, whose pictures are copies of a few: all that is told of the layer is real
and as large as that of other pictures, so how pages open, scroll and search can be measured in a minute."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.page_material import LABELS, LAYER, METRICS, RANKS, WORDS, photograph, words
from stores.pages.content import AtlasPage, Column, Curve, LayerPage, NeuronPage, Photo, Sources, TrustLine
from stores.pages.folder import SITE_FOLDER
from stores.pages.sheets import PER_SHEET, TILES, picture_file
from stores.pages.website import Site

REAL = 2
"""Sheets whose pictures are made."""
SIDE, PHOTOS = 224, 6000
SHOWN = 1234
"""The neuron whose own page is opened."""


def write_copies(out: Path, neurons: int) -> dict[str, float]:
    """Write such pages; returns the processor time of what is told of the layer, and its bytes."""
    stream = np.random.default_rng(0)
    with ThreadPoolExecutor(1) as pool:
        site = Site(out, "Copies", [AtlasPage("copies", "copies.zarr")], pool)
        photo = picture_file(photograph(stream, 160, 160))
        for sheet in range(REAL):
            pages = [_neuron(neuron, stream) for neuron in range(sheet * PER_SHEET, (sheet + 1) * PER_SHEET)]
            site.chunk(0, LAYER, sheet, pages, lambda names: dict.fromkeys(names, photo))
        begun = time.process_time()
        site.layer(0, _layer(neurons, stream))
        seconds = time.process_time() - begun
        index = site.close()
    folder = index.parent / SITE_FOLDER / "0" / LAYER
    told = sum(path.stat().st_size for path in folder.glob("*.js"))
    for neuron in range(REAL * PER_SHEET, neurons):
        _page(folder, neuron).parent.mkdir(exist_ok=True)
        os.link(_page(folder, neuron % (REAL * PER_SHEET)), _page(folder, neuron))
    for sheet in range(REAL, -(-neurons // PER_SHEET)):
        for size in TILES:
            os.link(folder / f"sheet-{sheet % REAL}-{size}.webp", folder / f"sheet-{sheet}-{size}.webp")
    _chunk_of(SHOWN, folder)
    return {"layer_cpu_seconds": round(seconds, 1), "layer_bytes": told}


def _page(folder: Path, neuron: int) -> Path:
    """A neuron's picture."""
    return folder / str(neuron // PER_SHEET) / f"{neuron}.webp"


def _chunk_of(neuron: int, folder: Path) -> None:
    """The data of the chunk with a neuron: those of the first one under other numbers."""
    first = neuron // PER_SHEET * PER_SHEET
    text = (folder / "neurons-0.js").read_text("ascii").replace(f"{LAYER}/0", f"{LAYER}/{neuron // PER_SHEET}", 1)
    renamed = re.sub(r'"(\d+)":\{"seed"', lambda found: f'"{first + int(found[1])}":{{"seed"', text)
    (folder / f"neurons-{neuron // PER_SHEET}.js").write_text(renamed, "ascii")


def _neuron(neuron: int, stream: np.random.Generator) -> NeuronPage:
    def photos(count: int, above: bool = False) -> list[Photo]:
        numbers = stream.integers(0, PHOTOS, count)
        return [
            Photo(f"{number % 64:016x}", f"photo{number:06d}", 3.25, "a label", "", (0.25, 0.25, 0.28, 0.28))
            if not above
            else Photo(f"{number % 64:016x}", f"photo{number:06d}", 3.25, "a label", "", None, 0.5)
            for number in numbers.tolist()
        ]

    curves = [Curve(f"layer{node}", *np.sort(stream.normal(size=(2, 64)), 1)) for node in range(5)]
    sources = [Sources(f"layer{node}", list(range(8)), stream.random(8).tolist()) for node in range(4)]
    return NeuronPage(
        neuron, photograph(stream, SIDE, SIDE), None, np.sort(stream.gamma(2, 1, 50))[::-1].astype(np.float32), 0,
        curves, sources, photos(9), TrustLine([True, None, False], "Reaches its references (1.02 of their mean peak)."),
        across=photos(10, above=True),
    )  # fmt: skip


def _layer(neurons: int, stream: np.random.Generator) -> LayerPage:
    vocabulary, labels = words(WORDS), words(LABELS)
    names = np.where(stream.random(neurons) < 0.75, vocabulary[stream.integers(0, WORDS, neurons)], "")
    columns = [Column(name, "a made-up metric", stream.beta(2, 2, neurons)) for name in ("loss", "mean peak", *METRICS)]
    return LayerPage(
        LAYER, SIDE, np.ones(neurons, np.uint8), {1: "made"}, names.tolist(), columns, stream.random((neurons, 2)), 300,
        photographs=_photographs(stream.integers(0, PHOTOS, (neurons, RANKS))),
        labels=[
            (str(label), neuron, 4) for neuron, label in enumerate(labels[stream.integers(0, LABELS, neurons)].tolist())
        ],
    )  # fmt: skip


def _photographs(image: np.ndarray) -> Sequence[tuple[Photo, Sequence[int]]]:
    """Each photograph with the neurons that have it among their references, the best rank first."""
    found: Mapping[int, list[int]] = {number: [] for number in range(PHOTOS)}
    for rank in range(image.shape[1]):
        for neuron, number in enumerate(image[:, rank].tolist()):
            found[number].append(neuron)
    return [
        (Photo(f"{number % 64:016x}", f"photo{number:06d}", 0.0, "a label"), list(dict.fromkeys(of)))
        for number, of in found.items()
    ]
