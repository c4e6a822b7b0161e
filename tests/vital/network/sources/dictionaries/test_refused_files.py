"""Files of dictionaries that cannot be read: one sentence each, and nothing of them runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.vital.network.sources.dictionaries.test_files import CHANNELS, FEATURES, overcomplete, saelens, saev, state
from vital.errors import UnsuitableInput
from vital.network.sources.dictionaries.files import read_dictionary


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('it ran')",))


def bad(folder: Path, kind: str) -> Path:
    weight, arrays = np.zeros((FEATURES, CHANNELS), np.float32), state()
    plain: dict[str, dict[str, Any]] = {
        "key": {"weight": weight, "tau": weight},
        "none": {"bias": weight[:, 0]},
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
        ("code", "holds an object of exec, which reading would have to run; save the"),
        ("whole", r"holds an object of torch.nn.modules.linear.Linear, which reading would have to run"),
        ("list", "holds a list; save the state_dict"),
        ("names", "has no encoder.final_block.0.weight and no encoder.final_block.0.bias but a; give the file as"),
        ("bare", r"does not say what its encoder ends in; save it with that beside: torch.save\("),
        ("deep", "has several layers; one linear map is expected"),
        ("together", "normalises its features together; one linear map is expected"),
        ("transcoder", "is 'transcoder' of SAELens, ending in 'relu'; standard, topk, batchtopk, jumprelu and gated"),
        ("whitening", "normalises by 'covariance_whitening'; none, constant_norm_rescale, layer_norm are known"),
        ("jump", "has no threshold but "),
        ("empty", "a folder without sae_weights.safetensors; give a folder as SAELens writes it"),
        ("alone", "no cfg.json beside it, which says what SAELens made; put it there"),
        ("json", "its first line is no JSON; fetch or write it again"),
        ("kind", "ends in 'Spline' of saev; Relu, TopK and BatchTopK are known"),
        ("zip", "write plain arrays with numpy.savez"),
        ("key", "it holds tau; the keys of a plain file are weight, bias, centre, scale, threshold, k, normalisation"),
        ("none", "has no weight but bias; give the file as its program wrote it"),
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
