"""What pictures are to match: targets as they are kept, and what is usual of their nodes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from stores import Statistics, Targets
from stores.arrays.names import placed
from stores.dataset.targets import IMPORTANCE, RELEVANT, TREND
from stores.errors import SchemaMismatch
from vital.measuring.image_sums import LEVELS
from vital.measuring.rows import resample, stored_levels
from vital.measuring.targets import NodeTarget, Target
from vital.network.neurons import Readout
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES, INPUT
from vital.settings import PictureSettings

WHOLE = "image"
"""How variants begin whose targets are of whole images."""


@dataclass(frozen=True, eq=False)
class Usual:
    """What the images of the data set give at a node, as far as it is known: what is particular to a neuron differs
    from it."""

    rows: Float[np.ndarray, "channel level"] | None = None
    """The mean of their sorted rows."""
    deviation: Float[np.ndarray, "channel"] | None = None
    """Standard deviation of each channel's mean."""


def pushed(layer: str, variant: str, settings: PictureSettings) -> bool:
    """Whether pictures match activations that are pushed from what is usual: those of method vital with emphasis, of
    whole images. Patches are enlarged: they differ from whole images in much that is not particular to the neuron."""
    weight = settings.plain_weight
    if layer == CLASSES:  # their whole activations are the relevant ones
        weight = max(weight, settings.relevant_weight)
    return variant.startswith(WHOLE) and settings.method == "vital" and settings.emphasis > 0 and weight > 0


def unmeasured(statistics: Statistics, variant: str, nodes: Sequence[str]) -> str:
    """What is to be done where a pass over the shards has measured not all ``nodes`` of targets of whole images, in one
    sentence; empty where nothing is."""
    if not variant.startswith(WHOLE):
        return ""
    asked = [node for node in nodes if node != INPUT]
    return _to_measure([one for one in asked if not statistics.was_measured(one) or statistics.lacks_layer(one)])


def _to_measure(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    named = f"node{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}"
    words = shlex.join(word for node in missing for word in ("--node", node))
    return (
        f"the store has no statistics of {named}, from which pictures with emphasis push what they match: run "
        f"`vital references … {words}` on the same shards before `vital atlas`, or give that --emphasis 0"
    )


def usual_of(statistics: Statistics, targets: Targets) -> dict[str, Usual]:
    """What is usual of each node that is matched, whatever the neuron: for all batches of a task.

    Raises:
        SchemaMismatch: no pass has measured a node, or what it has measured was removed.
    """
    nodes = targets.nodes
    if not targets.variant.startswith(WHOLE):
        return dict.fromkeys(nodes, Usual())
    if todo := _to_measure([node for node in nodes if node != INPUT and not statistics.was_measured(node)]):
        raise SchemaMismatch(todo)
    levels = targets.levels
    return {node: _usual_at(statistics, targets, node, levels[node]) for node in nodes}


def _usual_at(statistics: Statistics, targets: Targets, node: str, levels: np.ndarray) -> Usual:
    classes = targets.layer == CLASSES
    if node == INPUT:
        return Usual() if classes else Usual(_usual_colours(statistics, levels))
    rows = statistics.statistic(node, "quantiles")
    return Usual(rows) if classes else Usual(rows, statistics.statistic(node, "mean_deviation"))


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
        nodes[node] = NodeTarget(
            levels[node], quantiles, part(node, RELEVANT), part(node, IMPORTANCE),
            known.rows, known.deviation, part(node, TREND),
        )  # fmt: skip
    own = np.asarray(rows["own"], np.float32)
    return Target(targets.layer, np.asarray(neurons, np.int64), nodes, levels["own"], own, rows["count"], readout)


def _usual_colours(statistics: Statistics, levels: np.ndarray) -> np.ndarray:
    """The data set's mean sorted colours, as the network sees them."""
    shown = Preprocessing.of(statistics.base)
    rows = statistics.colour_rows()
    mean, std = (np.asarray(part)[:, None] for part in (shown.mean, shown.std))
    seen = torch.from_numpy((rows / 255 - mean) / std)
    return resample(seen, stored_levels(shown.side**2, LEVELS), levels).numpy().astype(np.float32)
