"""Whether a network leads to one picture whatever a picture begins as, as somebody may have made it do.

Somebody who changes a network so that a neuron shows what he chose leads gradients there from wherever pictures begin
(Geirhos et al., "Don't trust your eyes", ICML 2024; Bareeva et al., "Manipulating feature visualizations with gradient
slingshots", NeurIPS 2025). So nothing but the neuron's activation is raised, from several beginnings: as method
``pixel`` does it, on which such a hold is the firmest (docs/fooling.md). In other networks the ends differ as the
beginnings do, since a neuron can be excited in many ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np
from jaxtyping import Float, UInt8

from vital.judging.readability import FEWEST
from vital.measuring.targets import Target
from vital.memory import by_parts
from vital.network.layers import Layer
from vital.network.models import Model
from vital.network.probe import Layout
from vital.pictures.optimise import optimise
from vital.settings import PictureSettings, Precision

BEGINNINGS = (101, 102, 103)
"""Seeds of what pictures begin as: others than those that an atlas is usually made with."""
STEPS = 60
"""By then they are as alike as they become: 120 tell as much (docs/fooling.md)."""
LEAST = 1.0
"""Least deviation of a picture's luminance, of 255: below that nothing is seen in it but how it was rounded."""
AWAY = 4
"""A picture is also compared with another one that is moved by at least so many parts of its side."""


def ascended(
    model: Model,
    layer: Layer,
    neurons: Sequence[int],
    layouts: Mapping[str, Layout],
    *,
    steps: int = STEPS,
    precision: Precision = "float32",
) -> UInt8[np.ndarray, "neuron beginning side side colour"]:
    """Pictures of some neurons of a ``layer`` that nothing but the neuron's activation made, from each of the
    `BEGINNINGS`. All neurons together, or as many as fit into memory; of the model's side.

    Raises:
        DoesNotFit: one picture alone does not fit into memory.
    """
    numbers = np.asarray(neurons, np.int64)

    def ends(seed: int, part: slice) -> UInt8[np.ndarray, "_neuron side side colour"]:
        own = numbers[part]
        nothing = np.zeros((len(own), 1), np.float32)  # is matched
        target = Target(layer.name, own, {}, np.zeros(1), nothing, np.ones(len(own), np.int64), layer.reads)
        settings = PictureSettings(
            method="pixel", steps=steps, side=model.preprocessing.side, seed=seed, precision=precision
        )
        return optimise(model, target, settings, layouts).pixels

    return np.stack([np.concatenate(by_parts(len(numbers), partial(ends, seed))) for seed in BEGINNINGS], 1)


def sameness(pixels: UInt8[np.ndarray, "neuron beginning side side colour"]) -> Float[np.ndarray, "neuron"]:
    """How alike those two of a neuron's pictures are that are the most alike: √(r² − s²), where r is the correlation of
    their pixels, and s the greatest where one of them is moved, around its edges, by a quarter of its side or more. 1:
    they are the same. A pattern that repeats itself, as early neurons have, is as alike where it is moved: 0. So has a
    neuron that nothing excites from any beginning, whose pictures stay flat.

    >>> one = np.random.default_rng(0).integers(0, 256, (1, 1, 32, 32, 3), np.uint8)
    >>> sameness(np.concatenate([one, one], 1)).round(1), sameness(np.concatenate([one, 255 - one], 1)).round(1)
    (array([1.]), array([0.]))
    """
    luminance = pixels.mean(-1, dtype=np.float64)
    luminance = luminance - luminance.mean((-2, -1), keepdims=True)
    deviation = luminance.std((-2, -1), keepdims=True)
    seen = deviation >= LEAST
    waves = np.fft.fft2(np.where(seen, luminance, 0) / np.where(seen, deviation * luminance[0, 0].size, 1))
    rows, columns = (np.minimum(np.arange(size), size - np.arange(size)) for size in waves.shape[-2:])
    moved = np.maximum(rows[:, None], columns) * AWAY >= waves.shape[-2]
    greatest = np.zeros(len(waves))
    for one, other in combinations(range(waves.shape[1]), 2):
        # By the correlation theorem: at every shift at once.
        at_shift = np.fft.ifft2(waves[:, one] * waves[:, other].conj()).real * moved.size
        in_place, elsewhere = np.maximum(at_shift[:, 0, 0], 0), np.maximum(at_shift[:, moved].max(1), 0)
        greatest = np.maximum(greatest, np.sqrt(np.maximum(in_place**2 - elsewhere**2, 0)))
    return greatest


def steered(same: Float[np.ndarray, "neuron"]) -> Float[np.ndarray, "neuron"]:
    """How far each neuron's `sameness` is from the layer's usual one, its median, on the way to 1, which is one picture
    whatever it begins as. Small networks have much of it, whoever made them: so the layer's own neurons are the
    measure. NaN of fewer than `FEWEST` neurons, which have none. Where more than half of a layer is steered, the usual
    is that.

    >>> steered(np.array([0.1, 0.0, 0.2, 0.1, 0.1, 0.0, 0.2, 0.91])).round(2)
    array([ 0.  , -0.11,  0.11,  0.  ,  0.  , -0.11,  0.11,  0.9 ])
    """
    if len(same) < FEWEST:
        return np.full(len(same), np.nan)
    usual = float(np.median(same))
    return (same - usual) / max(1 - usual, np.finfo(np.float64).eps)
