"""Dictionaries of other programs: files as each writes them, read against its encoder written out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.vital.network.sources.dictionaries.written import (
    CHANNELS,
    FEATURES,
    State,
    assert_encodes,
    greatest,
    overcomplete,
    saelens,
    saev,
    sites,
    state,
)
from vital.errors import UnsuitableInput
from vital.network.sources.dictionaries.files import read_dictionary

# saev


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


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('it ran')",))


def bad(folder: Path, kind: str) -> Path:
    weight, arrays = np.zeros((FEATURES, CHANNELS), np.float32), state()
    plain: dict[str, dict[str, Any]] = {
        "key": {"weight": weight, "tau": weight},
        "none": {"bias": weight[:, 0]},
        "nothing": {},
        "bias": {"weight": weight, "bias": np.zeros(3)},
        "nan": {"weight": weight * np.nan},
        "row": {"weight": weight[0]},
        "k": {"weight": weight, "k": 17},
        "norm": {"weight": weight, "normalisation": "batch"},
        "object": {"weight": np.array([{}])},
        "words": {"weight": np.array([["a"]])},
        "several": {"weight": weight, "k": [3, 4]},
        "half": {"weight": weight, "k": 2.5},
        "beyond": {"weight": weight + np.float64(1e300)},
        "decoder": {"decoder": weight},
        "narrow": {"weight": weight, "decoder": weight[:, 1:]},
        "infinite": {"weight": weight, "decoder": weight, "decoder_bias": np.full(CHANNELS, np.inf)},
    }
    if kind in plain:
        np.savez(folder / "sae.npz", **plain[kind])
        return folder / "sae.npz"
    if kind == "renamed":
        with (folder / "sae.npz").open("wb") as file:
            np.save(file, weight)
        return folder / "sae.npz"
    if kind == "zip":
        (folder / "sae.npz").write_bytes(b"PK\x03\x04 and no more")
        return folder / "sae.npz"
    if kind == "transcoder":
        return saelens(folder / "sae", arrays, architecture="transcoder")
    if kind == "whitening":
        return saelens(folder / "sae", arrays, normalize_activations="covariance_whitening")
    if kind == "jump":
        return saelens(folder / "sae", arrays, architecture="jumprelu")
    if kind == "empty":
        return folder
    if kind == "tied":
        save_file({"W_dec": arrays["W_dec"]}, folder / "sae.safetensors")
        return folder / "sae.safetensors"
    if kind == "array":
        np.save(folder / "sae.npy", weight)
        return folder / "sae.npy"
    if kind == "alone":
        save_file(arrays, folder / "sae.safetensors")
        return folder / "sae.safetensors"
    if kind == "json":
        (folder / "sae.pt").write_bytes(b"{no json\n")
        return folder / "sae.pt"
    if kind == "kind":
        return saev(folder / "sae.pt", {"schema": 9, "cfg": {"activation": {"cls": "Spline", "params": {}}}}, arrays)
    torch.save(
        {
            "code": Malicious(), "whole": nn.Linear(2, 2), "list": [1, 2], "names": {"a": torch.zeros(2)},
            "bare": overcomplete(nn.Identity())[1],
            "deep": {"state_dict": {"encoder.mlp_blocks.0.0.weight": torch.zeros(2, 2)}, "top_k": 2},
            "together": {"state_dict": overcomplete(nn.LayerNorm(FEATURES))[1], "top_k": 2},
        }[kind],
        folder / "sae.pt",
    )  # fmt: skip
    return folder / "sae.pt"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("code", "holds an object of exec, which reading would have to run; save its tensors alone: .* numpy.savez"),
        ("whole", r"holds an object of torch.nn.modules.linear.Linear, which reading would have to run"),
        ("list", "holds a list; save the state_dict"),
        ("names", "has no encoder.final_block.0.weight and no encoder.final_block.0.bias but a; give the file as"),
        ("bare", r"does not say what its encoder ends in; save it with that beside: torch.save\("),
        ("deep", "has several layers; one linear map is expected"),
        ("together", "normalises its features together; one linear map is expected"),
        ("transcoder", "is 'transcoder' of SAELens, ending in 'relu'; standard, topk, batchtopk, matryoshka_batchtopk"),
        ("whitening", "normalises by 'covariance_whitening'; none, constant_norm_rescale, layer_norm are known"),
        ("jump", "has no threshold but "),
        ("empty", "a folder without sae_weights.safetensors; give a folder as SAELens writes it"),
        ("alone", "no cfg.json beside it, which says what SAELens made; put it there"),
        ("json", "its first line is no JSON; fetch or write it again"),
        ("kind", "ends in 'Spline' of saev; Relu, TopK and BatchTopK are known"),
        ("zip", "write plain arrays with numpy.savez"),
        ("key", "it holds tau; the keys of a plain file are weight, bias, centre, scale, threshold, k, normalisation"),
        ("none", "has no weight but bias; give the file as its program wrote it"),
        ("nothing", "holds no arrays, such as weight; give the file as its program wrote it"),
        ("renamed", "is no archive of arrays; write plain arrays with numpy.savez"),
        ("bias", r"its bias is of shape \(3,\); 16 numbers were expected"),
        ("nan", "its weight holds what is no finite number"),
        ("row", r"its weight is of shape \(6,\); a matrix, features × channels, was expected"),
        ("k", "keeps the 17 greatest of 16 features; a number from 1 to 16 is expected"),
        ("norm", "its normalisation is 'batch'; it is one of none, norm, layer"),
        ("object", "Object arrays cannot be loaded"),
        ("words", "its weight holds <U1; numbers were expected"),
        ("several", r"its k is \[3, 4\]; one whole number was expected"),
        ("half", "its k is 2.5; one whole number was expected"),
        ("beyond", "its weight holds numbers beyond those of 32 bits"),
        ("narrow", r"its decoder is of shape \(16, 5\); finite numbers \(16, 6\) were expected"),
        ("infinite", r"its decoder's bias is of shape \(6,\); finite numbers"),
        ("decoder", "has no weight but decoder; give the file as its program wrote it"),
        ("tied", "has no W_enc but W_dec; give the file as its program wrote it"),
        ("array", "an array alone has no encoder's bias and ending; give it as --directions, or as an .npz"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, kind: str, words: str) -> None:
    path = bad(tmp_path, kind)
    with pytest.raises(UnsuitableInput, match=words) as refused:
        read_dictionary(path)
    assert str(refused.value).startswith(f"{path} is no dictionary that can be read: ")
    assert "\n" not in str(refused.value)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UnsuitableInput, match=re.escape(f"no dictionary at {tmp_path}/x.npz: give a folder of SAELens")
    ):
        read_dictionary(tmp_path / "x.npz")
