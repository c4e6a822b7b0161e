"""The benchmark of dictionaries, with little of everything: each figure that it names is there, and means something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import dictionary
from vital.network.neurons.fit import fit
from vital.network.sources.dictionaries.files import read_dictionary


@pytest.mark.slow
def test_a_dictionary_is_trained_written_and_read_back(tmp_path: Path) -> None:
    found = dictionary.training(tmp_path / "sae.npz", dictionary.TINY)
    cost = dictionary.scale(dictionary.TINY)
    named = {part for line in (dictionary.__doc__ or "").splitlines() for part in line.split("``")[1::2]} - {
        "--out",
        "--scale",
        "--pictures",
        "readability",  # of --pictures, which takes minutes
    }
    assert named <= found.keys() | cost.keys() | found["targets"]["64/256"].keys()
    _, read = read_dictionary(tmp_path / "sae.npz")
    assert (len(read), read.channels, read.k) == (2 * 192, 192, 4)
    kept = found["targets"]["64/256"]
    assert 0 < kept["whole_bytes"] < kept["whole_bytes"] + kept["relevant_bytes"] < 1e5
    assert 0 < kept["percent_whole"] < kept["percent"] < 100
    assert found["active"] <= 4.01  # equals are all kept
    assert cost["task_bytes"]["ReLU"] == 4 * 16 * 4  # a task's own rows; of TopK all go, too
    assert cost["task_bytes"]["TopK"] == (500 + 4) * 16 * 4


def test_training_explains_what_a_dictionary_made_of(tmp_path: Path) -> None:
    """Samples that are sums of two of twelve directions are given back by their dictionary."""
    stream = np.random.default_rng(1)
    atoms = np.linalg.qr(stream.standard_normal((16, 12)))[0].T
    codes = np.zeros((4000, 12))
    for row in codes:
        row[stream.choice(12, 2, replace=False)] = stream.uniform(0.5, 2, 2)
    samples = torch.from_numpy((codes @ atoms).astype(np.float32))
    arrays = dictionary.trained(samples, 48, 3, 400)
    np.savez(tmp_path / "atoms.npz", **arrays)  # type: ignore[arg-type]
    _, read = read_dictionary(tmp_path / "atoms.npz")
    assert (fit(read, samples).explained or 0) > 0.9
