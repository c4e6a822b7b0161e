"""Dictionaries of other programs: files as each writes them, read against its encoder written out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vital.errors import UnsuitableInput
from vital.network.sources.dictionaries.files import read_dictionary

CHANNELS, FEATURES = 6, 16
State = dict[str, Tensor]


def state() -> State:
    stream = torch.Generator().manual_seed(1)
    shapes = {"W_enc": (CHANNELS, FEATURES), "b_enc": (FEATURES,), "W_dec": (FEATURES, CHANNELS), "b_dec": (CHANNELS,)}
    return {name: torch.randn(shape, generator=stream) for name, shape in shapes.items()}


def sites(count: int = 20) -> Tensor:
    return torch.randn(count, CHANNELS, generator=torch.Generator().manual_seed(2))


def greatest(before: Tensor, k: int) -> Tensor:
    values, places = before.topk(k, dim=1)
    return torch.zeros_like(before).scatter(1, places, values)


def assert_encodes(path: Path, name: str, source: str, expected: Tensor) -> None:
    called, dictionary = read_dictionary(path)
    assert (called, dictionary.source, dictionary.channels, len(dictionary)) == (name, source, CHANNELS, FEATURES)
    assert (expected != 0).any()
    np.testing.assert_allclose(dictionary.maps(sites()[..., None])[..., 0], expected, atol=1e-4)


# SAELens


def saelens(folder: Path, arrays: Mapping[str, Tensor], **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in arrays.items()}, folder / "sae_weights.safetensors")
    usual = {"d_in": CHANNELS, "d_sae": FEATURES, "architecture": "standard", "normalize_activations": "none",
             "apply_b_dec_to_input": True, "metadata": {"sae_lens_version": "6.12.1"}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps({**usual, **settings}), "utf-8")
    return folder


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


# saev


def saev(file: Path, header: Mapping[str, Any], arrays: State) -> Path:
    with file.open("wb") as out:
        out.write((json.dumps(header) + "\n").encode())
        torch.save(arrays, out)
    return file


@pytest.mark.parametrize(
    ("header", "more", "encoder"),
    [
        ({"d_vit": CHANNELS}, {}, lambda s, x: ((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()),
        ({"schema": 1, "cls": "TopK", "cfg": {"top_k": 2}}, {}, lambda s, x: greatest(x @ s["W_enc"] + s["b_enc"], 2)),
        ({"schema": 5, "cfg": {"activation": {"cls": "Relu", "params": {}}}}, {},
         lambda s, x: (x @ s["W_enc"] + s["b_enc"]).relu()),
        ({"schema": 5, "cfg": {"activation": {"cls": "TopK", "params": {"top_k": 14}}}}, {},
         lambda s, x: greatest(x @ s["W_enc"] + s["b_enc"], 14)),  # without a rectifier
        ({"schema": 2, "cfg": {"activation": {"cls": "BatchTopK", "params": {"top_k": 3}}}}, {},
         lambda s, x: greatest(x @ s["W_enc"] + s["b_enc"], 3)),
        ({"schema": 5, "cfg": {"activation": {"cls": "BatchTopK", "params": {"top_k": 3}}}},
         {"activation.threshold": torch.tensor(0.7)},
         lambda s, x: (b := x @ s["W_enc"] + s["b_enc"]) * (b > 0.7)),
    ],
    ids=["first", "schema 1", "relu", "topk", "batchtopk of a site", "batchtopk"],
)  # fmt: skip
def test_saev(tmp_path: Path, header: dict[str, Any], more: State, encoder: Callable[[State, Tensor], Tensor]) -> None:
    arrays = {**state(), **more}
    assert_encodes(saev(tmp_path / "vits.pt", header, arrays), "vits", "saev", encoder(arrays, sites()))


# Overcomplete


def overcomplete(norm: nn.Module) -> tuple[nn.Module, State]:
    """Its default encoder, and the state dict of the whole."""
    encoder = nn.Module()
    encoder.final_block = nn.Sequential(nn.Linear(CHANNELS, FEATURES), norm)
    whole = nn.Module()
    whole.encoder = encoder
    return encoder.final_block.eval(), {**whole.state_dict(), "dictionary._weights": torch.zeros(FEATURES, CHANNELS)}


@pytest.mark.parametrize("batch_norm", [False, True])
def test_overcomplete(tmp_path: Path, batch_norm: bool) -> None:
    torch.manual_seed(3)
    norm = nn.BatchNorm1d(FEATURES)
    norm.load_state_dict({name: torch.rand_like(value.float()) + 0.1 for name, value in norm.state_dict().items()})
    block, arrays = overcomplete(norm if batch_norm else nn.Identity())
    before, file = block(sites()).detach(), tmp_path / "concepts.pt"
    torch.save({"state_dict": arrays, "top_k": None}, file)
    assert_encodes(file, "concepts", "Overcomplete", before.relu())
    torch.save({"state_dict": arrays, "top_k": 4}, file)
    assert_encodes(file, "concepts", "Overcomplete", greatest(before.relu(), 4))
    threshold = before.flatten().sort().values[-30]  # what is as great is kept
    torch.save({"state_dict": arrays, "top_k": 99, "running_threshold": threshold}, file)
    assert_encodes(file, "concepts", "Overcomplete", before * (before >= threshold))
    torch.save({**arrays, "thresholds": torch.full((FEATURES,), -1.0)}, file)
    assert_encodes(file, "concepts", "Overcomplete", before * (before >= np.exp(-1)))


def test_overcomplete_with_weights_of_the_dictionary_or_its_own(tmp_path: Path) -> None:
    weight, file = torch.randn(FEATURES, CHANNELS, generator=torch.Generator().manual_seed(4)), tmp_path / "tied.pt"
    tied = {
        "dictionary._weights": weight,
        "dictionary.multiplier": torch.tensor(0.5),
        "encoder.tied_to._weights": weight,
    }
    torch.save({"state_dict": tied, "top_k": 3}, file)
    assert_encodes(file, "tied", "Overcomplete", greatest((sites() @ weight.T * np.exp(0.5)).relu(), 3))
    torch.save({"state_dict": {**tied, "encoder.weight": weight * 2}, "top_k": 3}, file)
    assert_encodes(file, "tied", "Overcomplete", greatest((sites() @ weight.T * 2).relu(), 3))


# Plain arrays


def test_plain_arrays(tmp_path: Path) -> None:
    stream = np.random.default_rng(5)
    weight, bias = stream.standard_normal((FEATURES, CHANNELS)), stream.standard_normal(FEATURES)
    centre, scale = stream.standard_normal(CHANNELS), stream.uniform(0.5, 2, CHANNELS)
    more: dict[str, Any] = {"bias": bias, "centre": centre, "scale": scale, "threshold": 0.2, "k": 5}
    before = torch.from_numpy((sites().numpy() - centre) * scale @ weight.T + bias).float()
    expected = greatest(before, 5) * (before > 0.2)
    np.savez(tmp_path / "plain.npz", weight=weight, decoder=weight, **more)
    assert_encodes(tmp_path / "plain.npz", "plain", "npz", expected)
    tensors = {name: torch.as_tensor(value) for name, value in {"weight": weight, **more}.items()}
    torch.save(tensors, tmp_path / "plain.pt")
    assert_encodes(tmp_path / "plain.pt", "plain", "torch", expected)
    save_file(tensors, tmp_path / "alone.safetensors")
    assert read_dictionary(tmp_path / "alone.safetensors")[1].source == "safetensors"
    # numbers and words as what they are in Python, and a weight that NumPy has no type for
    torch.save({"weight": torch.zeros(3, 2).bfloat16(), "k": 2, "normalisation": "layer"}, tmp_path / "python.pt")
    python = read_dictionary(tmp_path / "python.pt")[1]
    assert (python.k, python.normalisation) == (2, "layer")
    np.savez(tmp_path / "few.npz", weight=weight, normalisation="layer")
    assert read_dictionary(tmp_path / "few.npz")[1].normalisation == "layer"


# The way back, and the layer


def given_back(path: Path) -> tuple[Tensor, str]:
    """The sites as the file's whole dictionary gives them back, and the layer that it names."""
    _, dictionary = read_dictionary(path)
    assert dictionary.decoder is not None
    codes = dictionary.maps(sites()[..., None])[..., 0]
    return codes @ torch.tensor(dictionary.decoder.weight) + torch.tensor(
        dictionary.decoder.bias
    ), dictionary.trained_on


def test_decoders_give_back_what_their_programs_do(tmp_path: Path) -> None:
    s, x = state(), sites()
    codes = ((x - s["b_dec"]) @ s["W_enc"] + s["b_enc"]).relu()
    back, on = given_back(saelens(tmp_path / "a", s, hook_name="blocks.3.hook_resid_post"))
    torch.testing.assert_close(back, codes @ s["W_dec"] + s["b_dec"], atol=1e-3, rtol=1e-3)
    assert on == "blocks.3.hook_resid_post"
    # trained on activations half as great, and features as long as their directions
    norms = s["W_dec"].norm(dim=1)
    half = saelens(
        tmp_path / "b", s, architecture="topk", k=3, rescale_acts_by_decoder_norm=True,
        normalize_activations="expected_average_only_in", metadata={"hook_name": "layer4"},
    )  # fmt: skip
    (half / "activation_scaler.json").write_text('{"scaling_factor": 0.5}', "utf-8")
    kept = greatest(((x / 2 - s["b_dec"]) @ s["W_enc"] + s["b_enc"]) * norms, 3).relu()
    back, on = given_back(half)
    torch.testing.assert_close(back, 2 * (kept / norms @ s["W_dec"] + s["b_dec"]), atol=1e-3, rtol=1e-3)
    assert on == "layer4"
    back, on = given_back(saev(tmp_path / "c.pt", {"schema": 1, "cls": "Relu", "cfg": {}}, s))
    codes = (x @ s["W_enc"] + s["b_enc"]).relu()
    torch.testing.assert_close(back, codes @ s["W_dec"] + s["b_dec"], atol=1e-3, rtol=1e-3)
    assert on == ""


def test_decoders_of_plain_files_and_of_overcomplete_give_back_what_theirs_do(tmp_path: Path) -> None:
    s, x = state(), sites()
    weight, words = s["W_enc"].T.contiguous(), {"layer": "blocks.3"}
    arrays = {"weight": weight, "decoder": s["W_dec"], "decoder_bias": s["b_dec"]}
    codes = (x @ weight.T).relu()
    np.savez(tmp_path / "a.npz", **arrays, **words)  # type: ignore[arg-type]
    torch.save({**arrays, **words}, tmp_path / "a.pt")
    for file in ("a.npz", "a.pt"):
        back, on = given_back(tmp_path / file)
        torch.testing.assert_close(back, codes @ s["W_dec"] + s["b_dec"], atol=1e-3, rtol=1e-3)
        assert on == "blocks.3"
    dictionary = {"dictionary._weights": s["W_dec"], "dictionary.multiplier": torch.tensor(0.5)}
    torch.save({"state_dict": {**dictionary, "encoder.weight": weight}, "top_k": None, **words}, tmp_path / "b.pt")
    back, on = given_back(tmp_path / "b.pt")
    torch.testing.assert_close(back, codes @ s["W_dec"] * np.exp(0.5), atol=1e-3, rtol=1e-3)
    assert on == "blocks.3"


# What is refused, in one sentence
