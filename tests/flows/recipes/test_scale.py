"""What must not grow with a data set or a layer, by benchmarks/scale.py with little data."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import counted, features, scale
from benchmarks.stand_in import SMALL
from flows.running import process

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(("most", "channels"), [(100_000, None), (10_000, 4)])
def test_the_requests_of_a_task_do_not_grow_with_its_layer(tmp_path: Path, most: int, channels: int | None) -> None:
    """Of channels, and of a dictionary's features."""
    found = []
    for neurons in (1_000, most):
        (tmp_path / str(neurons)).mkdir()
        found.append(counted.requests(tmp_path / str(neurons), neurons, channels))
    assert all(of.pop(counted.PASS)["reads"] for of in found)
    assert found[0] == found[1]
    assert set(found[0]) == {"measure-blocks", "picture-blocks"}
    assert all(of["reads"] and of["writes"] for of in found[0].values())


def test_many_features_go_from_shards_to_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(counted.WIDTH, str(features.CHANNELS))
    process._load.cache_clear()
    passed = features.passed(tmp_path, 70)
    assert passed["ms"] > 0
    assert passed["store_bytes"] > 0
    assert all(features.task(tmp_path, step)["seconds"] > 0 for step in ("targets", "fly"))
