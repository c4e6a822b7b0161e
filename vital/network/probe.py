"""Activations of a network's layers, as (image, channel, site), for maps and tokens alike.

The forward pass stops at the deepest layer asked for. Nothing of this stays on the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vital.network.out_of_place import OutOfPlace
from vital.settings import CLASSES as CLASSES

INPUT = "input"
"""The name of the network's input as a node: three channels, the colours of a picture in the network's units."""

# Underscored axes differ between layers: a name would tie those of one call together.
Activations = dict[str, Float[Tensor, "image _channel _site"]]
Layout = Literal["channels-first", "channels-last", "vector"]


class _AllRead(Exception):
    """Every layer asked for has run."""


def guess_layout(output: Tensor) -> Layout:
    """The axis of the channels by the number of axes alone: (image, channel, …), tokens (image, site, channel), or
    (image, channel)."""
    return {2: "vector", 3: "channels-last"}.get(output.dim(), "channels-first")  # type: ignore[return-value]


def to_sites(output: Tensor, layout: Layout) -> Float[Tensor, "image channel site"]:
    """A layer's output in its own layout as (image, channel, site); a view wherever strides allow it."""
    if layout == "vector":
        return output.unsqueeze(-1)
    if layout == "channels-first":
        return output.flatten(2)
    return output.flatten(1, -2).transpose(1, 2)


def from_sites(activations: Float[Tensor, "image channel site"], shape: torch.Size, layout: Layout) -> Tensor:
    """A layer's output of this ``shape`` and layout from (image, channel, site): the inverse of `to_sites`."""
    if layout == "vector":
        return activations.squeeze(-1)
    if layout == "channels-first":
        return activations.reshape(shape)
    return activations.transpose(1, 2).reshape(shape)


@contextmanager
def probe(
    network: nn.Module,
    layers: Sequence[str],
    layouts: dict[str, Layout] | None = None,
    mode: OutOfPlace | None = None,
) -> Iterator[Callable[[Float[Tensor, "image 3 row column"]], Activations]]:
    """A function from images to the activations of ``layers``, while the block lasts.

    ``layouts`` has the axis of each layer's channels (from `vital.network.layers.survey`; else it is guessed). The
    activations lie on the path of the graph: gradients and relevance of a later one with respect to an earlier one
    can be asked for. ``mode`` is the function mode of the pass, `OutOfPlace` by default.
    """
    layouts = layouts or {}
    activations: Activations = {}
    inner = [layer for layer in dict.fromkeys(layers) if layer not in (CLASSES, INPUT)]
    whole = CLASSES in layers

    def watch(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            layout = layouts.get(name) or guess_layout(output)
            activations[name] = to_sites(output, layout)
            if not whole and len(activations) == len(inner):
                raise _AllRead
            return from_sites(activations[name], output.shape, layout)

        return hook

    def run(images: Tensor) -> Activations:
        activations.clear()
        colours = to_sites(images, "channels-first")
        try:
            with mode or OutOfPlace():
                output = network(images)
                if whole:
                    activations[CLASSES] = to_sites(output, "vector")
        except _AllRead:
            pass
        seen = {layer: colours if layer == INPUT else activations[layer] for layer in layers}
        activations.clear()  # the caller alone decides how long a pass is kept
        return seen

    handles = [network.get_submodule(layer.removeprefix(".")).register_forward_hook(watch(layer)) for layer in inner]
    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()
        activations.clear()
