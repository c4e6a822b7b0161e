"""The functions of `flows`: they run the flows, give the stores, and take networks of this program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import flows
import stores
import vital
from stores.errors import StoreError
from tests.flows import tiny
from tests.flows.conftest import LAYER, Made
from vital.errors import UnknownModel, UnsuitableInput

NODES = ("0", "1")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("face") / "shards"
    tiny.shards(folder)
    return folder


@pytest.fixture
def live() -> vital.Model:
    """The network that the shards are drawn for, as somebody has it in a notebook."""
    return vital.wrap(tiny.network(), side=tiny.SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), name="mine")


def test_a_live_network_goes_through_all_recipes(shards: Path, live: vital.Model, tmp_path: Path) -> None:
    s = flows.references(f"{shards}/*.tar", tmp_path / "s.zarr", model=live, layers=[LAYER], references=3, levels=16)
    assert isinstance(s, stores.Statistics)
    assert s.ranked() == {LAYER: 3}
    t = flows.targets(s, LAYER, neurons="0:8", nodes=NODES)
    assert t.nodes == ("input", *NODES)
    a = flows.atlas(s, LAYER, tmp_path / "a.zarr", neurons=range(8), steps=2, side=24, batch=4)
    assert isinstance(a, stores.Atlas)
    made = int(np.flatnonzero(a.layer(LAYER).made())[0])
    picture = a[LAYER, made]
    assert picture.pixels.shape == (24, 24, 3)
    assert "data:image/png;base64," in picture._repr_html_()
    assert flows.evaluate(a).layer(LAYER).metrics()["peak"][made] > 0
    # the same module handed over in another program bears the same name, and another one is refused
    assert flows.targets(s.url, LAYER, neurons="0:8", nodes=NODES, model=live).done()[0]


def test_the_same_network_by_name_gives_the_same_numbers(shards: Path, made: Made, tmp_path: Path) -> None:
    """A live copy of the network that `made` loads by name: only who brought it differs."""
    named = vital.load_model("tests.flows.tiny:network", input_size=tiny.SIDE)
    way = named.preprocessing
    live = vital.wrap(tiny.network(), side=way.side, mean=way.mean, std=way.std)
    mine = flows.references(shards, tmp_path / "s.zarr", model=live, layers=[LAYER], references=3, levels=16)
    theirs = stores.open_statistics(str(made.store))
    np.testing.assert_array_equal(mine.references(LAYER).image, theirs.references(LAYER).image)
    np.testing.assert_array_equal(mine.statistic("0", "quantiles"), theirs.statistic("0", "quantiles"))


def test_a_live_network_is_refused_where_tasks_run_elsewhere(shards: Path, live: vital.Model, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"tasks run in other processes.*package\.module:factory"):
        flows.references(shards, tmp_path / "s.zarr", model=live, layers=[LAYER], workers=2)
    assert not (tmp_path / "s.zarr").exists()


def test_a_bare_module_is_sent_to_wrap(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableInput, match=r"Sequential was given.*vital\.wrap\(module"):
        flows.references(shards, tmp_path / "s.zarr", model=torch.nn.Sequential(), layers=[LAYER])  # type: ignore[arg-type]


def test_bad_settings_are_one_sentence(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableInput, match="no setting 'stepps'; the nearest are steps"):
        flows.atlas(str(made.store), LAYER, tmp_path / "a.zarr", stepps=3)
    with pytest.raises(UnsuitableInput, match="steps = 0: "):
        flows.atlas(str(made.store), LAYER, tmp_path / "a.zarr", steps=0)
    with pytest.raises(StoreError, match="there is no statistics store"):
        flows.targets(tmp_path / "none.zarr", LAYER)
    assert not list(tmp_path.iterdir())


def test_importing_the_faces_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, flows, stores, vital; print([m for m in ('torch','prefect','zarr','dask') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert ran.stdout.strip() == "[]"
