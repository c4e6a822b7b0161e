"""Which channels is a neuron made of? Those said to matter are set to zero, and its peak on its references looked at
(deletion: Samek et al., "Evaluating the visualization of what a deep neural network has learned", 2017)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from benchmarks.evidence.subject import WAYS, Subject, Way
from vital.network.neurons import importance
from vital.network.probe import from_sites, probe, to_sites

SHARES = (0.05, 0.15, 0.4)
"""Shares of a node's channels that are set to zero."""
REFERENCES = 4
PEAK, SUM = "{}, peak", "{}, sum"
RANDOM, ACTIVATION, OTHER = "random", "activation", "lrp of another neuron"
Importances = dict[str, dict[str, Float[Tensor, "_channel"]]]
"""By node and way, how important each channel is."""


@dataclass(frozen=True, eq=False)
class References:
    """Neurons of a layer and the images that excite each most."""

    neurons: Int[Tensor, "neuron"]
    images: UInt8[Tensor, "neuron reference 3 side side"]


def references(subject: Subject, layer: str, photos: UInt8[Tensor, "image 3 side side"], count: int) -> References:
    """``count`` neurons, evenly spread over those that each of their references excites, and the best ``photos``."""
    best = subject.peaks(layer, photos).topk(REFERENCES, 0)
    live = (best.values[-1] > 0).nonzero()[:, 0]
    neurons = live[torch.linspace(0, len(live) - 1, min(count, len(live))).long()]
    return References(neurons, photos[best.indices[:, neurons].T])


def importances(
    subject: Subject, layer: str, nodes: Sequence[str], neuron: int, images: Tensor, ways: Sequence[Way]
) -> Importances:
    """By the peak over sites, as published and as targets keep it, and by the sum over sites; mean over images."""
    found: Importances = {node: {} for node in nodes}
    for way in ways:
        seen = subject.relevance(way, layer, nodes, torch.full((len(images),), neuron), images)
        for node in nodes:
            maps = {way.name: seen.relevance[node]}
            if way is ways[0]:
                maps[ACTIVATION] = seen.activations[node].abs()
            for name, values in maps.items():
                found[node][PEAK.format(name)] = importance(values).mean(0)
                found[node][SUM.format(name)] = values.sum(-1).mean(0)
    return found


def remaining(
    subject: Subject, layer: str, node: str, neuron: int, images: Tensor, deleted: Sequence[Int[Tensor, "_channel"]]
) -> Float[Tensor, "deletion"]:
    """The neuron's peak without each of these sets of channels over that with all, mean over images."""
    layout, channels = subject.survey.layouts()[node], subject.survey.layer(node).channels
    keep = torch.ones(len(deleted), channels)
    for row, some in enumerate(deleted):
        keep[row, some] = 0
    kept = keep.repeat_interleave(len(images), 0)[..., None]

    def delete(module: nn.Module, given: object, output: Tensor) -> Tensor:
        return from_sites(to_sites(output, layout) * kept, output.shape, layout)

    model = subject.model
    handle = model.network.get_submodule(node).register_forward_hook(delete)
    try:
        with torch.inference_mode(), probe(model.network, [layer], subject.survey.layouts()) as run:
            maps = run(model.preprocessing.normalise(images).repeat(len(keep), 1, 1, 1))[layer][:, neuron]
    finally:
        handle.remove()
    peak = maps.amax(-1).reshape(len(keep), len(images))
    return (peak / subject.peaks(layer, images)[:, neuron]).mean(1)


def curves(
    subject: Subject, layer: str, nodes: Sequence[str], of: References, ways: Sequence[Way] = WAYS, seed: int = 0
) -> Mapping[str, Mapping[str, Float[np.ndarray, "neuron share"]]]:
    """What is left of each neuron's peak after each share of deletions, by node and way of telling."""
    stream = torch.Generator().manual_seed(seed)
    told = [
        importances(subject, layer, nodes, int(neuron), images, ways)
        for neuron, images in zip(of.neurons, of.images, strict=True)
    ]
    left: dict[str, dict[str, list[Float[np.ndarray, "share"]]]] = {node: defaultdict(list) for node in nodes}
    for number, (neuron, images) in enumerate(zip(of.neurons.tolist(), of.images, strict=True)):
        for node in nodes:
            width = subject.survey.layer(node).channels
            others = {
                RANDOM: torch.rand(width, generator=stream),
                SUM.format(OTHER): told[number - 1][node][SUM.format("lrp")],
            }
            for name, values in {**told[number][node], **others}.items():
                order = values.argsort(descending=True)
                sets = [order[: max(1, round(share * width))] for share in SHARES]
                left[node][name].append(remaining(subject, layer, node, neuron, images, sets).numpy())
    return {node: {name: np.stack(rows) for name, rows in ways.items()} for node, ways in left.items()}
