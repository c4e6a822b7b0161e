"""Dictionaries of SAELens: ``cfg.json`` and ``sae_weights.safetensors`` in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vital.network.neurons import Dictionary
from vital.network.neurons.dictionaries import Normalisation
from vital.network.sources.dictionaries.encoders import Encoder, Unreadable, with_decoder
from vital.network.sources.dictionaries.parts import Arrays, count, inner, number, wanted

NORMALISATIONS: Mapping[str, Normalisation] = {"none": "none", "constant_norm_rescale": "norm", "layer_norm": "layer"}
"""What it calls what is done to each site."""
ENCODERS = ("standard", "topk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "gated")
"""What it calls encoders of one linear map. The two of batches are in checkpoints of a training alone: what it saves to
be used is jumprelu."""


def saelens(settings: Mapping[str, Any], arrays: Arrays, factor: object) -> Dictionary:
    """Of ``cfg.json`` and arrays; ``factor`` is that of ``activation_scaler.json``, None where there is none."""
    kind, k = settings.get("architecture", "standard"), settings.get("k")
    ends = settings.get("activation_fn", settings.get("activation_fn_str", "relu"))
    if ends == "topk":  # before its version 6
        kind, k = "topk", inner(settings.get("activation_fn_kwargs")).get("k", k)
    if kind not in ENCODERS or ends not in ("relu", "topk"):
        raise Unreadable(
            f"its encoder is {kind!r} of SAELens, ending in {ends!r}; {', '.join(ENCODERS)} of ReLU are known"
        )
    named = settings.get("normalize_activations") or "none"
    scale = 1.0
    if named is True or named == "expected_average_only_in":  # the factor is of the data set it was trained on
        if factor is None:
            raise Unreadable(
                "it expects activations of norm √channels on average and does not say by which factor; let SAELens "
                "fold it in (fold_activation_norm_scaling_factor), or put its activation_scaler.json into the folder"
            )
        named, scale = "none", number(factor, "scaling_factor")
        if scale <= 0:
            raise Unreadable(f"its scaling_factor is {scale}; a number above 0 was expected")
    elif not isinstance(named, str) or named not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise Unreadable(f"it normalises by {named!r}; {known} are known, so let SAELens fold it in first")
    weight, centre = wanted(arrays, "W_enc", "b_dec")
    # in the metadata since its version 6
    on = settings.get("hook_name") or inner(settings.get("metadata")).get("hook_name")
    weight, back = weight.T, arrays["W_dec"] / scale if "W_dec" in arrays else None
    rest: dict[str, Any] = {"normalisation": NORMALISATIONS[named], "scale": scale}
    rest["centre"] = centre / scale if settings.get("apply_b_dec_to_input", True) else 0.0
    if kind == "gated":  # the gate is open where the magnitude is above this: Rajamanoharan et al. (2024), appendix
        gate, bias, more = wanted(arrays, "b_gate", "b_mag", "r_mag")
        weight = weight * np.exp(more)[:, None]
        made = Encoder("SAELens", weight, bias, threshold=(bias - np.exp(more) * gate).clip(min=0), **rest).folded()
        return with_decoder(made, back, centre / scale, on)
    (bias,) = wanted(arrays, "b_enc")
    if settings.get("rescale_acts_by_decoder_norm"):
        norms = np.linalg.norm(wanted(arrays, "W_dec")[0], axis=1)
        weight, bias = weight * norms[:, None], bias * norms
        back = None if back is None else back / norms[:, None]
    if kind == "jumprelu":
        logarithm = arrays.get("log_threshold")
        threshold = wanted(arrays, "threshold")[0] if logarithm is None else np.exp(logarithm)
        rest["threshold"] = threshold.clip(min=0)
    if kind.endswith("batchtopk"):  # of features as they are after the norms, as SAELens saves it for use
        rest["threshold"] = wanted(arrays, "topk_threshold")[0].clip(min=0)
    if kind == "topk" and k is None:
        raise Unreadable("its cfg.json names no k; give it as SAELens wrote it")
    made = Encoder("SAELens", weight, bias, k=count(k) if kind == "topk" else None, **rest).folded()
    return with_decoder(made, back, centre / scale, on)
