"""How much of a neuron's relevance lies inside the object that excites it, and how much relevance arrives at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.evidence.candidates import CANDIDATES, Rule
from benchmarks.evidence.composites import Composites
from benchmarks.evidence.subject import BATCH, WAYS, Subject, Way
from vital.network.probe import CLASSES
from vital.propagation.gamma import GAMMA

AREA, ACTIVATION = "the object's area", "activation"
OWN, SITE = "activation × the neuron's own map", "activation × the neuron's best site"
OTHER = "lrp of another composite's neuron"


@dataclass(frozen=True, eq=False)
class Located:
    """Of one layer and node: the share of each map inside the object, and how much of a one at one site arrives."""

    inside: Mapping[str, Float[Tensor, "image"]]
    arrived: Mapping[str, float]


def excited(subject: Subject, layer: str, made: Composites) -> Int[Tensor, "image"]:
    """The neuron whose peak rises most when the object is laid on the photograph, in deviations over all of them."""
    beside, alone = (subject.peaks(layer, pixels) for pixels in (made.pixels, made.grounds))
    return ((beside - alone) / torch.cat([beside, alone]).std(0).clamp(min=1e-6)).argmax(1)


def located(subject: Subject, layer: str, made: Composites, ways: Sequence[Way] = WAYS) -> dict[str, Located]:
    """Every node's maps in every way, and what they are held against."""
    neurons, nodes = excited(subject, layer, made), subject.nodes(layer)
    if layer == CLASSES:  # one site
        ways = [way for way in ways if way.kind != "lrp-restricted"]
    inside: dict[str, dict[str, list[Tensor]]] = {node: defaultdict(list) for node in nodes}
    for way in (*ways, Way(OTHER, "lrp")):
        asked = neurons.roll(1) if way.name == OTHER else neurons
        for rows in torch.arange(len(made)).split(BATCH):
            seen = subject.relevance(way, layer, nodes, asked[rows], made.pixels[rows])
            for node, relevance in seen.relevance.items():
                shares = made.shares(relevance.shape[-1])[rows]
                inside[node][way.name].append(within(relevance.sum(1).clamp(min=0), shares))
                if way is ways[0]:
                    for name, values in yardsticks(seen.activations, layer, node, neurons[rows]):
                        inside[node][name].append(within(values, shares))
    share = arrived(subject, layer, nodes, neurons[:BATCH], made.pixels[:BATCH])
    return {
        node: Located({name: torch.cat(parts) for name, parts in inside[node].items()}, share[node]) for node in nodes
    }


def arrived(
    subject: Subject, layer: str, nodes: Sequence[str], neurons: Int[Tensor, "image"], pixels: Tensor
) -> dict[str, dict[str, float]]:
    """How much relevance arrives of a one at one site, by every rule: own maps of both signs would cancel."""
    shares: dict[str, dict[str, float]] = {node: {} for node in nodes}
    for name, rule in {"lrp": None, "lrp-gamma": Rule(GAMMA, "takes"), **CANDIDATES}.items():
        seen = subject.relevance(Way(name, "lrp-restricted", rule), layer, nodes, neurons, pixels)
        for node, relevance in seen.relevance.items():
            shares[node][name] = float(relevance.double().sum()) / len(neurons)
    return shares


def yardsticks(
    seen: Mapping[str, Tensor], layer: str, node: str, neurons: Int[Tensor, "image"]
) -> Iterator[tuple[str, Float[Tensor, "image site"]]]:
    """Maps that need no relevance: none, how large activations are, and that where the neuron itself is active."""
    size = seen[node].abs().sum(1)
    yield AREA, torch.ones_like(size)
    yield ACTIVATION, size
    if layer == CLASSES:
        return
    own = seen[layer][torch.arange(len(neurons)), neurons]
    best = torch.zeros_like(own).scatter_(1, own.argmax(1, keepdim=True), 1)
    grid, finer = (round(sites**0.5) for sites in (own.shape[-1], size.shape[-1]))
    for name, values in ((OWN, own.clamp(min=0)), (SITE, best)):
        yield name, F.interpolate(values.reshape(-1, 1, grid, grid), finer, mode="bilinear").flatten(1) * size


def within(values: Float[Tensor, "image site"], shares: Float[Tensor, "image site"]) -> Float[Tensor, "image"]:
    """The share of each map that lies inside the object, of an empty map that of the area: relevance mass accuracy
    (Arras et al., "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural network explanations",
    2022)."""
    total = values.sum(1)
    return torch.where(total > 0, (values * shares).sum(1) / total.clamp(min=1e-30), shares.mean(1))
