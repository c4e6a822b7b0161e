"""What every source of networks gives: the network with its weights, how images are prepared for it, and what is worth
saying about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from vital.network.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vital.settings import ModelSettings

RANDOM = "random"
"""Instead of weights: those that a network is made with, the same every time."""
Colour: TypeAlias = tuple[float, ...]
"""A number each of red, green and blue, or of each channel."""
USUAL = Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD)
"""How images are prepared where nothing says otherwise."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network with its weights, how images are prepared for it, and the names of its classes where they are known."""

    network: nn.Module
    preprocessing: Preprocessing = USUAL
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What was chosen or left out on the way, a sentence each."""
    settled: bool = False
    """Whether it is shown what it takes already: all or one of the channels, in its own order of axes."""
    classifies: bool = True
    """Whether its outputs are scores of classes, as far as anybody says; else they are features."""


def assumed(settings: ModelSettings, file: str | None = None) -> tuple[str, ...]:
    """What nobody said of how images are prepared, and what is taken: of a factory, or of weights in a ``file``."""
    usual: dict[str, tuple[float, ...]] = {"--input-size": (USUAL.side,), "--mean": USUAL.mean, "--std": USUAL.std}
    given = (settings.input_size, settings.mean, settings.std)
    unsaid = [name for name, value in zip(usual, given, strict=True) if value is None]
    if not unsaid:
        return ()
    taken = ", ".join(f"{name} {' '.join(map(str, usual[name]))}" for name in unsaid)
    wrapped = "" if file else ", or have the factory return what vital.wrap gives"
    return (
        f"{file or settings.name} does not say how images are prepared, and ImageNet's usual is taken ({taken}): give "
        f"what it was trained with{wrapped}",
    )
