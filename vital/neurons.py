"""What a picture shows: a neuron's own activation in its layer, and where its relevance begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vital.errors import UnknownNeuron
from vital.settings import Kind

GUARD = 1e-6
"""Added to every min-max range, as published."""


def check_neurons(layer: str, channels: int, neurons: Sequence[int]) -> None:
    """Raise `UnknownNeuron` for a number that the layer does not have."""
    bad = [neuron for neuron in neurons if not 0 <= neuron < channels]
    if bad:
        raise UnknownNeuron(
            f"neuron {bad[0]} is not in layer {layer!r}, which has {channels}: ask for 0 to {channels - 1}"
        )


def own_maps(
    activations: Float[Tensor, "picture channel site"], neurons: Int[Tensor, "picture"]
) -> Float[Tensor, "picture site"]:
    """The map of each picture's own neuron."""
    return activations[torch.arange(len(neurons), device=activations.device), neurons]


def relevance_start(
    activations: Float[Tensor, "picture channel site"], neurons: Int[Tensor, "picture"], kind: Kind
) -> Float[Tensor, "picture channel site"]:
    """What relevance begins with in the neuron's layer, zero in every other channel.

    ``lrp`` and ``gradient-x-activation``: the neuron's own map. ``lrp-restricted``: a one at the single site whose
    feature vector is most aligned (cosine) with the channel.
    """
    start = torch.zeros_like(activations)
    pictures = torch.arange(len(neurons), device=activations.device)
    own = own_maps(activations, neurons).detach()
    if kind == "lrp-restricted":
        length = activations.detach().square().sum(1).sqrt()
        site = (own / (length + GUARD)).argmax(-1)
        start[pictures, neurons, site] = 1
    else:
        start[pictures, neurons] = own
    return start


def relevance_map(relevance: Float[Tensor, "image channel site"]) -> Float[Tensor, "image channel site"]:
    """R̂: relevance from its least to its greatest site of each channel as 0 to 1."""
    low, high = relevance.amin(-1, keepdim=True), relevance.amax(-1, keepdim=True)
    return (relevance - low) / (high - low + GUARD)


def importance(relevance: Float[Tensor, "image channel site"]) -> Float[Tensor, "image channel"]:
    """Each channel's peak relevance, from the least to the greatest channel of an image as 0 to 1. References
    average it."""
    peak = relevance.amax(-1)
    low, high = peak.amin(-1, keepdim=True), peak.amax(-1, keepdim=True)
    return (peak - low) / (high - low + GUARD)
