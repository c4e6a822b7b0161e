"""How neurons are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vital.errors import UnknownNeuron, nearest
from vital.network.probe import CLASSES


@dataclass(frozen=True)
class Neuron:
    """A neuron as it is written: ``LAYER:NUMBER``."""

    layer: str
    number: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.number}"


def parse_neuron(text: str, class_names: Sequence[str] = ()) -> Neuron:
    """The neuron that is written ``LAYER:NUMBER``, ``classes:NUMBER`` or ``classes:NAME``. Of a name, letter case,
    underscores and hyphens do not count, and one of several names between commas will do.

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
    wanted = folded(name)
    numbers = [number for number, names in enumerate(class_names) if wanted in spellings(names)]
    if not numbers:
        raise UnknownNeuron(f"no class is called {name!r}; the nearest are {nearest(name, class_names)}")
    if len(numbers) > 1:
        choices = " or ".join(f"{CLASSES}:{number}" for number in numbers)
        raise UnknownNeuron(f"{len(numbers)} classes are called {name!r}: write {choices}")
    return Neuron(CLASSES, numbers[0])


def spellings(names: str) -> set[str]:
    """All names of a class, which stand between commas, and these together, `folded`."""
    return {folded(name) for name in (names, *names.split(","))}


def folded(name: str) -> str:
    """A class's name without what does not tell classes apart: letter case, underscores, hyphens.

    >>> folded("White_shark ") == folded("white-shark")
    True
    """
    return " ".join(re.sub(r"[_\-\s]+", " ", name).split()).casefold()


def check_neurons(layer: str, channels: int, neurons: Sequence[int]) -> None:
    """Raise `UnknownNeuron` for a number that the layer does not have."""
    bad = [neuron for neuron in neurons if not 0 <= neuron < channels]
    if bad:
        raise UnknownNeuron(
            f"neuron {bad[0]} is not in layer {layer!r}, which has {channels}: ask for 0 to {channels - 1}"
        )
