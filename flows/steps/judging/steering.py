"""Whether the network leads to one picture of each neuron of a layer, whatever a picture begins as."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Float

from flows.running.process import LoadedModel
from flows.running.progress import tick
from flows.steps.judging.measured import Measured
from vital.judging.trust.findings import LED, STEERED
from vital.judging.trust.steering import BEGINNINGS, ascended, sameness, steered
from vital.pictures.device import FIXED

logger = logging.getLogger(__name__)

NAMED = 20
"""Neurons that are named in a warning."""


def steering(part: Measured, loaded: LoadedModel, at_side: LoadedModel) -> dict[str, Float[np.ndarray, "neuron"]]:
    """The metric of every neuron with a picture. They are measured in the arithmetic that the layer's pictures were
    made in. A warning names those that are led."""
    layer, layouts = loaded.survey.layer(part.layer), loaded.survey.layouts()
    precision, together = part.pictures.settings["precision"], FIXED[at_side.device.type]
    same = []
    for start in range(0, len(part.neurons), together):
        some = slice(start, start + together)
        pixels = ascended(at_side.model, layer, part.neurons[some], layouts, precision=precision)
        same.append(sameness(pixels))
        tick(len(BEGINNINGS) * int(part.counts[some].sum()))
    found = steered(np.concatenate(same))
    led = [neuron for neuron, share in zip(part.neurons, found, strict=True) if share >= LED]
    if led:
        named = ", ".join(map(str, led[:NAMED])) + ", …" * (len(led) > NAMED)
        logger.warning(
            "%d of %d neurons of layer %r (%s) lead to one picture each, whatever it begins as, as if somebody had "
            "manipulated the network: compare them with their references, and with another copy of the weights",
            len(led), len(found), part.layer, named,
        )  # fmt: skip
    return {STEERED: found}
