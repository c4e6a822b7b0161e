"""What neurons see in photographs: how strongly against a data set, and where, by activation and by relevance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray
from jaxtyping import Float, Int, Num
from torch import Tensor

from vital.errors import UnsuitableInput
from vital.measuring.photos import Photos, read_photos
from vital.measuring.targets import Attribution, node_relevance
from vital.network.arithmetic import arithmetic, rounding, widened
from vital.network.layers import Layer, Survey, survey
from vital.network.models import Model
from vital.network.neurons import Readout, check_neurons, parse_neuron
from vital.network.nodes import check_nodes, default_nodes
from vital.network.probe import anchor, probe
from vital.propagation.mode import relevance_mode
from vital.settings import Precision, RelevanceKind

BATCH = 8
"""Photographs in one pass."""
ALIKE = 1e-4
"""Of a peak: another that differs by no more is the same, as it is on another machine or in another batch."""


def relevance(
    model: Model, neuron: str, photos: Photos, kind: RelevanceKind = "lrp", node: str | None = None
) -> Float[xarray.DataArray, "image row column"]:
    """How much every site of the layer ``node`` contributed to a neuron, on each photograph: relevance, its channels
    summed. What is shared is the neuron's own activation: where that is negative, as a logit may be, so is its share of
    the map.

    ``neuron`` is written ``LAYER:NUMBER``, ``classes:NUMBER`` or ``classes:NAME``; ``photos`` are a folder, or a list
    of files, Pillow images or uint8 arrays (row, column, 3). ``kind`` is how relevance is computed: ``lrp`` from the
    whole map of the neuron, ``lrp-gamma`` so too but leaving to biases what they make, ``lrp-restricted`` from its most
    aligned site, ``gradient-x-activation`` from the derivative; docs/relevance.md compares them. ``node`` is by default
    the first layer that is matched for the neuron, whose map is the finest.

    The result (image, row, column) has float32 values on the node's own grid; coordinates are the photographs' names,
    and the sites' centres in pixels of the photograph as the network gets it: the shorter side resized, the middle cut
    out. The sites of tokens that are not of the image, such as a class token, are left out.

    Raises:
        UnknownNeuron: the neuron is written otherwise, or there is none of this name or number.
        UnknownLayer: there is no such layer or node, or the node does not come before the layer.
        UnsuitableInput: a photograph cannot be read, or the node has no map.
        UnsupportedOperation: the network has an operation without a relevance rule.
    """
    layers, asked = survey(model, "give the side that it takes", ()), parse_neuron(neuron, model.class_names)
    layer = layers.layer(asked.layer)
    check_neurons(layer.name, layer.channels, [asked.number])
    name = node or next(iter(default_nodes(layers, layer.name, model.name)), None)
    if name is None:
        raise UnsuitableInput(f"no layer comes before {layer.name!r} where relevance could arrive: ask for a later one")
    check_nodes(layers, layer.name, [name])
    grid = _grid(layers.layer(name))
    shown = read_photos(photos, model.preprocessing)
    numbers = np.full(len(shown), asked.number)
    maps = relevance_maps(model, Attribution.of(layers, layer.name, kind), numbers, shown.pixels, layers.layer(name))
    centres = (np.arange(grid) + 0.5) * model.preprocessing.side / grid
    return xarray.DataArray(
        maps,
        dims=("image", "row", "column"),
        coords={"image": list(shown.names), "row": centres, "column": centres},
        name="relevance",
        attrs={"neuron": str(asked), "node": name, "kind": kind, "model": model.name},
    )


@torch.inference_mode(False)
@torch.enable_grad()
def relevance_maps(
    model: Model,
    attribution: Attribution,
    numbers: Int[np.ndarray, "image"],
    pixels: Num[Tensor, "image colour side side"],
    node: Layer,
) -> Float[np.ndarray, "image row column"]:
    """`relevance` at ``node`` of a neuron for each image: that of the same position in ``numbers``, of the layer and of
    the kind of the ``attribution``.

    Raises:
        UnsuitableInput: the node has no map.
        UnsupportedOperation: the network has an operation without a relevance rule.
    """
    kind, device = attribution.kind, anchor(model.network).device
    grid, mode, reads, maps = _grid(node), relevance_mode(kind), attribution.reads(numbers), []
    with rounding(), probe(model.network, [node.name, reads.layer], attribution.layouts, mode) as run:
        for start in range(0, len(pixels), BATCH):
            some = slice(start, start + BATCH)
            activations = run(model.preprocessing.normalise(pixels[some].to(device)).requires_grad_())
            own = torch.from_numpy(numbers[some].astype(np.int64)).to(device)
            arrived = node_relevance(mode, activations, reads, [node.name], own, kind)[node.name]
            maps.append(_as_maps(arrived, node.own, grid))
    return np.concatenate(maps)


@dataclass(frozen=True, eq=False)
class Responses:
    """Of each image and neuron the greatest activation, where it is, and the whole map.

    ``site`` counts row by row in the map of the module that is read, as references do, without the tokens that are not
    of the image. Of neurons that are read at one site the map is that site alone.
    """

    peak: Float[np.ndarray, "image neuron"]
    site: Int[np.ndarray, "image neuron"]
    maps: Float[np.ndarray, "image neuron site"]

    def square(self, image: int, neuron: int) -> Float[np.ndarray, "row column"] | None:
        """The map of one image and neuron by rows; None for a single site, and where the sites are no square."""
        sites = self.maps.shape[2]
        grid = math.isqrt(sites)
        return self.maps[image, neuron].reshape(grid, grid) if sites == grid * grid > 1 else None


def responses(
    model: Model,
    survey: Survey,
    neurons: Mapping[str, Sequence[int]],
    pixels: Num[Tensor, "image colour side side"],
    precision: Precision = "float32",
) -> dict[str, Responses]:
    """What ``neurons`` of some layers, in ascending order, make of one batch of images; by layer.

    Peaks are those that a pass over shards ranks by (`vital.measuring.gathering.Gathering`): the maximum over the
    sites, at the first such site.
    """
    reads = {name: survey.layer(name).reads.of(numbers) for name, numbers in neurons.items()}
    inner, device = list(dict.fromkeys(one.layer for one in reads.values())), anchor(model.network).device
    with (
        arithmetic(model, precision) as used,
        torch.inference_mode(),
        probe(used.network, inner, survey.layouts()) as run,
    ):
        seen = run(used.preprocessing.normalise(pixels.to(device)).to(anchor(used.network).dtype))
        return {
            name: _responses(survey, read, neurons[name], widened(seen[read.layer])) for name, read in reads.items()
        }


def _responses(
    survey: Survey, reads: Readout, neurons: Sequence[int], seen: Float[Tensor, "image channel site"]
) -> Responses:
    maps, own = reads.maps(seen), survey.layer(reads.layer).own
    if reads.numbers is None:  # all channels, as they are
        maps = maps[:, list(neurons)]
    first = 0 if reads.site is None else max(0, reads.site - own.start)
    maps = maps[..., own] if reads.site is None else maps
    peak, site = maps.max(-1)
    return Responses(peak.numpy(force=True), site.numpy(force=True) + first, maps.float().numpy(force=True))


def standing(
    peak: Float[np.ndarray, "image neuron"], sample: Float[np.ndarray, "sampled neuron"]
) -> tuple[Float[np.ndarray, "image neuron"], Float[np.ndarray, "image neuron"]]:
    """Of each peak the share of a sample's images with a lesser one, 0 to 1, and how many standard deviations it is
    above their mean. What is `ALIKE` is not lesser: an image of the sample is not above itself.

    The deviation is that of the neuron over the sample; of one that is the same on all of it, the layer's mean
    deviation. What is no number is above nothing.

    >>> standing(np.array([[3.0, 2.0]]), np.array([[1.0, 0.0], [3.0, 0.0]]))
    (array([[0.5, 1. ]]), array([[1., 2.]]))
    """
    share = np.stack([(sample < row - ALIKE * np.abs(row)).mean(axis=0) for row in peak])
    wide = sample.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite activations have no deviation
        deviation = wide.std(axis=0)
        known = deviation[np.isfinite(deviation) & (deviation > 0)]
        deviation[deviation == 0] = known.mean() if known.size else 1.0
        return share, (peak - wide.mean(axis=0)) / deviation


def map_node(survey: Survey, layer: Layer, model_name: str = "") -> Layer | None:
    """The last of the layers that are matched for a layer's neurons whose sites are a square map; None without one."""
    nodes = (survey.layer(name) for name in reversed(default_nodes(survey, layer.name, model_name)))
    return next((node for node in nodes if _is_square(node)), None)


def _is_square(node: Layer) -> bool:
    sites = node.own_sites
    return math.isqrt(sites) ** 2 == sites > 1


def _grid(node: Layer) -> int:
    """Rows, which are as many as columns, of a node's map."""
    sites = node.own_sites
    grid = math.isqrt(sites)
    if grid * grid != sites:
        raise UnsuitableInput(f"the {node.sites} sites of {node.name!r} are no square map: name another node")
    return grid


def _as_maps(
    arrived: Float[Tensor, "image channel site"], own: slice, grid: int
) -> Float[np.ndarray, "image row column"]:
    summed = arrived.detach().sum(1)[:, own].reshape(len(arrived), grid, grid)
    return summed.float().numpy(force=True)
