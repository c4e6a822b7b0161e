"""From an atlas to what people look at: its pictures beside their references' thumbnails, as pages, a sheet, or one
file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import zarr
from PIL import Image

from flows.statistics_store import load_images, moved_urls, references_of
from flows.target_store import recorded_variant
from stores.errors import SchemaMismatch, StoreError
from stores.index import read_index
from stores.pages import NeuronPage, Thumbnail, write_pages
from stores.pictures import made, read_pictures
from stores.provenance import claimed
from stores.schema import group_at, open_store
from stores.sheets import contact_sheet, sheet_png
from vital.errors import UnknownNeuron
from vital.preprocessing import Preprocessing
from vital.probe import CLASSES
from vital.ranking import NOBODY

THUMBNAILS = 6
THUMBNAIL_SIDE = 128
CHUNK = 64
"""Neurons whose pictures are in memory at once."""


def atlas_layers(atlas: zarr.Group) -> list[str]:
    """The layers of an atlas, classes first; those whose arrays a killed run did not finish to create are left out."""
    found = [name for name, part in atlas.groups() if claimed(part, "atlas") is not None and "done" in part]
    return sorted(found, key=lambda name: (name != CLASSES, name))


def neuron_name(atlas: zarr.Group, layer: str, neuron: int) -> str:
    """The class's name, or the channel's number."""
    names = group_at(atlas, layer).attrs.get("names") or []
    assert isinstance(names, list)
    return (
        str(names[neuron]) if neuron < len(names) else (f"class {neuron}" if layer == CLASSES else f"channel {neuron}")
    )


class References:
    """Thumbnails of a layer's references, as the pictures saw them: whole, or cut to their patch."""

    def __init__(
        self, statistics: zarr.Group, layer: str, variant: str, shards: Sequence[str], credits_: Mapping[str, str]
    ) -> None:
        self._group, self._credits = statistics, credits_
        self._found = references_of(statistics, layer, recorded_variant(statistics, layer, variant).references)
        self._whole = variant.startswith("image")
        base = claimed(statistics, "base") or {}
        self._preprocessing = Preprocessing(int(base["input_size"]), tuple(base["mean"]), tuple(base["std"]))
        self._urls = moved_urls(statistics, shards)
        self._keys = read_index(statistics).key

    def of(self, neurons: Sequence[int]) -> dict[int, list[Thumbnail]]:
        """Up to `THUMBNAILS` for each neuron, best first; every image is read once."""
        side = self._preprocessing.side
        wanted = {
            neuron: [int(image) for image in self._found.image[neuron][:THUMBNAILS] if image != NOBODY]
            for neuron in neurons
        }
        images = dict(
            load_images(
                self._group, sorted({one for ids in wanted.values() for one in ids}), self._preprocessing, self._urls
            )
        )
        shown: dict[int, list[Thumbnail]] = {}
        for neuron, ids in wanted.items():
            shown[neuron] = []
            for rank, image in enumerate(ids):
                box = (0, 0, side, side) if self._whole else tuple(int(edge) for edge in self._found.box[neuron, rank])
                shown[neuron].append(self._thumbnail(images[image], image, box))
        return shown

    def _thumbnail(self, pixels: torch.Tensor, image: int, box: tuple[int, ...]) -> Thumbnail:
        cut = self._preprocessing.cut(pixels, np.asarray(box))
        small = torch.nn.functional.interpolate(cut[None], (THUMBNAIL_SIDE,) * 2, mode="bilinear", antialias=True)[0]
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(small.permute(1, 2, 0).numpy()), quality=85)
        key = str(self._keys[image])
        whole = box[2] == self._preprocessing.side
        return Thumbnail(data, key if whole else f"{key} {box}", self._credits.get(key, ""), key)


def pages_of(
    atlas_url: str,
    statistics_url: str,
    shards: Sequence[str],
    credits_: Mapping[str, str],
    layers: Sequence[str] = (),
    photos: bool = True,
) -> Iterator[NeuronPage]:
    """Every finished picture with its references, layer by layer, a few neurons in memory at a time."""
    atlas = open_store(atlas_url, "atlas", "r")
    statistics = open_store(statistics_url, "statistics", "r") if photos else None
    for layer in layers or atlas_layers(atlas):
        neurons = np.flatnonzero(made(atlas, layer)).tolist()
        fields = claimed(group_at(atlas, layer), "atlas") or {}
        references = References(statistics, layer, str(fields["variant"]), shards, credits_) if statistics else None
        for start in range(0, len(neurons), CHUNK):
            part = neurons[start : start + CHUNK]
            pictures = read_pictures(atlas, layer, part)
            thumbnails = references.of(part) if references else {}
            for place, neuron in enumerate(part):
                facts = {"loss": f"{pictures['loss'][place][-1]:.4g}", "seed": str(int(pictures["seed"][place]))}
                yield NeuronPage(
                    layer,
                    neuron,
                    neuron_name(atlas, layer, neuron),
                    pictures["pixels"][place],
                    None,
                    thumbnails.get(neuron, []),
                    facts,
                )


def atlas_facts(atlas: zarr.Group) -> dict[str, str]:
    """What an atlas was made from, for people."""
    record = claimed(atlas, "statistics") or {}
    facts = {"statistics": f"base {record.get('base', '?')}, dataset {record.get('dataset', '?')}"}
    for layer in atlas_layers(atlas):
        fields = claimed(group_at(atlas, layer), "atlas") or {}
        facts[layer] = (
            f"{fields['variant']}, preset {fields['preset']}, {fields['steps']} steps, "
            f"{fields['side']} px, seed {fields['seed']}"
        )
    return facts


def statistics_url(atlas: zarr.Group, given: str | None) -> str:
    """Where the statistics lie: as given, or as the atlas remembers."""
    known = given or str(atlas.attrs.get("store", ""))
    try:
        open_store(known, "statistics", "r")
    except StoreError:
        raise SchemaMismatch(
            f"the atlas's statistics are not at {known!r}: say where they are with --store, "
            "or leave the photos out with --no-references"
        ) from None
    return known


def write_gallery(
    atlas_url: str,
    out: Path,
    store: str | None = None,
    shards: Sequence[str] = (),
    credits_: Mapping[str, str] | None = None,
    photos: bool = True,
) -> Path:
    """The pages of an atlas and its contact sheet; returns the path of the index page."""
    atlas = open_store(atlas_url, "atlas", "r")
    where = statistics_url(atlas, store) if photos else ""
    neurons = list_or_refuse(pages_of(atlas_url, where, shards, credits_ or {}, (), photos), atlas_url)
    index = write_pages(out, "VITAL Atlas", atlas_facts(atlas), neurons)
    (out / "contact-sheet.png").write_bytes(sheet_png(contact_sheet(neurons, columns=6, side=112)))
    return index


def list_or_refuse(neurons: Iterator[NeuronPage], atlas_url: str) -> list[NeuronPage]:
    """All pages; raises SchemaMismatch when no picture is finished."""
    found = list(neurons)
    if not found:
        raise SchemaMismatch(f"{atlas_url} holds no finished picture yet: `vital info {atlas_url}` says how far it is")
    return found


def save_picture(atlas_url: str, layer: str, neuron: int, out: Path, side: int | None = None) -> Path:
    """One picture as a file whose kind the name tells."""
    atlas = open_store(atlas_url, "atlas", "r")
    if layer not in atlas_layers(atlas):
        raise SchemaMismatch(f"the atlas has no layer {layer!r}: it has {', '.join(atlas_layers(atlas)) or 'none'}")
    there = made(atlas, layer)
    if not 0 <= neuron < len(there):
        raise UnknownNeuron(
            f"neuron {neuron} is not in layer {layer!r}, which has {len(there)}: ask for 0 to {len(there) - 1}"
        )
    if not there[neuron]:
        raise UnknownNeuron(
            f"neuron {neuron} of layer {layer!r} has no picture: `vital info {atlas_url}` says which have, and why not"
        )
    image = Image.fromarray(read_pictures(atlas, layer, [neuron])["pixels"][0])
    if side:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    image.save(out)
    return out


def read_credits(file: Path | None) -> dict[str, str]:
    """Credits by key from a CSV with the columns key, author, licence; the embedded photos' by default."""
    source = file.read_text() if file else (resources.files("flows.demo") / "CREDITS.csv").read_text()
    rows = csv.DictReader(source.splitlines())
    return {row["key"]: ", ".join(filter(None, (row.get("author"), row.get("licence")))) for row in rows}
