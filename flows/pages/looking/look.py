"""Which neurons of an atlas see a photograph: how strongly against the data set, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, Num
from torch import Tensor

from flows.jobs import Running
from flows.pages.looking.facets import with_facets
from flows.pages.looking.sights import Look, Seen, Sight
from flows.running.process import LoadedModel, load_stored
from flows.steps.images import bands_of
from stores import Atlas, AtlasLayer, Statistics
from stores.arrays.display import as_shown
from stores.errors import SchemaMismatch
from stores.files import safe_url
from stores.shards.decoding import decode
from vital.errors import UnsupportedOperation
from vital.measuring.maps import BATCH, Responses, map_node, relevance_maps, responses, standing
from vital.measuring.photos import Photos, read_photos
from vital.measuring.targets import Attribution
from vital.network.preprocessing import Preprocessing

TOP = 10
"""Neurons of a photograph."""


def look_at(
    atlas: Atlas,
    photos: Photos,
    layers: Sequence[str] = (),
    *,
    top: int = TOP,
    each: bool = False,
    every: bool = False,
    store: str | None = None,
    running: Running | None = None,
) -> Look:
    """The ``top`` neurons of each photograph, of all ``layers`` together or of ``each``: of those with a picture, or of
    ``every`` neuron. Photographs are read before a network is loaded.

    Raises:
        UnsuitableInput: a photograph cannot be read, or there is none.
        SchemaMismatch: the atlas has no such layer or no picture; its statistics are elsewhere, or have no sample.
        ForeignStore: the network's weights are no longer those of the statistics.
    """
    statistics = atlas.statistics(store)
    preprocessing = Preprocessing.of(statistics.base)
    shown = read_photos(photos, preprocessing, partial(decode, bands=bands_of(preprocessing)))
    asked = _asked(atlas, statistics, layers, every)
    loaded = load_stored(statistics, running or Running())
    looking = _Looking(loaded, asked, top, each)
    channels = () if preprocessing.colours == 3 else loaded.model.preprocessing.shown_channels
    precision, wanted = statistics.base.get("precision", "float32"), {one.name: one.neurons.tolist() for one in asked}
    seen: list[Seen] = []
    for start in range(0, len(shown), BATCH):
        pixels = shown.pixels[start : start + BATCH]
        heard = responses(loaded.model, loaded.survey, wanted, pixels, precision)
        sights = looking.with_relevance(looking.sights(heard), pixels)
        sights = with_facets(loaded, statistics, [one.pictures for one in asked], sights, pixels)
        seen += [
            Seen(name, as_shown(np.ascontiguousarray(one.permute(1, 2, 0).numpy()), channels), tuple(row))
            for name, one, row in zip(shown.names[start : start + BATCH], pixels, sights, strict=True)
        ]
    sampled = {one.name: len(one.sample) for one in asked}
    return Look(safe_url(atlas.url), sampled, tuple(_with_pictures(seen, asked)))


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer that looks: the neurons that are asked, and their peaks on the images of the data set's sample."""

    name: str
    pictures: AtlasLayer
    neurons: Int[np.ndarray, "neuron"]
    sample: Float[np.ndarray, "sampled neuron"]


def _asked(atlas: Atlas, statistics: Statistics, layers: Sequence[str], every: bool) -> list[_Layer]:
    names = [atlas.require_layer(name).name for name in dict.fromkeys(layers)] or atlas.layers
    asked = []
    for name in names:
        pictures = atlas.layer(name)
        neurons = np.arange(pictures.count) if every else np.flatnonzero(pictures.made())
        if len(neurons):
            asked.append(_Layer(name, pictures, neurons, statistics.sample(name).peak[:, neurons]))
    if not asked:
        raise SchemaMismatch(
            f"{safe_url(atlas.url)} holds no finished picture of {', '.join(names) or 'any layer'} yet: make some with "
            "`vital atlas`, or ask neurons without one, too, with --every (every=True)"
        )
    return asked


class _Looking:
    """Neurons of some layers that look at batches of photographs."""

    def __init__(self, loaded: LoadedModel, layers: Sequence[_Layer], top: int, each: bool) -> None:
        self._loaded, self._layers, self._top = loaded, layers, top
        self._owners = [(one, row) for one in layers for row in range(len(one.neurons))]
        bounds = np.cumsum([0, *(len(one.neurons) for one in layers)]).tolist()
        # owners among whom the strongest are looked for: of each layer, or of all
        self._among = list(pairwise(bounds)) if each else [(0, bounds[-1])]
        survey, preprocessing = loaded.survey, loaded.model.preprocessing
        modules = {one.name: survey.layer(survey.layer(one.name).reads.layer) for one in layers}
        self._boxes = {name: preprocessing.boxes(module.own_sites) for name, module in modules.items()}

    def sights(self, heard: Mapping[str, Responses]) -> list[list[Sight]]:
        """Of each photograph the neurons that see it most, of all layers together or of each in turn."""
        standings = [standing(heard[one.name].peak, one.sample) for one in self._layers]
        shares, deviations = (np.concatenate(parts, axis=1) for parts in zip(*standings, strict=True))
        unknown_last = -np.nan_to_num(deviations, nan=-np.inf)
        made = []
        for image, share in enumerate(shares):
            best = [
                start + one
                for start, end in self._among
                for one in np.lexsort((unknown_last[image, start:end], -share[start:end]))[: self._top].tolist()
            ]
            made.append([self._sight(one, heard, image, share[one], deviations[image, one]) for one in best])
        return made

    def _sight(self, one: int, heard: Mapping[str, Responses], image: int, share: float, deviations: float) -> Sight:
        layer, row = self._owners[one]
        neuron, response = int(layer.neurons[row]), heard[layer.name]
        top, left, height, width = self._boxes[layer.name][response.site[image, row]].tolist()
        return Sight(
            layer.name,
            neuron,
            layer.pictures.neuron_name(neuron),
            float(response.peak[image, row]),
            float(share),
            float(deviations),
            (top, left, height, width),
            response.square(image, row),
        )

    def with_relevance(
        self, seen: Sequence[Sequence[Sight]], pixels: Num[Tensor, "image colour side side"]
    ) -> list[list[Sight]]:
        """Neurons without a map of their own get that of an earlier layer's relevance; those of a layer together."""
        sights, model, survey = [list(row) for row in seen], self._loaded.model, self._loaded.survey
        for one in self._layers:
            layer = survey.layer(one.name)
            node = map_node(survey, layer, model.name)
            unmapped = [
                (image, rank)
                for image, row in enumerate(sights)
                for rank, sight in enumerate(row)
                if sight.layer == one.name and sight.map is None
            ]
            if node is None or not unmapped:
                continue
            numbers = np.array([sights[image][rank].neuron for image, rank in unmapped])
            shown = pixels[[image for image, _ in unmapped]]
            try:
                maps = relevance_maps(model, Attribution.of(survey, one.name), numbers, shown, node)
            except UnsupportedOperation:  # how strongly is known all the same
                continue
            for (image, rank), map_ in zip(unmapped, maps, strict=True):
                sights[image][rank] = replace(sights[image][rank], map=map_, of=f"relevance at {node.name}")
        return sights


def _with_pictures(seen: Sequence[Seen], asked: Sequence[_Layer]) -> list[Seen]:
    """With the pictures of all neurons that are shown, of the facets that see the photographs, each read once."""
    pictures: dict[tuple[str, int, int], np.ndarray] = {}
    for layer in asked:
        made = layer.pictures.made()
        shown = {(sight.neuron, sight.facet or 0) for one in seen for sight in one.sights if sight.layer == layer.name}
        wanted = sorted((neuron, facet) for neuron, facet in shown if made[neuron])
        if wanted:
            pixels = layer.pictures.pixels(*map(list, zip(*wanted, strict=True)))
            rows = as_shown(pixels, layer.pictures.shown)
            pictures |= {(layer.name, *one): row for one, row in zip(wanted, rows, strict=True)}

    def shown_with(sight: Sight) -> Sight:
        return replace(sight, picture=pictures.get((sight.layer, sight.neuron, sight.facet or 0)))

    return [replace(one, sights=tuple(map(shown_with, one.sights))) for one in seen]
