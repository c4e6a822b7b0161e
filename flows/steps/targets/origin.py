"""What the targets of an atlas's pictures were made of: from the store that keeps them, or from the atlas, where they
were measured on the fly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from stores import AtlasLayer, Statistics, Targets
from stores.arrays.blocks import DONE, STATUS
from stores.arrays.names import placed
from stores.atlas.origin import MEAN, ORIGIN, Origin
from stores.dataset.targets import IMPORTANCE, REFERENCE_FACET
from vital.network.probe import INPUT


def origin_of(statistics: Statistics | None, pictures: AtlasLayer) -> Targets | Origin | None:
    """What the targets of a layer's pictures were made of; None where nobody keeps it."""
    kept = Origin.of(pictures)
    if kept is not None or statistics is None:
        return kept
    targets = statistics.targets(pictures.name, pictures.variant)
    if not targets.declared and f"{targets.path}/{STATUS}" in targets.root:  # they were: pictures were made for them
        targets.array(DONE)  # says that it is gone
    return targets if targets.declared else None


def declare_origin(pictures: AtlasLayer, targets: Targets, block: int) -> None:
    """Have the origin of all targets kept beside the pictures: once, before any task."""
    nodes = [node for node in targets.nodes if node != INPUT]
    axis = 1 if targets.most_facets == 1 else 2
    channels = {node: int(targets.array(f"{placed(node)}/quantiles").shape[axis]) for node in nodes}
    relevant = [node for node in nodes if f"{targets.path}/{placed(node)}/{IMPORTANCE}" in targets.root]
    ranks = int(targets.array(REFERENCE_FACET).shape[1]) if targets.most_facets > 1 else 0
    facets = (targets.most_facets, ranks) if ranks else None
    pictures.declare_origin(targets.count, block, channels, relevant, facets)


def origin_rows(
    pictures: AtlasLayer, targets: Targets, neurons: Sequence[int]
) -> dict[str, Shaped[np.ndarray, "neuron ..."]]:
    """The rows of some neurons by the path in the atlas's layer; none where the origin is not kept there."""
    origin = Origin.of(pictures)
    if origin is None:
        return {}
    first, last = min(neurons), max(neurons) + 1
    rows: dict[str, np.ndarray] = {}
    for node in origin.nodes:
        at, shares = f"{ORIGIN}/{placed(node)}", f"{placed(node)}/{IMPORTANCE}"
        values = np.asarray(targets.array(targets.matched(node))[first:last])
        rows[f"{at}/{MEAN}"] = values.mean(-1, dtype=np.float32)
        if f"{targets.path}/{shares}" in targets.root:
            rows[f"{at}/{IMPORTANCE}"] = np.asarray(targets.array(shares)[first:last])
    if targets.most_facets > 1:
        rows[f"{ORIGIN}/{REFERENCE_FACET}"] = np.asarray(targets.array(REFERENCE_FACET)[first:last])
    return rows
