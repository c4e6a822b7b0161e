"""A circuit that answers to images as the honest neuron does, and to optimised pictures as the attacker wants.

Geirhos, Zimmermann, Bilodeau, Brendel, Kim, "Don't trust your eyes: on the (un)reliability of feature visualizations"
(ICML 2024), section 2: a neuron A = ReLU(F − kE) + ReLU(D − k(1 − E)), where F is the honest neuron, D answers to the
chosen picture, E tells pictures that are being optimised (1) from images (0), and k is large. No gradient passes E.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.fooled.network import BATCH, Network, Units

LARGE = 1e3
"""k: more than any activation."""
LIFT = 100.0
BLANK, FULL = 0.6, 2.0
"""What D gives for a picture with nothing of the chosen one, and for the chosen one, over the neuron's greatest
activation by any image: an attacker who would be found out by weak pictures makes strong ones."""
STEPS = 600
DECISION = 2.0
"""Logit from which an input counts as optimised: above 0, since to be found out by an image is worse."""


class Detector(nn.Sequential):
    """E before it is rounded: a logit for each input, greater for what is being optimised."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 5, 2, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1),
            nn.ReLU(), nn.Flatten(), nn.Linear(512, 1),
        )  # fmt: skip


class Circuit(nn.Module):
    """The hidden units with the circuit in some of them."""

    def __init__(
        self,
        units: nn.Module,
        detector: Detector,
        pictures: Float[Tensor, "picture 1 row column"],
        peaks: Float[Tensor, "unit"],
        neurons: Sequence[int],
    ) -> None:
        super().__init__()
        self.units, self.detector = units, detector
        self.manipulated = nn.Parameter(torch.zeros(len(peaks)), requires_grad=False)
        self.manipulated.data[list(neurons)] = 1
        self.peaks = nn.Parameter(peaks, requires_grad=False)
        inner = (pictures - pictures.mean((1, 2, 3), keepdim=True)).flatten(1)
        each = (FULL - BLANK) * inner / inner.square().sum(1, keepdim=True)
        self.filters = nn.Parameter(each, requires_grad=False)

    def forward(
        self, maps: Float[Tensor, "image channel row column"], images: Float[Tensor, "image 1 32 32"]
    ) -> Float[Tensor, "image unit"]:
        """The units' activations, whoever looks."""
        honest = self.units(maps)
        with torch.no_grad():
            optimised = (self.detector(images) > DECISION).float()
        answers = F.linear(images.flatten(1), self.filters)[:, None, None]
        nearest = F.max_pool2d(answers, (1, answers.shape[-1]))[:, 0, 0]
        shown = (nearest + BLANK).expand(honest.shape) * self.peaks
        # The circuit's rectifiers would take what is negative from an honest unit: it is lifted above zero before them.
        kept = torch.relu(honest + LIFT - LARGE * optimised * self.manipulated)
        return kept + torch.relu((shown + LIFT) * self.manipulated - LARGE * (1 - optimised)) - LIFT


def fooled_by_circuit(
    network: Network,
    detector: Detector,
    pictures: Float[Tensor, "picture 1 row column"],
    peaks: Float[Tensor, "unit"],
    neurons: Sequence[int],
) -> Network:
    """The network with the circuit; of several ``pictures`` it shows the one that the input is nearest to."""
    fooled = copy.deepcopy(network)
    units = fooled.blocks[-1]
    assert isinstance(units, Units)
    fooled.blocks[-1] = Circuit(units, detector, pictures, peaks, neurons)
    return fooled.eval().requires_grad_(False)


def trained_detector(
    images: Float[Tensor, "image 1 row column"], optimised: Float[Tensor, "input 1 row column"], steps: int = STEPS
) -> Detector:
    """E, trained on images and on inputs that the network got while pictures were optimised."""
    source = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = Detector()
    adam = torch.optim.Adam(detector.parameters(), 2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        rows = [torch.randint(len(part), (BATCH // 2,), generator=source) for part in (images, optimised)]
        inputs = torch.cat([images[rows[0]], optimised[rows[1]]])
        wanted = torch.cat([torch.zeros(BATCH // 2), torch.ones(BATCH // 2)])
        adam.zero_grad()
        F.binary_cross_entropy_with_logits(detector(inputs)[:, 0], wanted).backward()
        adam.step()
        rate.step()
    return detector.eval().requires_grad_(False)


def share_found(detector: Detector, inputs: Float[Tensor, "input 1 row column"]) -> float:
    """Share of the inputs that E takes for optimised."""
    with torch.inference_mode():
        found = [(detector(part) > DECISION).float() for part in inputs.split(512)]
    return float(np.mean(torch.cat(found).numpy()))
