"""Dictionaries of SAELens, read against its encoders written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vital.network.sources.dictionaries.written import (
    CHANNELS,
    FEATURES,
    State,
    assert_encodes,
    greatest,
    saelens,
    sites,
    state,
)
from vital.errors import UnsuitableInput
from vital.network.sources.dictionaries.files import read_dictionary

THRESHOLD = torch.linspace(-0.5, 1.5, FEATURES)


@pytest.mark.parametrize(
    ("settings", "more", "encoder"),
    [
        ({}, {}, lambda s, x: ((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()),
        ({"apply_b_dec_to_input": False}, {}, lambda s, x: (x @ s["W_enc"] + s["b_enc"]).relu()),
        (
            {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True},
            {},
            lambda s, x: greatest(((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"]) * s["W_dec"].norm(dim=-1), 3).relu(),
        ),
        (
            {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}, "metadata": {}},  # before version 6
            {},
            lambda s, x: greatest((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"], 2).relu(),
        ),
        (
            {"architecture": "jumprelu"},
            {"threshold": THRESHOLD},
            lambda s, x: (b := (x - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu() * (b > s["threshold"].relu()),
        ),
        (
            {"architecture": "jumprelu", "normalize_activations": "constant_norm_rescale"},
            {"log_threshold": THRESHOLD},
            lambda s, x: (
                (b := (x * CHANNELS**0.5 / x.norm(dim=1, keepdim=True) - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()
                * (b > s["log_threshold"].exp())
            ),
        ),
        (
            {"normalize_activations": "layer_norm"},
            {},
            lambda s, x: (
                ((x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5) - s["b_dec"]) @ s["W_enc"] + s["b_enc"]
            ).relu(),
        ),
        (
            {"architecture": "gated"},
            {"b_gate": THRESHOLD - 1, "b_mag": THRESHOLD.flip(0), "r_mag": THRESHOLD / 2},
            lambda s, x: (
                (((x - s["b_dec"]) @ s["W_enc"] + s["b_gate"]) > 0)
                * ((x - s["b_dec"]) @ (s["W_enc"] * s["r_mag"].exp()) + s["b_mag"]).relu()
            ),
        ),
    ],
    ids=["standard", "no centre", "topk", "old topk", "jumprelu", "norm", "layer norm", "gated"],
)
def test_saelens(
    tmp_path: Path, settings: dict[str, Any], more: State, encoder: Callable[[State, Tensor], Tensor]
) -> None:
    arrays = {**state(), **more}
    folder = saelens(tmp_path / "layer13", arrays, **settings)
    assert_encodes(folder, "layer13", "SAELens", encoder(arrays, sites()))
    assert_encodes(folder / "sae_weights.safetensors", "layer13", "SAELens", encoder(arrays, sites()))


def test_saelens_scales_activations_by_the_factor_beside(tmp_path: Path) -> None:
    arrays = state()
    folder = saelens(tmp_path / "scaled", arrays, normalize_activations="expected_average_only_in")
    with pytest.raises(UnsuitableInput, match="does not say by which factor; let SAELens fold it in"):
        read_dictionary(folder)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.5}', "utf-8")
    expected = ((sites() / 2 - arrays["b_dec"]) @ arrays["W_enc"] + arrays["b_enc"]).relu()
    assert_encodes(folder, "scaled", "SAELens", expected)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_a_checkpoint_of_a_training_by_batches_ends_in_the_threshold_that_is_saved_for_use(
    tmp_path: Path, architecture: str, rescaled: bool
) -> None:
    """What SAELens saves for use has the norms of the decoder in its weights, and one threshold for all features."""
    s = {**state(), "topk_threshold": torch.tensor(1.7, dtype=torch.float64)}
    folder = saelens(
        tmp_path / "steps", s, architecture=architecture, k=2.5, rescale_acts_by_decoder_norm=rescaled
    )  # fmt: skip
    norms = s["W_dec"].norm(dim=1) if rescaled else torch.ones(FEATURES)
    before = (sites() - s["b_dec"]) @ (s["W_enc"] * norms) + s["b_enc"] * norms
    assert_encodes(folder, "steps", "SAELens", before * (before > 1.7))


def test_a_factor_beside_weights_that_have_it_already_is_not_taken_again(tmp_path: Path) -> None:
    s = state()
    folder = saelens(tmp_path / "folded", s)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.5}', "utf-8")
    assert_encodes(folder, "folded", "SAELens", ((sites() - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu())


@pytest.mark.parametrize(
    ("settings", "arrays", "words"),
    [
        ({"architecture": "batchtopk"}, {}, "has no topk_threshold but "),
        ({"architecture": "matching_pursuit"}, {}, "is 'matching_pursuit' of SAELens"),
        ({"normalize_activations": ["x"]}, {}, r"normalises by \['x'\]"),
        ({"normalize_activations": "expected_average_only_in"}, {}, "its scaling_factor is 'much'; one number"),
        ({"metadata": 7, "rescale_acts_by_decoder_norm": True}, {"W_dec": torch.ones(3)}, "do not fit together"),
        ({"architecture": "gated"}, {"b_gate": torch.ones(3), "b_mag": torch.ones(5), "r_mag": torch.tensor(1.0)},
         "do not fit together"),
    ],
)  # fmt: skip
def test_what_of_saelens_cannot_be_read_is_refused(
    tmp_path: Path, settings: dict[str, Any], arrays: State, words: str
) -> None:
    folder = saelens(tmp_path / "sae", {**state(), **arrays}, **settings)
    (folder / "activation_scaler.json").write_text('{"scaling_factor": "much"}', "utf-8")
    with pytest.raises(UnsuitableInput, match=words):
        read_dictionary(folder)
