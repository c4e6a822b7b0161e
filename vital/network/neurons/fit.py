"""How well a dictionary goes with a layer: what it gives back of its activations, and of how few features.

Of a dictionary that is read from another layer than it was trained on nothing else would be seen: features are active
there, too, and have references and pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vital.network.neurons.dictionaries import Dictionary

AT_ONCE = 2**24
"""Numbers of features in memory together."""
SAME = 1e-12
"""Share of squares below which sites do not vary, but for rounding."""


@dataclass(frozen=True)
class Fit:
    """A dictionary on some sites of a layer."""

    active: float
    """Features that are not zero at a site, on average (L0)."""
    silent: float
    """Share of the features that are zero at all of these sites."""
    explained: float | None
    """Share of the variance that its decoder gives back: 1 is all, 0 what the mean of the sites gives, less is worse
    than that. Of the channels after the dictionary's normalisation. None without a decoder, or of sites that are all
    the same."""


@torch.no_grad()
def fit(dictionary: Dictionary, sites: Float[Tensor, "site channel"]) -> Fit:
    """How well a dictionary goes with the layer that these sites are of."""
    read = dictionary.normalised(sites.T[None])[0].T
    total, ever = 0, torch.zeros(len(dictionary), dtype=torch.bool, device=sites.device)
    lost, decoder = 0.0, dictionary.decoder
    back = None if decoder is None else [torch.tensor(part).to(sites) for part in (decoder.weight, decoder.bias)]
    size = max(AT_ONCE // len(dictionary), 1)
    for some, wanted in zip(sites.split(size), read.split(size), strict=True):
        features = dictionary.maps(some.T[None])[0].T
        total += int((features != 0).sum())
        ever |= (features != 0).any(0)
        if back is not None:
            lost += float((features @ back[0] + back[1] - wanted).double().square().sum())
    exact = read.double()
    spread = float((exact - exact.mean(0)).square().sum())
    same = spread <= SAME * float(exact.square().sum())
    explained = None if back is None or same else 1 - lost / spread
    return Fit(total / len(sites), float((~ever).double().mean()), explained)
