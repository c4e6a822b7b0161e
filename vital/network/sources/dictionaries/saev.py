"""Dictionaries of saev: a line of JSON, then a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vital.network.neurons import Dictionary
from vital.network.sources.dictionaries.encoders import Encoder, Unreadable, with_decoder
from vital.network.sources.dictionaries.parts import Arrays, count, inner, wanted


def saev(header: Mapping[str, Any], arrays: Arrays) -> Dictionary:
    """Of the line and the arrays of the state dict."""
    return with_decoder(_encoder(header, arrays), arrays.get("W_dec"), arrays.get("b_dec", 0.0))


def _encoder(header: Mapping[str, Any], arrays: Arrays) -> Dictionary:
    weight, bias = wanted(arrays, "W_enc", "b_enc")
    if "schema" not in header:  # as in its first version, whose encoder subtracts the decoder's bias
        return Encoder("saev", weight.T, bias, centre=wanted(arrays, "b_dec")[0]).folded()
    settings = inner(header.get("cfg"))
    ends = inner(settings.get("activation")) or {"cls": header.get("cls", "Relu"), "params": settings}
    kind, k = ends.get("cls"), inner(ends.get("params")).get("top_k", 32)
    if kind == "BatchTopK" and "activation.threshold" in arrays:
        return Encoder("saev", weight.T, bias, threshold=arrays["activation.threshold"].clip(min=0)).folded()
    if kind in ("TopK", "BatchTopK"):  # it has no rectifier; without a threshold both keep the greatest of each site
        return Encoder("saev", weight.T, bias, threshold=-np.inf, k=min(count(k) or 0, weight.shape[1])).folded()
    if kind not in ("Relu", "SparseAutoencoderConfig"):
        raise Unreadable(f"its encoder ends in {kind!r} of saev; Relu, TopK and BatchTopK are known")
    return Encoder("saev", weight.T, bias).folded()
