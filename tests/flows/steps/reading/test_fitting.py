"""A dictionary of one layer, offered for another of as many channels: its file says so, or what is given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flows.recipes.references import select_references
from stores import open_statistics
from tests.flows import tiny
from tests.flows.conftest import MODEL, Made, references_job
from vital.errors import UnknownLayer
from vital.network.sources.dictionaries.files import read_dictionary

EVEN = MODEL.model_copy(update={"name": "tests.flows.tiny:even_network"})
TRAINED, OTHER = "2", "3"


def trained(made: Made, file: Path, **more: Any) -> Path:
    """A dictionary of the layer TRAINED: both signs of six principal directions of its sites."""
    network = tiny.even_network()
    images = torch.rand(40, 3, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        sites = network[: int(TRAINED) + 1](images).movedim(1, -1).flatten(0, 2).numpy()
    mean = sites.mean(0)
    rows = np.linalg.svd(sites - mean, full_matrices=False)[2][:6]
    atoms = np.concatenate([rows, -rows])
    np.savez(file, weight=atoms, bias=-atoms @ mean, **{"decoder": atoms, "decoder_bias": mean, **more})
    return file


def passed(made: Made, tmp_path: Path, file: Path, layer: str) -> Path:
    job = references_job(made.shards, tmp_path / f"{layer}.zarr", layers=(f"{layer}~sae",), dictionaries=(str(file),))
    select_references(job.model_copy(update={"model": EVEN}))
    return tmp_path / f"{layer}.zarr"


def test_a_dictionary_of_another_layer_is_told_by_what_it_gives_back(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = trained(made, tmp_path / "sae.npz")
    right = open_statistics(str(passed(made, tmp_path, file, TRAINED)))
    assert "dictionary" not in capfd.readouterr().err
    wrong = open_statistics(str(passed(made, tmp_path, file, OTHER)))
    assert f"the dictionary 'sae' read from '{OTHER}': it gives back" in capfd.readouterr().err
    own, foreign = right.fit(f"{TRAINED}~sae"), wrong.fit(f"{OTHER}~sae")
    assert own is not None
    assert foreign is not None
    assert (own.better, foreign.better) == ("", TRAINED)
    assert own.explained == pytest.approx(foreign.better_explained)
    assert (own.explained or 0) > 0.9 > (foreign.explained or 0) + 0.1
    assert own.images == 20
    assert own.active == pytest.approx(6, abs=0.1)
    assert any("probably trained on another layer" in line for line in wrong.summary())
    assert any("gives back" in line for line in right.summary())
    assert not any("probably" in line for line in right.summary())


def test_a_file_that_names_another_layer_is_refused_before_anything_is_written(made: Made, tmp_path: Path) -> None:
    file = trained(made, tmp_path / "sae.npz", layer=TRAINED)
    words = rf"'sae' \(npz, 12 features\) says that it was trained on '{TRAINED}' and '{OTHER}~sae' was asked for: name"
    with pytest.raises(UnknownLayer, match=words):
        passed(made, tmp_path, file, OTHER)
    assert not (tmp_path / f"{OTHER}.zarr").exists()


def test_what_cannot_be_compared_is_said_and_kept(made: Made, tmp_path: Path) -> None:
    """Without a decoder nothing is given back; a name that the network does not know is handed on."""
    _, whole = read_dictionary(trained(made, tmp_path / "sae.npz", layer="blocks.7.hook_mlp_out"))
    (tmp_path / "alone").mkdir()
    file = tmp_path / "alone" / "sae.npz"
    np.savez(file, weight=whole.weight, bias=whole.bias, layer=whole.trained_on)
    store = open_statistics(str(passed(made, tmp_path, file, OTHER)))
    found = store.fit(f"{OTHER}~sae")
    assert found is not None
    assert (found.explained, found.better, found.trained_on) == (None, "", "blocks.7.hook_mlp_out")
