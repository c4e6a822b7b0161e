"""Dictionaries of Overcomplete, read against its encoders written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.vital.network.sources.dictionaries.written import (
    CHANNELS,
    FEATURES,
    State,
    assert_encodes,
    greatest,
    overcomplete,
    sites,
)
from vital.errors import UnsuitableInput
from vital.network.sources.dictionaries.files import read_dictionary


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


def archetypes(delta: float = 0.3) -> tuple[State, Tensor]:
    """A relaxed dictionary as it is saved, and its atoms: mixtures of points, something added, times a number."""
    stream = torch.Generator().manual_seed(6)
    shares, points = torch.rand(FEATURES, 9, generator=stream) - 0.3, torch.randn(9, CHANNELS, generator=stream)
    relaxed, multiplier = delta * torch.randn(FEATURES, CHANNELS, generator=stream), torch.tensor(0.4)
    mixed = torch.stack([(row := one.relu()) @ points / row.sum() for one in shares])
    parts = {"W": shares, "C": points, "Relax": relaxed, "multiplier": multiplier}
    return parts, (mixed + relaxed) * multiplier.exp()


def test_an_encoder_tied_to_relaxed_archetypes(tmp_path: Path) -> None:
    parts, atoms = archetypes()
    names = ("dictionary", "encoder.tied_to")
    saved = {f"{name}.{key}": value for name in names for key, value in parts.items()}
    torch.save({"state_dict": saved, "top_k": 3}, tmp_path / "ra.pt")
    assert_encodes(tmp_path / "ra.pt", "ra", "Overcomplete", greatest((sites() @ atoms.T).relu(), 3))
    decoder = read_dictionary(tmp_path / "ra.pt")[1].decoder
    assert decoder is not None
    np.testing.assert_allclose(decoder.weight, atoms, rtol=1e-4, atol=1e-5)


def refused(path: Path, saved: object) -> str:
    torch.save(saved, path)
    with pytest.raises(UnsuitableInput) as error:
        read_dictionary(path)
    return str(error.value)


def test_pursuits_and_learned_levels_are_no_linear_map_that_is_read(tmp_path: Path) -> None:
    """With ``top_k`` beside it atoms alone were read as a TopK of their products, a pursuit's first step."""
    file = tmp_path / "sae.pt"
    atoms = {"dictionary._weights": torch.ones(FEATURES, CHANNELS), "dictionary.multiplier": torch.tensor(0.0)}
    assert "matching pursuits (MpSAE, OMPSAE) take one atom after" in refused(file, {"state_dict": atoms, "top_k": 3})
    levels = {**overcomplete(nn.Identity())[1], "Q": torch.linspace(0, 1, 4)}
    assert "rounds to learned levels (QSAE)" in refused(file, {"state_dict": levels, "top_k": None})


def test_parts_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path) -> None:
    file, parts = tmp_path / "sae.pt", archetypes()[0]
    tied = {f"{name}.{key}": value for name in ("dictionary", "encoder.tied_to") for key, value in parts.items()}
    saved = {"state_dict": {**tied, "dictionary.C": torch.ones(2, CHANNELS)}, "top_k": 3}
    assert "its arrays do not fit together (" in refused(file, saved)
    whole = overcomplete(nn.Identity())[1]
    said = refused(file, {"state_dict": whole, "running_threshold": torch.ones(3)})
    assert said.endswith("its running_threshold is [1.0, 1.0, 1.0]; one number was expected")
    assert "\n" not in said
    assert "its layer is [1.0, 1.0]; one name was" in refused(
        file, {"state_dict": whole, "top_k": 3, "layer": torch.ones(2)}
    )
