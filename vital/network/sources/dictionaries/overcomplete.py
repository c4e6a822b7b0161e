"""Dictionaries of Overcomplete: a state dict, which does not say what its encoder ends in, and that beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vital.network.neurons import Dictionary
from vital.network.sources.dictionaries.encoders import Encoder, Unreadable, with_decoder
from vital.network.sources.dictionaries.parts import Arrays, count, number, wanted

BATCH_NORM = 1e-5
"""Added to a variance by torch's batch norms."""
TINY = 1e-8
"""Added by Overcomplete to what shares are divided by."""


def overcomplete(arrays: Arrays, beside: Mapping[str, Any]) -> Dictionary:
    """Of the arrays of a state dict, and all that was saved with it."""
    if "Q" in arrays:
        raise Unreadable("its encoder rounds to learned levels (QSAE); ReLU, TopK, BatchTopK and JumpReLU are known")
    weight, bias = _map(arrays)
    made = _encoder(arrays, beside, weight, bias)
    return with_decoder(made, _atoms(arrays), trained_on=beside.get("layer"))


def _encoder(arrays: Arrays, beside: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray | float) -> Dictionary:
    if "thresholds" in arrays:  # kept as their logarithm
        return Encoder("Overcomplete", weight, bias, threshold=_below(np.exp(arrays["thresholds"]))).folded()
    threshold = beside.get("running_threshold")
    if threshold is not None:
        least = float(_below(np.asarray(number(threshold, "running_threshold"))))
        return Encoder("Overcomplete", weight, bias, threshold=max(least, 0.0)).folded()
    if "top_k" not in beside:
        raise Unreadable(
            "a state dict of Overcomplete does not say what its encoder ends in; save it with that beside: "
            "torch.save({'state_dict': sae.state_dict(), 'top_k': sae.top_k}, …), None for a plain ReLU, or "
            "'running_threshold' of a BatchTopKSAE"
        )
    return Encoder("Overcomplete", weight, bias, k=count(beside["top_k"])).folded()


def _below(threshold: np.ndarray) -> np.ndarray:
    """It keeps what is as great as its threshold, others only what is greater."""
    return np.asarray(np.nextafter(threshold.astype(np.float32), np.float32(-np.inf)))


def _atoms(arrays: Arrays) -> np.ndarray | None:
    """Its atoms, of their own or relaxed archetypes: mixtures of points, and what is added to them."""
    atoms = arrays.get("dictionary._weights")
    if {f"dictionary.{name}" for name in ("W", "C", "Relax")} <= set(arrays):
        shares = arrays["dictionary.W"].clip(min=0)
        shares = shares / (shares.sum(1, keepdims=True) + TINY)
        atoms = shares @ arrays["dictionary.C"] + arrays["dictionary.Relax"]
    return None if atoms is None else np.asarray(atoms * np.exp(arrays.get("dictionary.multiplier", np.zeros(()))))


def _map(arrays: Arrays) -> tuple[np.ndarray, np.ndarray | float]:
    """The linear map of an encoder, its batch norm folded in."""
    first, norm = "encoder.final_block.0", "encoder.final_block.1"
    own = {name for name in arrays if name.startswith("encoder.")}
    tied = {name for name in own if name.startswith("encoder.tied_to.")}
    atoms = _atoms(arrays)
    if any(name.startswith("encoder.mlp_blocks") for name in own):
        raise Unreadable("its encoder has several layers; one linear map is expected")
    if "encoder.weight" in arrays:
        return arrays["encoder.weight"], arrays.get("encoder.bias", 0.0)
    if not own and atoms is not None:
        raise Unreadable(
            "it has atoms and no encoder: matching pursuits (MpSAE, OMPSAE) take one atom after the other, which is "
            "no linear map; train a TopKSAE"
        )
    if atoms is not None and tied and own - tied <= {"encoder.bias"}:
        return atoms, arrays.get("encoder.bias", 0.0)
    weight, bias = wanted(arrays, f"{first}.weight", f"{first}.bias")
    if f"{norm}.running_var" in arrays:
        mean, variance = wanted(arrays, f"{norm}.running_mean", f"{norm}.running_var")
        gain, shift = arrays.get(f"{norm}.weight", np.ones(1)), arrays.get(f"{norm}.bias", np.zeros(1))
        gain = gain / np.sqrt(variance + BATCH_NORM)
        return weight * gain[:, None], (bias - mean) * gain + shift
    if f"{norm}.weight" in arrays:
        raise Unreadable("its encoder normalises its features together; one linear map is expected")
    return weight, bias
