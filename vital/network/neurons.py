"""Neurons: how they are written, how they read a layer, and where their relevance begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vital.errors import UnknownNeuron, nearest
from vital.network.probe import CLASSES
from vital.settings import RelevanceKind

EPSILON = 1e-5
"""Added to the denominator of z⁺, as published."""
GUARD = 1e-6
"""Added to every min-max range, as published."""


@dataclass(frozen=True, eq=False)
class Readout:
    """How neurons read a layer: its channels as they are, the channels at one ``site``, or ``directions`` in the
    space of its channels (concepts, features of a sparse autoencoder).

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
    """The neurons that the directions are of, in ascending order; all of the layer's unless it is said."""

    def of(self, neurons: Sequence[int] | Int[np.ndarray, "some"]) -> Readout:
        """The same readout of these neurons alone: no other directions go to a device.

        >>> Readout("layer4", directions=np.eye(1000, dtype=np.float32)).of([7, 3, 7]).directions.shape
        (2, 1000)
        """
        if self.directions is None:
            return self
        numbers = np.unique(np.asarray(neurons))
        rows = numbers if self.numbers is None else np.searchsorted(self.numbers, numbers)
        return replace(self, directions=self.directions[rows], numbers=numbers)

    def site_among(self, sites: int) -> int:
        """The site in the same position of a map with so many sites.

        >>> Readout("layer4", site=24, sites=49).site_among(196)  # the middle of 7 × 7 in 14 × 14
        105
        """
        assert self.site is not None  # asked for only where there is one
        if self.sites in (0, sites) or self.site < self.leading:
            return self.site
        before, now = (math.isqrt(count - self.leading) for count in (self.sites, sites))
        row, column = (int((part + 0.5) * now / before) for part in divmod(self.site - self.leading, before))
        return row * now + column + self.leading

    def maps(self, activations: Float[Tensor, "image channel site"]) -> Float[Tensor, "image _neuron _site"]:
        """The maps of all neurons; of one site where there is only one."""
        activations = self._read(activations)
        if self.directions is None:
            return activations
        return torch.einsum("nc,ics->ins", _on_device(self, activations)[0], activations)

    def own(
        self, activations: Float[Tensor, "picture channel site"], neurons: Int[Tensor, "picture"]
    ) -> Float[Tensor, "picture _site"]:
        """The map of each picture's own neuron."""
        activations = self._read(activations)
        if self.directions is None:
            return activations[torch.arange(len(neurons), device=activations.device), neurons]
        return torch.einsum("pc,pcs->ps", self._rows(activations, neurons), activations)

    def start(
        self, activations: Float[Tensor, "picture channel site"], neurons: Int[Tensor, "picture"], kind: RelevanceKind
    ) -> Float[Tensor, "picture channel site"]:
        """What relevance begins with in the layer: zero save for the channels and sites that the neuron reads.

        ``lrp`` and ``lrp-gamma`` begin with the neuron's own map, ``lrp-restricted`` with a one at the single site
        whose feature vector is most aligned (cosine) with the neuron. A direction is one more linear map: its own map
        is shared among the channels by their positive contributions (z⁺). ``gradient-x-activation`` weights the
        derivative by the own map.
        """
        activations = activations.detach()
        start = torch.zeros_like(activations)
        begin, read = self._read(start), self._read(activations)
        own = self.own(activations, neurons)
        if kind == "lrp-restricted":
            aligned = own / (read.square().sum(1).sqrt() + GUARD)
            own = torch.zeros_like(own).scatter_(1, aligned.argmax(1, keepdim=True), 1)
        pictures = torch.arange(len(neurons), device=activations.device)
        if self.directions is None:
            begin[pictures, neurons] = own
            return start
        direction = self._rows(activations, neurons)[..., None]
        if kind == "gradient-x-activation":
            begin += own[:, None] * direction
            return start
        parts = (direction * read).clamp(min=0)
        begin += own[:, None] * parts / (parts.sum(1, keepdim=True) + EPSILON)
        return start

    def _read(self, activations: Tensor) -> Tensor:
        """A view of the sites that count."""
        if self.site is None:
            return activations
        site = self.site_among(activations.shape[-1])
        return activations[..., site : site + 1]

    def _rows(self, like: Tensor, neurons: Int[Tensor, "picture"]) -> Float[Tensor, "picture channel"]:
        rows, numbers = _on_device(self, like)
        return rows[neurons if numbers is None else torch.searchsorted(numbers, neurons)]


_uploaded: WeakKeyDictionary[Readout, dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor | None]]]
_uploaded = WeakKeyDictionary()


def _on_device(readout: Readout, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """A readout's directions and numbers beside some activations. They go there once: all directions of a layer may be
    a gigabyte, and a step reads them three times."""
    assert readout.directions is not None  # asked for only where there are directions
    kept, place = _uploaded.setdefault(readout, {}), (like.device, like.dtype)
    if place not in kept:
        with torch.inference_mode(False):  # what an inference makes could not be used where there are gradients
            numbers = None if readout.numbers is None else torch.from_numpy(readout.numbers).to(like.device)
            kept[place] = torch.from_numpy(readout.directions).to(like), numbers
    return kept[place]


@dataclass(frozen=True)
class Neuron:
    """A neuron as it is written: ``LAYER:NUMBER``."""

    layer: str
    number: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.number}"


def parse_neuron(text: str, class_names: Sequence[str] = ()) -> Neuron:
    """The neuron that is written ``LAYER:NUMBER``, ``classes:NUMBER`` or ``classes:NAME``. Of a name, letter case and
    underscores do not count, and one of several names between commas will do.

    Raises `UnknownNeuron` where it is written otherwise, or no class or more than one has this name. Whether there is
    such a layer with so many neurons is not looked at.

    >>> parse_neuron("layer4.2:7")
    Neuron(layer='layer4.2', number=7)
    >>> parse_neuron("classes:White_shark", ["tench", "great white shark, white shark"])
    Neuron(layer='classes', number=1)
    """
    layer, _, number = text.rpartition(":")
    if layer and number.isascii() and number.isdigit():
        return Neuron(layer, int(number))
    layer, _, name = text.partition(":")
    if layer != CLASSES or not name:
        raise UnknownNeuron(
            f"{text!r} is no neuron: write LAYER:NUMBER, such as layer4.2:7, or {CLASSES}:NUMBER, or {CLASSES}:NAME"
        )
    if not class_names:
        raise UnknownNeuron(f"the network's classes have no names, so {text!r} is none of them: write {CLASSES}:NUMBER")
    wanted = _folded(name)
    numbers = [number for number, names in enumerate(class_names) if wanted in _spellings(names)]
    if not numbers:
        raise UnknownNeuron(f"no class is called {name!r}; the nearest are {nearest(name, class_names)}")
    if len(numbers) > 1:
        choices = " or ".join(f"{CLASSES}:{number}" for number in numbers)
        raise UnknownNeuron(f"{len(numbers)} classes are called {name!r}: write {choices}")
    return Neuron(CLASSES, numbers[0])


def _spellings(names: str) -> set[str]:
    return {_folded(name) for name in (names, *names.split(","))}


def _folded(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def check_neurons(layer: str, channels: int, neurons: Sequence[int]) -> None:
    """Raise `UnknownNeuron` for a number that the layer does not have."""
    bad = [neuron for neuron in neurons if not 0 <= neuron < channels]
    if bad:
        raise UnknownNeuron(
            f"neuron {bad[0]} is not in layer {layer!r}, which has {channels}: ask for 0 to {channels - 1}"
        )


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
