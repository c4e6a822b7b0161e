"""How neurons read a layer, and where their relevance begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vital.network.neurons.dictionaries import Dictionary
from vital.settings import RelevanceKind

EPSILON = 1e-5
"""Added to the denominator of z⁺, as published."""
GUARD = 1e-6
"""Added to every min-max range, as published."""


@dataclass(frozen=True, eq=False)
class Readout:
    """How neurons read a layer: its channels as they are, the channels at one ``site``, ``directions`` in the space of
    its channels (concepts), or features of a ``dictionary``.

    >>> read = Readout("layer4", directions=np.array([[1.0, 1.0], [1.0, -1.0]], np.float32))
    >>> read.maps(torch.tensor([[[3.0, 0.0], [1.0, 2.0]]]))
    tensor([[[ 4.,  2.],
             [ 2., -2.]]])
    """

    layer: str
    """The module that is read."""
    site: int | None = None
    directions: Float[np.ndarray, "neuron channel"] | None = None
    sites: int = 0
    """Sites of the map that ``site`` is counted in; of a map of another size the site in the same position is read."""
    leading: int = 0
    """Sites before the map's own (a class token)."""
    numbers: Int[np.ndarray, "neuron"] | None = None
    """The neurons that the directions or features are of, in ascending order; all of the layer's unless it is said."""
    dictionary: Dictionary | None = None
    trailing: int = 0
    """Sites after the map's own, such as tokens for objects to detect."""

    def of(self, neurons: Sequence[int] | Int[np.ndarray, "some"]) -> Readout:
        """The same readout of these neurons alone: no other directions go to a device, nor other features than these
        and, where the greatest of a site are kept, their rivals.

        >>> Readout("layer4", directions=np.eye(1000, dtype=np.float32)).of([7, 3, 7]).directions.shape
        (2, 1000)
        """
        if self.directions is None and self.dictionary is None:
            return self
        numbers = np.unique(np.asarray(neurons))
        rows = numbers if self.numbers is None else np.searchsorted(self.numbers, numbers)
        if self.dictionary is not None:
            return replace(self, dictionary=self.dictionary.of(rows), numbers=numbers)
        assert self.directions is not None
        return replace(self, directions=self.directions[rows], numbers=numbers)

    @property
    def sparse(self) -> bool:
        """Whether a neuron is zero on most images, which then say nothing of it."""
        return self.dictionary is not None

    def site_among(self, sites: int) -> int:
        """The site in the same position of a map with so many sites.

        >>> Readout("layer4", site=24, sites=49).site_among(196)  # the middle of 7 × 7 in 14 × 14
        105
        """
        assert self.site is not None  # asked for only where there is one
        if self.sites in (0, sites) or self.site < self.leading:
            return self.site
        if self.site >= self.sites - self.trailing:
            return self.site + sites - self.sites
        before, now = (math.isqrt(count - self.leading - self.trailing) for count in (self.sites, sites))
        row, column = (int((part + 0.5) * now / before) for part in divmod(self.site - self.leading, before))
        return row * now + column + self.leading

    def maps(self, activations: Float[Tensor, "image channel site"]) -> Float[Tensor, "image _neuron _site"]:
        """The maps of all neurons; of one site where there is only one."""
        activations = self._read(activations)
        if self.dictionary is not None:
            return self.dictionary.maps(activations)
        if self.directions is None:
            return activations
        return torch.einsum("nc,ics->ins", _on_device(self, activations)[0], activations)

    def own(
        self, activations: Float[Tensor, "picture channel site"], neurons: Int[Tensor, "picture"]
    ) -> Float[Tensor, "picture _site"]:
        """The map of each picture's own neuron."""
        activations = self._read(activations)
        if self.dictionary is not None:
            return self.dictionary.own(activations, self._positions(activations, neurons))
        if self.directions is None:
            return activations[torch.arange(len(neurons), device=activations.device), neurons]
        return torch.einsum("pc,pcs->ps", self._rows(activations, neurons), activations)

    def start(
        self, activations: Float[Tensor, "picture channel site"], neurons: Int[Tensor, "picture"], kind: RelevanceKind
    ) -> Float[Tensor, "picture channel site"]:
        """What relevance begins with in the layer: zero save for the channels and sites that the neuron reads.

        ``lrp`` and ``lrp-gamma`` begin with the neuron's own map, ``lrp-restricted`` with a one at the single site
        whose feature vector is most aligned (cosine) with the neuron. A direction is one more linear map: its own map
        is shared among the channels by their positive contributions (z⁺: Montavon et al., "Explaining nonlinear
        classification decisions with deep Taylor decomposition", 2017). So is a feature's of a dictionary, which is
        zero where its encoder makes it so; biases take no part, and a normalisation of the site hands on what it is
        given (Ali et al., "XAI for transformers", 2022). ``gradient-x-activation`` weights the derivative by the own
        map.
        """
        activations = activations.detach()
        start = torch.zeros_like(activations)
        begin, read = self._read(start), self._read(activations)
        own = self.own(activations, neurons)
        if kind == "lrp-restricted":
            aligned = own / (read.square().sum(1).sqrt() + GUARD)
            own = torch.zeros_like(own).scatter_(1, aligned.argmax(1, keepdim=True), 1)
        pictures = torch.arange(len(neurons), device=activations.device)
        if self.directions is None and self.dictionary is None:
            begin[pictures, neurons] = own
            return start
        if kind == "gradient-x-activation":
            begin += self._derivative(read, neurons, own)
            return start
        direction = self._rows(activations, neurons)[..., None]
        parts = (direction * (read if self.dictionary is None else self.dictionary.normalised(read))).clamp(min=0)
        begin += own[:, None] * parts / (parts.sum(1, keepdim=True) + EPSILON)
        return start

    def _read(self, activations: Tensor) -> Tensor:
        """A view of the sites that count."""
        if self.site is None:
            return activations
        site = self.site_among(activations.shape[-1])
        return activations[..., site : site + 1]

    def _rows(self, like: Tensor, neurons: Int[Tensor, "picture"]) -> Float[Tensor, "picture channel"]:
        if self.dictionary is not None:
            return self.dictionary.rows(like, self._positions(like, neurons))
        rows, numbers = _on_device(self, like)
        return rows[neurons if numbers is None else torch.searchsorted(numbers, neurons)]

    def _positions(self, like: Tensor, neurons: Int[Tensor, "picture"]) -> Int[Tensor, "picture"]:
        """Rows of the dictionary that these neurons are."""
        numbers = _on_device(self, like)[1]
        return neurons if numbers is None else torch.searchsorted(numbers, neurons)

    def _derivative(self, read: Tensor, neurons: Tensor, own: Tensor) -> Float[Tensor, "picture channel _site"]:
        """Of the own map by what is read, weighted by the own map ``own``."""
        if self.dictionary is None or self.dictionary.normalisation == "none":
            return own[:, None] * self._rows(read, neurons)[..., None]
        with torch.enable_grad():
            channels = read.detach().requires_grad_()
            (back,) = torch.autograd.grad(self.own(channels, neurons), channels, own)
        return back


_uploaded: WeakKeyDictionary[Readout, dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor | None]]]
_uploaded = WeakKeyDictionary()


def _on_device(readout: Readout, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """A readout's directions, if it has any, and its numbers beside some activations. They go there once: all
    directions of a layer may be a gigabyte, and a step reads them three times."""
    kept, beside = _uploaded.setdefault(readout, {}), (like.device, like.dtype)
    if beside not in kept:
        with torch.inference_mode(False):  # what an inference makes could not be used where there are gradients
            numbers = None if readout.numbers is None else torch.from_numpy(readout.numbers).to(like.device)
            rows = like.new_empty(0) if readout.directions is None else torch.from_numpy(readout.directions).to(like)
            kept[beside] = rows, numbers
    return kept[beside]


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
