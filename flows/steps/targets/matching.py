"""What pictures are to match: targets as they are kept, and what is usual of their nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from stores import Statistics, Targets
from stores.arrays.names import placed
from stores.dataset.targets import IMPORTANCE, TREND
from stores.errors import SchemaMismatch
from vital.measuring.image_sums import LEVELS
from vital.measuring.rows import resample, stored_levels
from vital.measuring.targets import NodeTarget, Target
from vital.network.neurons import Readout
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES, INPUT


@dataclass(frozen=True, eq=False)
class Usual:
    """What the images of the data set give at a node, as far as it is known: what is particular to a neuron differs
    from it."""

    rows: Float[np.ndarray, "channel level"] | None = None
    """The mean of their sorted rows."""
    deviation: Float[np.ndarray, "channel"] | None = None
    """Standard deviation of each channel's mean."""


def usual_of(statistics: Statistics, targets: Targets) -> dict[str, Usual]:
    """What is usual of each node that is matched, whatever the neuron: for all batches of a task."""
    levels = targets.levels
    return {node: _usual_at(statistics, targets, node, levels[node]) for node in targets.nodes}


def _usual_at(statistics: Statistics, targets: Targets, node: str, levels: np.ndarray) -> Usual:
    if not targets.variant.startswith("image"):
        # Patches are enlarged: they differ from whole images in much that is not particular to the neuron.
        return Usual()
    classes, shape = targets.layer == CLASSES, targets.array(f"{placed(node)}/quantiles").shape[-2:]
    if node == INPUT:
        return Usual() if classes else Usual(_usual_colours(statistics, levels, shape))
    rows = _known(statistics, node, "quantiles", shape)
    if rows is None or classes:
        return Usual(rows)
    return Usual(rows, _known(statistics, node, "mean_deviation", shape[:1]))


def read_targets(
    targets: Targets,
    neurons: Sequence[int],
    usual: Mapping[str, Usual],
    readout: Readout | None = None,
    facets: Sequence[int] | None = None,
) -> Target:
    """Targets of some neurons, in full precision, of the first facet of each unless ``facets`` says which. ``usual`` is
    that of every node, in their order, and ``readout`` says how the neurons read their layer."""
    rows, levels = targets.rows(neurons, facets=facets), targets.levels

    def part(node: str, name: str) -> np.ndarray | None:
        values = rows.get(f"{placed(node)}/{name}")
        return None if values is None else np.asarray(values, np.float32)

    nodes = {}
    for node, known in usual.items():
        quantiles = part(node, "quantiles")
        assert quantiles is not None  # declared for every node
        relevant, importance = part(node, "relevant"), part(node, IMPORTANCE)
        if (relevant is None) != (importance is None):
            targets.array(f"{placed(node)}/{'relevant' if relevant is None else IMPORTANCE}")  # says that it is gone
        nodes[node] = NodeTarget(
            levels[node], quantiles, relevant, importance,
            known.rows, known.deviation, part(node, TREND),
        )  # fmt: skip
    own = np.asarray(rows["own"], np.float32)
    return Target(targets.layer, np.asarray(neurons, np.int64), nodes, levels["own"], own, rows["count"], readout)


def _known(statistics: Statistics, node: str, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """A statistic of a node over the data set, where the pass over the shards measured it."""
    if not statistics.has_rows(node):
        return None
    values = statistics.statistic(node, name)
    return values if values.shape == shape else None


def _usual_colours(statistics: Statistics, levels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The data set's mean sorted colours, as the network sees them."""
    shown = Preprocessing.of(statistics.base)
    try:
        rows = statistics.colour_rows()
    except SchemaMismatch:
        return None
    mean, std = (np.asarray(part)[:, None] for part in (shown.mean, shown.std))
    seen = torch.from_numpy((rows / 255 - mean) / std)
    usual = resample(seen, stored_levels(shown.side**2, LEVELS), levels).numpy().astype(np.float32)
    return usual if usual.shape == shape else None
