"""Steps of every sort that tests of a step go through, and what they aim at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.reference.networks import SIDE
from tests.vital.pictures.test_optimise import NODES
from vital.measuring.targets import Attribution, Crop, NodeTarget, Target, measure
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.neurons.dictionaries import Dictionary
from vital.network.probe import CLASSES
from vital.settings import PictureSettings, RelevanceKind

CHANNELS = 16
DIRECTIONS = np.random.default_rng(5).standard_normal((40, CHANNELS)).astype(np.float32)
BIAS, NEVER = np.zeros(40, np.float32), np.full(40, -np.inf, np.float32)
"""Of features: nothing added, and no threshold, where only the greatest of a site are kept."""
READS = {
    "channel": Readout("2"),
    "site": Readout("2", 6, sites=64),
    "direction": Readout("2", directions=DIRECTIONS),
    "site of a direction": Readout("2", 6, DIRECTIONS, 64),
    "class": Readout(CLASSES),
    "feature": Readout("2", dictionary=Dictionary(DIRECTIONS, BIAS, BIAS)),
    "feature among the greatest": Readout(
        "2", dictionary=Dictionary(DIRECTIONS, BIAS, NEVER, k=8, normalisation="layer")
    ).of([3, 7]),
}
"""A site, a direction or a feature reads a layer in its own way; a facet is one more target of a neuron, and two of the
pictures below are of one neuron each."""
STEPS: list[tuple[str, RelevanceKind, dict[str, Any]]] = [
    ("channel", "lrp", {"preset": "natural"}),
    *((read, "lrp", {"relevant_weight": 1.0}) for read in READS),
    ("channel", "lrp-gamma", {"relevant_weight": 1.0}),
    *((read, "lrp-restricted", {"relevant_weight": 1.0}) for read in ("channel", "direction")),
    *(
        (read, "gradient-x-activation", {"relevant_weight": 1.0})
        for read in ("channel", "direction", "feature among the greatest")
    ),
    *((read, "lrp", {"preset": "paper"}) for read in ("channel", "class")),
    *(
        (read, "lrp", {"method": method})
        for read in ("direction", "class")
        for method in ("pixel", "fourier", "maco", "deepinversion")
    ),
    *((read, "lrp", {"precision": "bfloat16"}) for read in ("channel", "class")),
    ("channel", "lrp", {"total_variation": 1e-4, "norm": 1e-4, "own_weight": 0.0}),
]
EVERY = pytest.mark.parametrize(
    ("read", "kind", "others"),
    STEPS,
    ids=[f"{read}-{kind}-{'-'.join(map(str, o.values()))}" for read, kind, o in STEPS],
)


def kinds_of(read: str, others: dict[str, Any]) -> int:
    """How many kinds of steps there are: natural pictures of classes are cropped in some, others in none."""
    return 2 if read == "class" and "method" not in others and others.get("preset") != "paper" else 1


def target_of(model: Model, read: str, kind: RelevanceKind, count: int = 2) -> Target:
    """Of ``count`` neurons, each with the same two references."""
    stream = torch.Generator().manual_seed(1)
    crops = [
        Crop(torch.randint(0, 256, (3, SIDE, SIDE), generator=stream, dtype=torch.uint8), (0, 1)) for _ in range(2)
    ]
    layer, reads = (CLASSES, None) if read == "class" else ("some", READS[read])
    target = measure(model, Attribution(layer, kind, readout=reads), (3, 7), crops, NODES)
    rows = np.arange(count) % 2

    def repeated(node: NodeTarget) -> NodeTarget:
        relevant, importance = (None if part is None else part[rows] for part in (node.relevant, node.importance))
        return replace(node, quantiles=node.quantiles[rows], relevant=relevant, importance=importance)

    nodes = {name: repeated(node) for name, node in target.nodes.items()}
    return replace(target, neurons=target.neurons[rows], nodes=nodes, own=target.own[rows], count=target.count[rows])


def settings(others: dict[str, Any], steps: int = 10) -> PictureSettings:
    return PictureSettings.model_validate({"steps": steps, "side": SIDE, **others})
