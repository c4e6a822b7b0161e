"""Where neurons lie when like targets lie close: two coordinates from the targets alone, the same every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import zarr
from jaxtyping import Float

from flows.jobs import BLOCK
from flows.steps.targets import target_nodes
from stores.arrays.blocks import rows_of
from stores.arrays.schema import array_at, group_at
from stores.dataset.targets import target_path
from vital.network.probe import INPUT

SKETCH = 64
"""Numbers kept of a node's channels: a random projection keeps distances to about one eighth and bounds the memory."""


def places(
    statistics: zarr.Group, layer: str, variant: str, neurons: Sequence[int]
) -> Float[np.ndarray, "neuron 2"] | None:
    """Two coordinates of each neuron, 0 to 1 and evenly spread; None for fewer than three neurons.

    A neuron is described by the mean of its target's rows in every channel of every node, of its relevant rows where it
    has them, times the channel's importance. Each node counts alike. The first two principal components are replaced by
    their ranks, since a wall has no use for gaps.
    """
    if len(neurons) < 3:
        return None
    nodes = [node for node in target_nodes(statistics, layer, variant) if node != INPUT]
    parts = [
        _described(statistics, layer, variant, nodes, neurons[start : start + BLOCK])
        for start in range(0, len(neurons), BLOCK)
    ]
    return spread(principal(np.concatenate(parts)))


def principal(rows: Float[np.ndarray, "neuron feature"]) -> Float[np.ndarray, "neuron 2"]:
    """The first two principal components, each with its greatest entry positive, since their signs mean nothing."""
    centred = rows - rows.mean(0)
    # neurons are many and features few, so their covariance is the smaller matrix; eigh sorts from the least up
    _, axes = np.linalg.eigh(centred.T @ centred)
    components = centred @ axes[:, ::-1][:, :2]
    greatest = components[np.abs(components).argmax(0), [0, 1]]
    turned: np.ndarray = components * np.where(greatest < 0, -1.0, 1.0)
    return turned


def spread(places_: Float[np.ndarray, "neuron 2"]) -> Float[np.ndarray, "neuron 2"]:
    """Each coordinate's rank, from 0 to 1; equal ones keep the order of the neurons."""
    ranks = np.argsort(np.argsort(places_, axis=0, kind="stable"), axis=0, kind="stable")
    return np.asarray(ranks / max(len(places_) - 1, 1), np.float64)


def _described(
    statistics: zarr.Group, layer: str, variant: str, nodes: Sequence[str], neurons: Sequence[int]
) -> Float[np.ndarray, "neuron feature"]:
    parent, wanted = group_at(statistics, target_path(layer, variant)), np.asarray(neurons, np.int64)
    parts = []
    for node in nodes:
        kept = f"{node}/relevant" if f"{node}/relevant" in parent else f"{node}/quantiles"
        found = rows_of(array_at(parent, kept), wanted).mean(2, dtype=np.float32)
        if f"{node}/importance" in parent:
            found = found * rows_of(array_at(parent, f"{node}/importance"), wanted)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        axes = np.random.default_rng(found.shape[1]).standard_normal((found.shape[1], SKETCH))
        parts.append(found / np.maximum(length, 1e-12) @ axes)
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(neurons), 2))
