"""How many pictures a task makes: what fills a batch, and the same for all runs on a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.jobs import BLOCK, AtlasJob, Running
from flows.recipes.atlas import build_atlas
from flows.running.neurons import joined_blocks
from flows.steps.pictures import declaring, making, tasks
from stores import open_atlas
from tests.flows.conftest import LAYER, Made, atlas_job
from vital.pictures.optimise import optimise

GPU, CPU = Running(device="cuda"), Running(device="cpu")


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.integers(1, 8), st.integers(1, 9))
def test_tasks_are_of_whole_blocks_and_filled_as_far_as_that_allows(live: list[bool], block: int, blocks: int) -> None:
    most = block * blocks
    joined = joined_blocks(np.array(live), block, most)
    assert [number for task in joined for number in task] == list(range(-(-len(live) // block)))
    alive = [sum(sum(live[number * block :][:block]) for number in task) for task in joined]
    assert max(alive) <= most
    for first, second, count in zip(joined, joined[1:], alive, strict=False):
        assert first
        assert count + sum(live[second[0] * block :][:block]) > most


@pytest.mark.parametrize(
    ("batch", "running", "live", "expected"),
    [
        ("auto", CPU, 5000, 32),
        ("auto", GPU, 5000, 256),
        ("auto", GPU, 40, 64),
        ("auto", GPU.model_copy(update={"workers": 8}), 1000, 128),  # one task each
        ("auto", GPU.model_copy(update={"workers": 8}), 100_000, 256),
        ("auto", GPU.model_copy(update={"workers": 64}), 1000, 32),
        ("auto", GPU.model_copy(update={"scheduler": "tcp://host:1"}), 2048, 64),
        ("auto", Running(scheduler="tcp://host:1", device="cpu"), 100_000, 32),
        ("auto", Running(scheduler="tcp://declared:1"), 100_000, 256),
        ("auto", Running(scheduler="tcp://host:1"), 100_000, 32),  # of what kind its devices are is not said
        ("auto", GPU.model_copy(update={"deterministic": True}), 5000, 32),
        (100, CPU, 5000, 96),
        (8, GPU, 5000, 32),
        (1000, GPU, 5000, 256),
        (64, GPU, 0, 32),
    ],
)
def test_a_task_makes_a_batch_of_pictures_if_there_is_work_for_all(
    batch: Any, running: Running, live: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declaring, "device_name", lambda asked: asked)
    monkeypatch.setattr(declaring, "workers_have_gpus", lambda running: "declared" in running.scheduler)
    job = AtlasJob(store="s", out="a", layer=LAYER, batch=batch, running=running)
    assert tasks._chosen_pictures(job, live) == expected


@pytest.mark.slow
def test_all_runs_on_a_layer_have_the_tasks_of_the_first(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []

    def watched(model: Any, target: Any, *others: Any, **named: Any) -> Any:
        together.append(len(target))
        return optimise(model, target, *others, **named)

    monkeypatch.setattr(making, "optimise", watched)
    out = tmp_path / "atlas.zarr"
    build_atlas(atlas_job(made.store, out, batch=64))
    layer = open_atlas(str(out), "r+").layer(LAYER)
    count = int(layer.made().sum())
    assert count > BLOCK
    assert (together, layer.per_task) == ([count], 64)
    layer.forget([1])
    few = tmp_path / "few.zarr"
    build_atlas(atlas_job(made.store, few, batch=64, neurons="0:8"))
    assert open_atlas(str(few)).layer(LAYER).per_task == BLOCK  # no more than was asked for
    del together[1:]
    build_atlas(atlas_job(made.store, out, batch=8, neurons="39"))
    assert layer.per_task == 64
    assert sum(together[1:]) == count  # both blocks, which are one task


@pytest.mark.slow
def test_a_layer_begun_by_a_version_with_smaller_tasks_goes_on_with_them(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "atlas.zarr"
    build_atlas(atlas_job(made.store, out, neurons="0:8"))
    layer = open_atlas(str(out), "r+").layer(LAYER)
    del layer.group.attrs["per_task"]
    build_atlas(atlas_job(made.store, out, batch=64))
    assert open_atlas(str(out)).layer(LAYER).per_task == BLOCK
