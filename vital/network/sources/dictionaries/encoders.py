"""What an encoder is in a file, of whichever program, and the dictionary that it makes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vital.network.neurons import Dictionary
from vital.network.neurons.dictionaries import Decoder, Normalisation


class Unreadable(Exception):
    """Why a file is no dictionary, and the way out."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder of (x − centre) · scale, as a file has it: ``weight`` is (feature, channel), ``bias`` and
    ``threshold`` are of features, ``centre`` and ``scale`` of channels; each of these may be one number for all."""

    source: str
    weight: np.ndarray
    bias: np.ndarray | float = 0.0
    centre: np.ndarray | float = 0.0
    scale: np.ndarray | float = 1.0
    threshold: np.ndarray | float = 0.0
    k: int | None = None
    """Features that are kept at each site, the greatest; all where it is None."""
    normalisation: Normalisation = "none"

    def folded(self) -> Dictionary:
        """The dictionary, with centre and scale folded into weights and biases.

        Raises:
            Unreadable: a part is of another shape, or holds what is no finite number.
        """
        weight, bias, threshold, k = self.weight, self.bias, self.threshold, self.k
        if weight.ndim != 2 or not weight.size:
            raise Unreadable(f"its weight is of shape {weight.shape}; a matrix, features × channels, was expected")
        features, channels = weight.shape
        for name, value, length in (
            ("bias", bias, features), ("threshold", threshold, features), ("centre", self.centre, channels),
            ("scale", self.scale, channels),
        ):  # fmt: skip
            if np.shape(value) not in ((), (length,)):
                raise Unreadable(
                    f"its {name} is of shape {np.shape(value)}; {length} numbers were expected, as of weight"
                )
            if not (np.isfinite(value) | (np.isneginf(value) & (name == "threshold"))).all():
                raise Unreadable(f"its {name} holds what is no finite number; give an earlier step of the training")
        if not np.isfinite(weight).all():
            raise Unreadable("its weight holds what is no finite number; give an earlier step of the training")
        if k is not None and not 1 <= k <= features:
            raise Unreadable(
                f"it keeps the {k} greatest of {features} features; a number from 1 to {features} is expected"
            )
        whole = weight.astype(np.float64) * self.scale
        if not (np.abs(whole) <= np.finfo(np.float32).max).all():
            raise Unreadable("its weight holds numbers beyond those of 32 bits; give an earlier step of the training")
        shifted = np.broadcast_to(bias, features) - whole @ np.broadcast_to(
            np.asarray(self.centre, np.float64), channels
        )
        least = np.broadcast_to(np.asarray(threshold, np.float32), features).copy()
        narrow = np.ascontiguousarray(whole, np.float32)
        return Dictionary(narrow, shifted.astype(np.float32), least, k, self.normalisation, self.source)


def with_decoder(
    made: Dictionary, weight: np.ndarray | None, bias: np.ndarray | float = 0.0, trained_on: object = ""
) -> Dictionary:
    """The same with the way back to what it reads, where the file has one, and the layer that it names.

    Raises:
        Unreadable: the way back is of another shape, or holds what is no finite number, or the layer is no name.
    """
    named = np.asarray("" if trained_on is None else trained_on)
    if named.size != 1 or named.dtype.kind != "U":
        raise Unreadable(f"its layer is {named.tolist()!r}; one name was expected")
    made = replace(made, trained_on=str(named.item()))
    if weight is None:
        return made
    for what, given, shape in (("", weight, made.weight.shape), ("'s bias", bias, (made.channels,))):
        if np.shape(given) not in (shape, ()) or not np.isfinite(given).all():
            raise Unreadable(f"its decoder{what} is of shape {np.shape(given)}; finite numbers {shape} were expected")
    back = np.broadcast_to(np.asarray(bias, np.float32), made.channels)
    return replace(made, decoder=Decoder(np.ascontiguousarray(weight, np.float32), back))
