"""Where a neuron is active on the photographs of its page: one pass of each photograph through the network serves all
neurons that show it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from flows.jobs import Running
from flows.pages.photographs.shown import Shown
from flows.running.process import LoadedModel, decoders_of
from flows.steps.images import load_images
from stores import Statistics
from stores.dataset.kept.references import LOWEST
from vital.network.arithmetic import rounding
from vital.network.probe import probe

MAP_SIDE = 14
"""Greatest side of a map: beside a photograph of 160 pixels a finer one shows no more, and a map takes 196 bytes."""
BATCH = 16
"""Photographs in one pass."""


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """The maps of the neurons of a layer."""

    statistics: Statistics
    loaded: LoadedModel
    layer: str
    urls: Mapping[str, str]

    @property
    def grid(self) -> int:
        """Rows, which are as many as columns, of the layer's own map; 0 where its neurons have none."""
        layer = self.loaded.survey.layer(self.layer)
        module = self.loaded.survey.layer(layer.reads.layer)
        sites = module.own_sites
        grid = math.isqrt(sites)
        return grid if layer.reads.site is None and grid > 1 and grid * grid == sites else 0

    @property
    def made_of(self) -> str:
        """Tells maps apart that differ for the same photographs."""
        return f"{self.statistics.base_fingerprint}/{min(self.grid, MAP_SIDE)}"

    @rounding()
    def of(self, shown: Mapping[int, Sequence[Shown]]) -> dict[int, UInt8[np.ndarray, "photo row column"]]:
        """The maps of each neuron's photographs: 0 where it is as active as on average over the data set or less, 255
        where it is as active as on its best reference, or beyond. Of the lowest, the other way down."""
        side = min(self.grid, MAP_SIDE)
        made = {neuron: np.zeros((len(photos), side, side), np.uint8) for neuron, photos in shown.items()}
        wanted = sorted(
            (photo.image, neuron, position) for neuron, photos in shown.items() for position, photo in enumerate(photos)
        )
        by_image = {image: list(rows) for image, rows in groupby(wanted, lambda row: row[0])}
        ends = {
            lowest: self._ends(sorted(shown), lowest)
            for lowest in {photo.lowest for photos in shown.values() for photo in photos}
        }
        for image, maps in self._own({image: [row[1] for row in rows] for image, rows in by_image.items()}):
            for own, (_, neuron, position) in zip(maps, by_image[image], strict=True):
                made[neuron][position] = _scaled(own, *ends[shown[neuron][position].lowest][neuron], side)
        return made

    def _ends(self, neurons: Sequence[int], lowest: bool) -> dict[int, tuple[float, float]]:
        """What is usual for each neuron, and what it is at the first of its references."""
        first = self.statistics.reference(self.layer + LOWEST * lowest, "score", 1, neurons)[:, 0]
        usual = self.statistics.statistic(self.layer, "mean")
        return {neuron: (float(usual[neuron]), float(end)) for neuron, end in zip(neurons, first, strict=True)}

    def _own(self, neurons: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, Float[Tensor, "neuron row column"]]]:
        """Image by image, the maps of the neurons that show it."""
        model, device, grid = self.loaded.model, self.loaded.device, self.grid
        reads = self.loaded.survey.layer(self.layer).reads
        reads = reads.of(sorted({neuron for some in neurons.values() for neuron in some}))
        sites = self.loaded.survey.layer(reads.layer).own
        decoders = decoders_of(Running(), device)
        images = load_images(self.statistics, sorted(neurons), model.preprocessing, self.urls, decoders)
        with torch.inference_mode(), probe(model.network, [reads.layer], self.loaded.survey.layouts()) as run:
            while part := list(islice(images, BATCH)):
                pixels = torch.stack([pixels for _, pixels in part]).to(device)
                activations = run(model.preprocessing.normalise(pixels))[reads.layer]
                for (image, _), one in zip(part, activations[..., sites], strict=True):
                    numbers = torch.tensor(neurons[image], device=device)
                    own = reads.own(one.expand(len(numbers), -1, -1), numbers)
                    yield image, own.reshape(-1, grid, grid).float().cpu()


def _scaled(own: Float[Tensor, "row column"], usual: float, end: float, side: int) -> UInt8[np.ndarray, "side side"]:
    if not math.isfinite(end) or end == usual:
        return np.zeros((side, side), np.uint8)
    share = (own - usual) / (end - usual)
    # the greatest of the sites that share a place: a neuron's activation is that of its strongest site
    reduced = F.adaptive_max_pool2d(share[None, None], side)[0, 0]
    levels: np.ndarray = (reduced.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return levels
