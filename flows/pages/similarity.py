"""Where neurons lie when like targets lie close: two coordinates from the targets alone, the same every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from flows.jobs import BLOCK
from stores import Targets
from stores.atlas.origin import Origin
from vital.network.probe import INPUT

SKETCH = 64
"""Numbers kept of a node's channels: a random projection keeps distances to about one eighth and bounds the memory."""


def coordinates_of(targets: Targets | Origin, neurons: Sequence[int]) -> Float[np.ndarray, "neuron 2"] | None:
    """Two coordinates of each neuron, 0 to 1 and evenly spread; None for fewer than three neurons.

    A neuron is described by the mean of its target's rows in every channel of every node, of its relevant rows where it
    has them, times the channel's importance. Each node counts alike. The first two principal components are replaced by
    their ranks, since a wall has no use for gaps.
    """
    if len(neurons) < 3:
        return None
    nodes = [node for node in targets.nodes if node != INPUT]
    chunks = (neurons[start : start + BLOCK] for start in range(0, len(neurons), BLOCK))
    parts = [_described(targets, nodes, chunk) for chunk in chunks]
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


def spread(coordinates: Float[np.ndarray, "neuron 2"]) -> Float[np.ndarray, "neuron 2"]:
    """Each coordinate's rank, from 0 to 1; equal ones keep the order of the neurons."""
    ranks = np.argsort(np.argsort(coordinates, axis=0, kind="stable"), axis=0, kind="stable")
    return np.asarray(ranks / max(len(coordinates) - 1, 1), np.float64)


def _described(
    targets: Targets | Origin, nodes: Sequence[str], neurons: Sequence[int]
) -> Float[np.ndarray, "neuron feature"]:
    parts = []
    for node in nodes:
        rows, importance = targets.mean_rows(node, neurons), targets.importance(node, neurons)
        if importance is not None:
            rows = rows * importance
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        axes = np.random.default_rng(rows.shape[1]).standard_normal((rows.shape[1], SKETCH))
        parts.append(rows / np.maximum(length, 1e-12) @ axes)
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(neurons), 2))
