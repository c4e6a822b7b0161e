"""Nodes that are published for some networks, with their weights and those of the image priors: VITAL, supplement and
released code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Nodes and weights for class neurons, those that differ for neurons inside the network, and TV = norm for
    classes."""

    nodes: dict[str, float]
    inner: dict[str, float]
    prior: float = 0.0


INNER_PRIOR = 3e-7
"""Weight of the total variation and of the norm for neurons inside the network."""

_RESNET = Published({"conv1": 1.0} | {f"layer{i}": 1.0 for i in (1, 2, 3, 4)}, {"conv1": 0.1})
_DENSENET = (
    {"features.conv0": 1.0} | {f"features.denseblock{i}": 1.0 for i in (1, 2, 3)} | {"features.denseblock4": 100.0}
)
_CONVNEXT = {"features.0": 10.0, "features.2.1": 1.0, "features.4.1": 1.0, "features.6.1": 1.0, "features.7.2": 1.0}


def _vit(blocks: tuple[int, ...], last: float, prior: float) -> Published:
    nodes = {"conv_proj": 1.0} | {f"encoder.layers.encoder_layer_{block}": 1.0 for block in blocks}
    nodes[f"encoder.layers.encoder_layer_{blocks[-1]}"] = last
    return Published(nodes, {}, prior)


_TABLE = {
    "densenet121": Published(_DENSENET, {}),
    "convnext_base": Published(_CONVNEXT, {}),
    "vit_l_16": _vit((2, 9, 20, 23), 1.0, 0.003),
    "vit_l_32": _vit((2, 9, 20, 23), 0.1, 0.0003),
    "vit_b_16": _vit((0, 4, 8, 11), 1.0, 0.003),
}
_FAMILIES = {"resnet": _RESNET, "resnext": _RESNET, "wide_resnet": _RESNET}


def published(model: str) -> Published | None:
    """What the paper uses for this torchvision model, or for its family; None where it has neither."""
    if model in _TABLE:
        return _TABLE[model]
    return next((entry for family, entry in _FAMILIES.items() if model.startswith(family)), None)


def published_nodes(model: str) -> tuple[str, ...]:
    """Names of the published nodes, in the order in which they run."""
    entry = published(model)
    return tuple(entry.nodes) if entry else ()


def node_weight(model: str, node: str, inner: bool) -> float:
    """Weight of a node's loss in preset ``paper``; 1 where nothing is published."""
    entry = published(model)
    if entry is None:
        return 1.0
    return entry.inner.get(node, entry.nodes.get(node, 1.0)) if inner else entry.nodes.get(node, 1.0)


def prior_weight(model: str, inner: bool) -> float:
    """Weight of total variation and norm in preset ``paper``."""
    entry = published(model)
    return INNER_PRIOR if inner else (entry.prior if entry else 0.0)
