"""Where in photographs a neuron's evidence lies: relevance at an earlier layer, as an array with named axes."""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray
from jaxtyping import Float
from torch import Tensor

from vital.errors import UnsuitableInput
from vital.measuring.photos import Photos, read_photos
from vital.measuring.targets import node_relevance
from vital.network.arithmetic import rounding
from vital.network.layers import Layer, survey
from vital.network.models import Model
from vital.network.neurons import check_neurons, parse_neuron
from vital.network.nodes import check_nodes, default_nodes
from vital.network.probe import anchor, probe
from vital.propagation.mode import relevance_mode
from vital.settings import RelevanceKind

BATCH = 8
"""Photographs in one pass."""


def relevance(
    model: Model, neuron: str, photos: Photos, kind: RelevanceKind = "lrp", node: str | None = None
) -> Float[xarray.DataArray, "image row column"]:
    """How much every site of the layer ``node`` contributed to a neuron, on each photograph: relevance, its channels
    summed.

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
    mode, device = relevance_mode(kind), anchor(model.network).device
    reads = layer.reads.of([asked.number])
    maps = []
    with rounding(), probe(model.network, [name, layer.reads.layer], layers.layouts(), mode) as run:
        for pixels in shown.pixels.split(BATCH):
            activations = run(model.preprocessing.normalise(pixels.to(device)).requires_grad_())
            numbers = torch.full((len(pixels),), asked.number, device=device)
            arrived = node_relevance(mode, activations, reads, [name], numbers, kind)[name]
            maps.append(_as_maps(arrived, layers.layer(name).leading_tokens, grid))
    centres = (np.arange(grid) + 0.5) * model.preprocessing.side / grid
    return xarray.DataArray(
        np.concatenate(maps),
        dims=("image", "row", "column"),
        coords={"image": list(shown.names), "row": centres, "column": centres},
        name="relevance",
        attrs={"neuron": str(asked), "node": name, "kind": kind, "model": model.name},
    )


def _grid(node: Layer) -> int:
    """Rows, which are as many as columns, of a node's map."""
    sites = node.sites - node.leading_tokens
    grid = math.isqrt(sites)
    if grid * grid != sites:
        raise UnsuitableInput(f"the {node.sites} sites of {node.name!r} are no square map: name another node")
    return grid


def _as_maps(
    arrived: Float[Tensor, "image channel site"], leading: int, grid: int
) -> Float[np.ndarray, "image row column"]:
    summed = arrived.detach().sum(1)[:, leading:].reshape(len(arrived), grid, grid)
    return summed.float().numpy(force=True)
