"""A neuron whose values overflow is recorded with its reason, and the others are as they were if it was not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.steps.targets.graded import graded_images
from stores import open_any
from stores.arrays.opening import open_store
from stores.arrays.schema import array_at
from stores.errors import PictureStatus
from tests.flows import tiny
from tests.flows.conftest import LAYER, MODEL, VARIANT, Made, atlas_job, references_job, targets_job
from vital.measuring.targets.trends import common_trend

pytestmark = pytest.mark.slow

LARGE, INFINITE = 4, 7
"""Channels that `tiny.overflowing_network` spoils."""


def without_spoilt(rows: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """What the layer's other neurons have in common, in a network where none is spoilt."""
    return common_trend(rows, np.delete(peaks, [LARGE, INFINITE], axis=1))


def test_neurons_that_overflow_stop_nobody(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, store, atlas = tmp_path / "shards", tmp_path / "stats.zarr", tmp_path / "atlas.zarr"
    tiny.shards(shards)
    model = MODEL.model_copy(update={"name": "tests.flows.tiny:overflowing_network"})
    select_references(references_job(shards, store, model=model, layers=(LAYER,)))
    said = [line for line in capsys.readouterr().err.splitlines() if "left what is exact" in line]
    assert f"layer {LAYER}: 1 channels have left what is exact in the sum over images of the greatest value" in said[-1]
    measure_targets(targets_job(store))
    # one by one: a neuron that is left out moves the others to other places of their batches
    build_atlas(atlas_job(store, atlas, batch=1))
    sound = tmp_path / "sound.zarr"
    shutil.copytree(made.store, sound)
    with monkeypatch.context() as patch:
        patch.setattr("vital.measuring.targets.trends.common_trend", without_spoilt)
        graded_images.cache_clear()
        fewer = VARIANT.model_copy(update={"references": 3})
        measure_targets(targets_job(sound, variant=fewer))
    build_atlas(atlas_job(sound, tmp_path / "plain.zarr", batch=1, variant=fewer))
    spoilt, plain = (open_store(str(place), "atlas", "r") for place in (atlas, tmp_path / "plain.zarr"))
    status, expected = (np.asarray(array_at(group, f"{LAYER}/status")[:]) for group in (spoilt, plain))
    assert status[[LARGE, INFINITE]].tolist() == [PictureStatus.NON_FINITE] * 2
    others = np.setdiff1d(np.arange(tiny.CHANNELS), [LARGE, INFINITE])
    assert status[others].tolist() == expected[others].tolist()
    there = others[status[others] == PictureStatus.MADE]
    assert len(there) > 30
    for name in ("pixels", "alpha", "loss"):
        found, wanted = (np.asarray(array_at(group, f"{LAYER}/{name}")[:])[there] for group in (spoilt, plain))
        np.testing.assert_array_equal(found, wanted)
    assert "2 a value became infinite or undefined on the way" in "\n".join(open_any(str(atlas)).summary())
