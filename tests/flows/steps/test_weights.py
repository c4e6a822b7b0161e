"""A task's network is that of its store, whatever lies under its name where the task runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.jobs import ReferencesJob, Running, settled
from flows.recipes.references import select_references
from flows.running.process import load, load_stored
from flows.steps import dataset
from stores import open_statistics
from stores.errors import ForeignStore
from tests.flows import tiny
from vital.settings import ModelSettings, StatisticsSettings


def weights(file: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(tiny.ten_classes().state_dict(), file)
    return file


def job(folder: Path, file: Path | str) -> ReferencesJob:
    return ReferencesJob(
        shards=(str(folder / "shards"),),
        store=str(folder / "s.zarr"),
        model=ModelSettings(name="tests.flows.tiny:ten_classes", input_size=tiny.SIDE, weights=str(file)),
        layers=("0",),
        statistics=StatisticsSettings(references=2, levels=8),
    )


def test_another_file_of_weights_under_the_same_path_is_loaded_anew(tmp_path: Path) -> None:
    asked = job(tmp_path, weights(tmp_path / "w.pt", 1)).model
    first = load(asked, Running())
    assert load(asked, Running()) is first
    os.utime(weights(tmp_path / "w.pt", 2), ns=(1, 1))
    assert load(asked, Running()).model.identity["weights"] != first.model.identity["weights"]


def test_a_task_that_finds_other_weights_than_its_store_s_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine: the flow has claimed the store, then the file is another."""
    tiny.shards(tmp_path / "shards", 1)
    file = weights(tmp_path / "w.pt", 1)
    claimed = dataset.claim_statistics

    def exchanged(*asked: Any) -> object:
        made = claimed(*asked)
        os.utime(weights(file, 2), ns=(1, 1))
        return made

    monkeypatch.setattr("flows.recipes.references.claim_statistics", exchanged)
    with pytest.raises(ForeignStore, match="weights"):
        select_references(job(tmp_path, file))
    with pytest.raises(ForeignStore, match="weights"):
        load_stored(open_statistics(str(tmp_path / "s.zarr")), Running())


def test_a_file_of_weights_is_known_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights(tmp_path / "w.pt", 1)
    assert settled(job(tmp_path, "w.pt")).model.weights == str(tmp_path / "w.pt")
    for other in ("random", "IMAGENET1K_V2"):
        assert settled(job(tmp_path, other)).model.weights == other
