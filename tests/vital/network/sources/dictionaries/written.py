"""Files of dictionaries as each program writes them, and what their encoders give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

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


def saelens(folder: Path, arrays: Mapping[str, Tensor], **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in arrays.items()}, folder / "sae_weights.safetensors")
    usual = {"d_in": CHANNELS, "d_sae": FEATURES, "architecture": "standard", "normalize_activations": "none",
             "apply_b_dec_to_input": True, "metadata": {"sae_lens_version": "6.12.1"}}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps({**usual, **settings}), "utf-8")
    return folder


def saev(file: Path, header: Mapping[str, Any], arrays: State) -> Path:
    with file.open("wb") as out:
        out.write((json.dumps(header) + "\n").encode())
        torch.save(arrays, out)
    return file


def overcomplete(norm: nn.Module) -> tuple[nn.Module, State]:
    """Its default encoder, and the state dict of the whole."""
    encoder = nn.Module()
    encoder.final_block = nn.Sequential(nn.Linear(CHANNELS, FEATURES), norm)
    whole = nn.Module()
    whole.encoder = encoder
    return encoder.final_block.eval(), {**whole.state_dict(), "dictionary._weights": torch.zeros(FEATURES, CHANNELS)}
