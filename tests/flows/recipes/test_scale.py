"""What must not grow with a data set or a layer, by benchmarks/scale.py with little data."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import counted, features, scale
from benchmarks.counted import Counted
from benchmarks.stand_in import SMALL
from flows.jobs import EvaluateJob, Running
from flows.pages.atlas import Showing, write_gallery
from flows.recipes.atlas import build_atlas
from flows.recipes.evaluation import evaluate_atlas
from flows.running import process
from tests.flows.conftest import Made, atlas_job

pytestmark = pytest.mark.slow

MOST_OPENED = 30
"""Times that a flow on the tiny network opens one array or group at most."""


@pytest.fixture(autouse=True)
def _own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(counted.WIDTH, "1")
    monkeypatch.setattr(process, "_load", process._load)  # its cache is cleared on the way


def test_the_benchmark_gives_every_figure_that_it_names(tmp_path: Path) -> None:
    found = dict(scale.measured(tmp_path, SMALL, scale.here))
    named = {line.split("``")[1] for line in (scale.__doc__ or "").splitlines() if line.startswith("- ``")}
    assert named < found.keys()
    assert found["merge_partials"] == SMALL.shards
    counts = found["requests_per_block"]
    assert isinstance(counts, dict)
    assert set(counts) == set(SMALL.layers)


@pytest.mark.parametrize(("most", "channels"), [(40_000, None), (10_000, 4)])
def test_the_requests_of_a_task_do_not_grow_with_its_layer(tmp_path: Path, most: int, channels: int | None) -> None:
    """Of channels, so many that an array with a single writer has several chunks, and of a dictionary's features."""
    found = []
    for neurons in (1_000, most):
        (tmp_path / str(neurons)).mkdir()
        found.append(counted.requests(tmp_path / str(neurons), neurons, channels))
    assert all(of.pop(counted.PASS)["reads"] for of in found)
    assert found[0] == found[1]
    assert set(found[0]) == {"measure-blocks", "picture-blocks"}
    assert all(of["reads"] and of["writes"] for of in found[0].values())


def test_no_array_or_group_is_opened_anew_for_each_neuron_metric_or_batch(made: Made, tmp_path: Path) -> None:
    """A layer has 38 pictures, 35 metrics and ten batches; three tasks, and what begins and ends a flow, open the same
    a few times each."""
    counted.count_requests()
    shutil.copytree(made.atlas, tmp_path / "atlas.zarr")
    store, atlas = f"counted://{made.store}", f"counted://{tmp_path / 'atlas.zarr'}"
    running = Running(threads=1, lease=1e6)  # how often a shorter one is renewed depends on the machine
    there = {"store": store, "out": f"counted://{tmp_path / 'again.zarr'}", "running": running}
    pictures = atlas_job(made.store, made.atlas).model_copy(update=there)
    judges = ("tests.flows.tiny:other_network",)
    flows: dict[str, Callable[[], object]] = {
        "pictures": lambda: build_atlas(pictures),
        "metrics": lambda: evaluate_atlas(EvaluateJob(atlas=atlas, store=store, judges=judges, running=running)),
        "pages": lambda: write_gallery(atlas, tmp_path / "pages", Showing(store=store)),
    }
    for name, flow in flows.items():
        Counted.forget()
        flow()
        opened = Counter({file: count for file, count in Counted.files.items() if file.endswith("/zarr.json")})
        [(file, most)] = opened.most_common(1)
        assert 0 < most <= MOST_OPENED, f"{name}: {file} was read {most} times"


def test_many_features_go_from_shards_to_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(counted.WIDTH, str(features.CHANNELS))
    process._load.cache_clear()
    passed = features.passed(tmp_path, 70)
    assert passed["ms"] > 0
    assert passed["store_bytes"] > 0
    assert all(features.task(tmp_path, step)["seconds"] > 0 for step in ("targets", "fly"))
