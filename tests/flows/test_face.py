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
from vital.errors import UnknownModel, UnknownNeuron, UnsuitableInput
from vital.settings import PictureSettings

pytestmark = pytest.mark.slow

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
    with pytest.raises(UnsuitableInput, match=r"of the network: give model=vital\.load_model\(name, input_size"):
        flows.references("s", tmp_path / "s", model="resnet50", layers="classes", input_size=64)
    with pytest.raises(UnsuitableInput, match="no setting 'stepps'; the nearest are steps"):
        flows.atlas(str(made.store), LAYER, tmp_path / "a.zarr", stepps=3)
    with pytest.raises(UnsuitableInput, match="no setting 'neuron'; the nearest are neurons"):
        flows.targets(str(made.store), LAYER, neuron=3)
    with pytest.raises(UnsuitableInput, match="steps = 0: "):
        flows.atlas(str(made.store), LAYER, tmp_path / "a.zarr", steps=0)
    with pytest.raises(StoreError, match="there is no statistics store"):
        flows.targets(tmp_path / "none.zarr", LAYER)
    assert not list(tmp_path.iterdir())


def test_importing_the_faces_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, flows, stores, vital; print([m for m in ('torch','prefect','zarr','dask') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_password_in_a_setting_is_not_repeated(made: Made, tmp_path: Path) -> None:
    secret = "https://me:hunter2@host/a.tar"
    for shards, store in ((secret, str(tmp_path / "s.zarr")), ("x.tar", "s3://b/s?X-Amz-Signature=hunter2")):
        with pytest.raises(UnsuitableInput, match="give credentials in the environment") as refused:
            flows.references(shards, store, model="resnet18", layers=[LAYER])
        assert "hunter2" not in str(refused.value)


def test_what_is_wrapped_anew_is_another_network(shards: Path, tmp_path: Path) -> None:
    """The same weights seen through another mean: neither its activations nor its store are those of the first."""
    means = (0.5, 0.5, 0.5), (0.1, 0.1, 0.1)
    models = [vital.wrap(tiny.network(), side=tiny.SIDE, mean=mean, std=(0.5,) * 3, name="mine") for mean in means]
    first = flows.references(shards, tmp_path / "1.zarr", model=models[0], layers=[LAYER], references=2, levels=8)
    second = flows.references(shards, tmp_path / "2.zarr", model=models[1], layers=[LAYER], references=2, levels=8)
    assert second.base["mean"] == [0.1, 0.1, 0.1]
    assert not np.array_equal(first.statistic("0", "mean"), second.statistic("0", "mean"))
    with pytest.raises(StoreError, match="base field mean"):
        flows.targets(first, LAYER, neurons=[0], nodes=NODES, model=models[1])


def test_a_network_that_has_a_name_is_recorded_by_it(shards: Path, tmp_path: Path) -> None:
    """So that the command, and workers, can load it again."""
    named = vital.load_model("tests.flows.tiny:network", input_size=tiny.SIDE)
    s = flows.references(shards, tmp_path / "s.zarr", model=named, layers=[LAYER], references=2, levels=8)
    assert s.model["name"] == "tests.flows.tiny:network"
    assert s.model["input_size"] == tiny.SIDE


def test_an_empty_choice_of_neurons_is_not_all_of_them(made: Made) -> None:
    with pytest.raises(UnknownNeuron, match="no neuron was chosen"):
        flows.targets(str(made.store), LAYER, neurons=[])


def test_words_of_earlier_versions_are_told_the_new_ones(made: Made, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableInput, match="grain is called noise now"):
        flows.atlas(str(made.store), LAYER, tmp_path / "a.zarr", grain=0.1)
    for name in ("coarse", "depth", "own_share", "plain_nodes", "scaling"):
        with pytest.raises(ValueError, match=rf"{name} is gone since version 0\.2\.0, .*: leave it out"):
            PictureSettings.model_validate({name: 0.3})
