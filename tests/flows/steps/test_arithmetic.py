"""In which arithmetic flows compute, and that stores record it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from flows.jobs import EvaluateJob, Running
from flows.recipes.atlas import build_atlas
from flows.recipes.evaluation import evaluate_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.running import process
from flows.running.process import _resized, load, load_at_side, load_stored
from flows.steps.pictures import declaring, making
from stores import open_atlas, open_statistics
from stores.errors import ForeignStore, SchemaMismatch
from tests.flows import tiny
from tests.flows.conftest import LAYER, MODEL, PICTURE, Made, atlas_job, references_job, targets_job
from vital.errors import DoesNotFit
from vital.memory import in_batches
from vital.network.arithmetic import ON_GPU
from vital.pictures.optimise import optimise

B: Any = torch.backends


@contextmanager
def seen() -> Iterator[set[tuple[object, ...]]]:
    """The arithmetic of every pass of this process's network."""
    found: set[tuple[object, ...]] = set()

    def note(*_: object) -> None:
        flags = (B.cuda.matmul.allow_tf32, B.cudnn.allow_tf32, torch.is_autocast_enabled("cpu"))
        found.add((*flags, torch.are_deterministic_algorithms_enabled()))

    handle = load(MODEL, Running()).model.network[0].register_forward_hook(note)  # type: ignore[index]
    try:
        yield found
    finally:
        handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [False, True])
def test_all_that_is_written_is_computed_in_single_precision(made: Made, tmp_path: Path, deterministic: bool) -> None:
    """Whatever else the program lets torch round, and with operations that have one order where that is asked for."""
    store, atlas = tmp_path / "s.zarr", tmp_path / "a.zarr"
    running = Running(deterministic=deterministic)
    _resized.cache_clear()  # whatever ran before: looking at the network at another side counts, too …
    if deterministic:
        load_at_side(MODEL, running, PICTURE.side)  # … but has no order to keep
    with torch.autocast("cpu", torch.bfloat16), seen() as found:
        assert B.cudnn.allow_tf32  # as torch begins
        select_references(references_job(made.shards, store, layers=(LAYER,), running=running))
        measure_targets(targets_job(store, running=running))
        build_atlas(atlas_job(store, atlas, neurons="0:8", running=running))
        evaluate_atlas(EvaluateJob(atlas=str(atlas), running=running))
    assert found == {(False, False, False, deterministic)}
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_statistics_and_targets_record_their_precision(made: Made, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    select_references(references_job(made.shards, store, precision="bfloat16"))
    measure_targets(targets_job(store, precision="bfloat16"))
    rough, exact = open_statistics(str(store)), open_statistics(str(made.store))
    assert (rough.base["precision"], exact.base["precision"]) == ("bfloat16", "float32")
    assert {**rough.base, "precision": "float32"} == exact.base
    with pytest.raises(ForeignStore, match="precision = bfloat16 but now it is float32"):
        select_references(references_job(made.shards, store))
    with pytest.raises(SchemaMismatch, match="begun in bfloat16 but now it is float32: repeat --precision bfloat16"):
        measure_targets(targets_job(store))
    near, far = (one.statistic(LAYER, "mean") for one in (rough, exact))
    assert not np.array_equal(near, far)
    np.testing.assert_allclose(near, far, atol=0.02 * np.abs(far).max())
    variants = [next(iter(one.all_targets(LAYER))).settings for one in (rough, exact)]
    assert variants[0].pop("precision") == "bfloat16"
    assert variants[0] == variants[1]  # what was measured before there was a choice stays what it is


@pytest.mark.slow
def test_new_shards_are_added_in_the_precision_of_the_old(made: Made, tmp_path: Path) -> None:
    folder, grown, whole = tmp_path / "shards", tmp_path / "grown.zarr", tmp_path / "whole.zarr"
    folder.mkdir()
    first, *others = sorted(made.shards.glob("*.tar"))
    shutil.copy(first, folder)
    select_references(references_job(folder, grown, precision="bfloat16"))
    for other in others:
        shutil.copy(other, folder)
    select_references(references_job(folder, grown, precision="bfloat16", extend=True))
    select_references(references_job(folder, whole, precision="bfloat16"))
    extended, read_at_once = (open_statistics(str(store)).statistic(LAYER, "mean") for store in (grown, whole))
    np.testing.assert_array_equal(extended, read_at_once)


@pytest.mark.slow
def test_pictures_of_an_automatic_precision_go_on_in_the_one_that_they_were_begun_in(
    made: Made, tmp_path: Path
) -> None:
    begun = tmp_path / "a.zarr"
    rough = PICTURE.model_copy(update={"precision": "bfloat16"})
    build_atlas(atlas_job(made.store, begun, neurons="0:8", picture=rough))
    build_atlas(atlas_job(made.store, begun))  # auto
    layer = open_atlas(str(begun)).layer(LAYER)
    assert layer.settings["precision"] == "bfloat16"
    assert layer.made().sum() == open_atlas(str(made.atlas)).layer(LAYER).made().sum()
    with pytest.raises(ForeignStore, match="precision = bfloat16 but now it is float32"):
        build_atlas(atlas_job(made.store, begun, picture=PICTURE.model_copy(update={"precision": "float32"})))
    assert open_atlas(str(made.atlas)).layer(LAYER).settings["precision"] == "float32"


@pytest.mark.parametrize(
    ("running", "precision"),
    [
        (Running(device="cpu"), "float32"),
        (Running(device="cuda:1"), ON_GPU),
        (Running(device="auto"), ON_GPU),
        (Running(scheduler="tcp://host:8786", device="cuda"), ON_GPU),
        (Running(scheduler="tcp://host:8786", device="cpu"), "float32"),
    ],
)
def test_an_automatic_precision_is_that_of_the_tasks_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, running: Running, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: running.scheduler is None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    job = atlas_job(tmp_path / "s", tmp_path / "a", running=running)
    assert declaring._precision(job, None) == precision
    assert declaring._precision(job, "tf32") == "tf32"


def test_a_batch_is_measured_by_the_dearest_steps_of_one_picture(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Mock(side_effect=optimise)
    monkeypatch.setattr(making, "optimise", runs)
    process._needs.clear()  # of tests before
    build_atlas(atlas_job(made.store, tmp_path / "a.zarr", batch="auto", picture=PICTURE))
    asked = [(len(call.args[1]), call.args[2].steps) for call in runs.call_args_list]
    assert asked[0] == (1, 2)
    assert {steps for _, steps in asked[1:]} == {PICTURE.steps}, "the second task knows what the first has measured"
    assert sum(pictures for pictures, _ in asked[1:]) > 32
    longer = PICTURE.model_copy(update={"side": tiny.SIDE})
    build_atlas(atlas_job(made.store, tmp_path / "b.zarr", neurons="0:8", batch="auto", picture=longer))
    assert (runs.call_args_list[len(asked)].args[2].steps, longer.steps) == (2, 3), (
        "pictures of another size are others"
    )


def test_what_fits_together_is_asked_of_the_memory_that_is_free_now(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, free, measured = load(MODEL, Running()), [100], Mock(side_effect=lambda *_: 1.0)
    monkeypatch.setattr(process, "needed_bytes", measured)
    monkeypatch.setattr(process, "batch_of", lambda needed, device: int(free[0] / needed))
    assert process.fitting_batch(loaded, "one", lambda: None) == 100
    free[0] = 10
    assert process.fitting_batch(loaded, "one", lambda: None) == 10
    assert measured.call_count == 1
    measured.side_effect = lambda *_: np.inf
    for _ in range(2):  # where not even one fits now, one may fit later
        assert process.fitting_batch(loaded, "other", lambda: None) == 1
    assert measured.call_count == 3


def test_a_repeatable_batch_does_not_depend_on_free_memory(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = atlas_job(made.store, tmp_path / "a.zarr", batch="auto", running=Running(deterministic=True))
    batches = Mock(side_effect=in_batches)
    monkeypatch.setattr(making, "fitting_batch", lambda *_: pytest.fail("memory was measured"))
    monkeypatch.setattr(making, "in_batches", batches)
    build_atlas(job)
    assert {call.args[1] for call in batches.call_args_list} == {8}


def test_a_repeatable_batch_that_does_not_fit_is_refused_and_not_halved(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(making, "optimise", full)
    with pytest.raises(DoesNotFit, match="give --batch 2"):
        build_atlas(atlas_job(made.store, tmp_path / "a.zarr", running=Running(deterministic=True)))


@pytest.mark.slow
def test_how_neurons_read_their_layer_is_looked_up_once_a_task(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directions may be gigabytes; they are not read for every batch."""
    looked, batches = Mock(side_effect=load_stored), Mock(side_effect=optimise)
    monkeypatch.setattr(making, "load_stored", looked)
    monkeypatch.setattr(making, "optimise", batches)
    build_atlas(atlas_job(made.store, tmp_path / "a.zarr", batch=4))
    assert batches.call_count > 2 * looked.call_count > 0
