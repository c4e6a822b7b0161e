"""One neuron's target from loose photographs, of which every one is in memory: what one pass over them gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from vital.measuring.kept.sampling import unit_hash
from vital.measuring.photos import Photographs
from vital.measuring.rows import stored_levels, stored_rows
from vital.measuring.sums import MEANS, ROWS, LayerSums, LayerTotal
from vital.measuring.targets.means import NodeTarget, Target
from vital.measuring.targets.passes import on
from vital.measuring.targets.trends import FEWEST_GRADED, GradedImages, first_drawn, graded_bytes
from vital.network.arithmetic import arithmetic, widened
from vital.network.layers import Layer, Survey
from vital.network.models import Model
from vital.network.probe import INPUT, anchor, probe

SPREAD = "mean_deviation"
"""The statistic by which it is told how much of a difference references share."""

MOST_REFERENCES, LEAST_REFERENCES, SHARE = 50, 5, 4
"""Photographs that are references where nobody says how many: one of so many, from five to fifty."""


def usual_references(photographs: int) -> int:
    """How many of some photographs are a neuron's references where nobody says: a part, since what excites a neuron is
    told by those that do not; all where these are too few to learn from.

    >>> [usual_references(count) for count in (7, 8, 20, 40, 60, 100, 200, 1000)]
    [7, 5, 5, 10, 15, 25, 50, 50]
    """
    if photographs < FEWEST_GRADED:
        return photographs
    return min(MOST_REFERENCES, max(LEAST_REFERENCES, photographs // SHARE))


@dataclass(frozen=True, eq=False)
class Seen:
    """What a neuron, and the nodes before it, make of photographs."""

    layer: Layer
    number: int
    peak: Float32[np.ndarray, "image"]
    """The neuron's greatest value on each."""
    site: Int64[np.ndarray, "image"]
    """Where that is, counted as in rankings; of equal values the first."""
    own: Float32[np.ndarray, "image level"]
    """Its sorted activations, at the layer's levels."""
    kept: Int64[np.ndarray, "kept"]
    """The photographs whose rows at the nodes are kept, in ascending order."""
    crowd: Float32[np.ndarray, "kept every_neuron"]
    """The peaks of all neurons of the layer on these; of a dictionary's features, which are many, of this one alone."""
    rows: Mapping[str, Float32[np.ndarray, "kept _channel _level"]]
    levels: Mapping[str, Float[np.ndarray, "_level"]]
    """Those of every node's rows, and of the ``own`` ones."""
    sums: Mapping[str, LayerSums]
    """Of every node over all photographs."""

    def best(self, most: int) -> Int64[np.ndarray, "reference"]:
        """The photographs that activate the neuron most, the best first, as `vital references` ranks them: of equal
        ones the first, and none on which a feature of a dictionary is zero."""
        counts = self.peak > (0 if self.layer.reads.sparse else -np.inf)
        order = np.argsort(-self.peak, kind="stable")
        chosen: np.ndarray = order[counts[order]][:most]
        return chosen

    def holds(self, references: Int64[np.ndarray, "reference"]) -> bool:
        """Whether the rows of all of these are kept."""
        return bool(np.isin(references, self.kept).all())

    def target(self, references: Int64[np.ndarray, "reference"]) -> Target:
        """The mean rows of some photographs whose rows are kept, whole, as `vital.measuring.targets.measure` has them;
        nothing of it is about relevance."""
        at = np.searchsorted(self.kept, references)
        nodes = {name: NodeTarget(self.levels[name], _mean(rows[at])[None]) for name, rows in self.rows.items()}
        count = np.array([len(references)])
        own = _mean(self.own[references])[None]
        return Target(
            self.layer.name, np.array([self.number]), nodes, self.levels["own"], own, count, self.layer.readout
        )

    def with_trend(self, target: Target, references: Int64[np.ndarray, "reference"]) -> Target:
        """A ``target`` that was measured on these ``references``, whole, with what is usual of all photographs and,
        where the rows of enough are kept, with the trend that these show."""
        known = {
            name: {part: MEANS[part].of(sums).astype(np.float32) for part in (ROWS, SPREAD)}
            for name, sums in self.sums.items()
        }
        nodes = {
            # of colours it is not asked how much references share, as of those of a data set
            name: replace(node, usual=known[name][ROWS], deviation=None if name == INPUT else known[name][SPREAD])
            for name, node in target.nodes.items()
        }
        graded = GradedImages.finite(self.kept, self.rows, self.crowd)
        if len(graded.image) < FEWEST_GRADED:
            return replace(target, nodes=nodes)
        peaks = self.peak[graded.image][:, None]
        return graded.with_trend(replace(target, nodes=nodes), references[None], self.peak[references][None], peaks)


def seen_by(
    model: Model,
    survey: Survey,
    neuron: tuple[Layer, int],
    photographs: Photographs,
    nodes: Sequence[str] = (),
    *,
    levels: int = 128,
    batch: int = 8,
) -> Seen:
    """One pass of photographs, as far as the layer of a ``neuron``, which is inside the network.

    Rows at the ``nodes`` are kept of all photographs where these take 512 MiB (`MOST_BYTES`), else of as many as that
    holds, `FEWEST_GRADED` at least, the first by lots of their names: so they are of all kinds, in whatever order
    these come. Further memory: two exact sums a node, and one batch's activations.

    Args:
        model: network and preprocessing.
        survey: its layers.
        neuron: the layer, and the neuron's number in it.
        photographs: at the size of the model's input.
        nodes: layers whose activations are to be matched; where there are none, only the neuron is looked at.
        levels: levels kept of a sorted row with more sites than that.
        batch: photographs together.
    """
    layer, number = neuron
    reads, read = layer.reads.of([number]), survey.layer(layer.reads.layer)
    side, colours = model.preprocessing.side, model.preprocessing.colours
    shapes = {
        name: (colours, side**2) if name == INPUT else (survey.layer(name).channels, survey.layer(name).sites)
        for name in nodes
    }
    at = {name: stored_levels(sites, levels) for name, (_, sites) in shapes.items()}
    at["own"] = stored_levels(1 if reads.site is not None else read.sites, levels)
    device, images = anchor(model.network).device, len(photographs)
    kept_shapes = {name: (channels, len(at[name])) for name, (channels, _) in shapes.items()}
    kept = first_drawn(np.array([unit_hash(name) for name in photographs.names]), graded_bytes(kept_shapes.values()))
    rows = {name: np.empty((len(kept), *shape), np.float32) for name, shape in kept_shapes.items()}
    totals = {name: LayerTotal(*shape, device) for name, shape in kept_shapes.items()}
    own, peak = np.empty((images, len(at["own"])), np.float32), np.empty(images, np.float32)
    site = np.empty(images, np.int64)
    counted = slice(None) if reads.site is not None else read.own
    crowd = np.empty((len(kept), 1 if reads.sparse else layer.channels), np.float32)
    with (
        arithmetic(model, "float32") as used,
        probe(used.network, [*nodes, reads.layer], survey.layouts()) as run,
        torch.inference_mode(),
    ):
        for start in range(0, images, batch):
            pixels = on(device, photographs.pixels[start : start + batch])
            part, here = slice(start, start + len(pixels)), np.arange(start, start + len(pixels))
            activations = run(used.preprocessing.normalise(pixels).to(anchor(used.network).dtype))
            asked = torch.full((len(pixels),), number, device=device)
            precise = widened(activations[reads.layer])
            map_ = reads.own(precise, asked)
            own[part] = stored_rows(map_[:, None], levels)[:, 0].numpy(force=True)
            map_ = map_[:, counted]
            held = np.isin(here, kept)
            rows_of = np.searchsorted(kept, here[held])
            if len(nodes):
                every = map_[:, None] if reads.sparse else layer.reads.maps(precise)[..., counted]
                crowd[rows_of] = every.amax(-1).numpy(force=True)[held]
            peak[part], site[part] = (one.numpy(force=True) for one in (map_.amax(1), map_.argmax(1)))
            for name, total in totals.items():
                rows[name][rows_of] = total.add(widened(activations[name]), levels).numpy(force=True)[held]
    if reads.site is not None:
        site[:] = max(0, reads.site - read.own.start)
    sums = {name: total.sums() for name, total in totals.items()}
    return Seen(layer, number, peak, site, own, kept, crowd, rows, at, sums)


def _mean(rows: Float32[np.ndarray, "image *row"]) -> Float32[np.ndarray, "*row"]:
    mean: np.ndarray = rows.mean(0, dtype=np.float64).astype(np.float32)
    return mean
