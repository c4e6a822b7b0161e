"""What unusual input gets, through the command: other sizes, transformers, dead neurons, too few references."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stores.arrays.opening import open_store
from stores.arrays.schema import array_at
from stores.errors import PictureStatus
from tests.flows import tiny
from tests.flows.command import Result, vital
from tests.flows.conftest import LAYER, Made

pytestmark = pytest.mark.slow

ENCODER = "encoder.layers.encoder_layer_2"


def done(result: Result) -> str:
    """What a run that must succeed printed."""
    assert result.exit_code == 0, result.output
    return result.output


def refused(result: Result, *words: str) -> None:
    """One sentence, exit code 1."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output, result.output


@pytest.fixture(scope="module")
def measured(_server: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A store with references and targets of a layer of one of the networks of `tiny`; made once each."""
    made: dict[str, Path] = {}

    def make(network: str, layer: str, *nodes: str, fewest: int = 1) -> Path:
        if network not in made:
            folder = made[network] = tmp_path_factory.mktemp(network)
            tiny.shards(folder / "shards", 1)
            model = ("--model", f"tests.flows.tiny:{network}", "--input-size", tiny.SIDE)
            kept = ("--layer", layer, "--references", 2, "--levels", 16)
            done(vital("references", folder / "shards", "--store", folder / "stats.zarr", *model, *kept))
            named = [part for node in nodes for part in ("--node", node)]
            done(vital("targets", "--store", folder / "stats.zarr", "--layer", layer, *named))
        return made[network] / "stats.zarr"

    return make


def pixels(atlas: Path, layer: str) -> np.ndarray:
    return np.asarray(array_at(open_store(str(atlas), "atlas", "r"), f"{layer}/pixels")[:])


@pytest.mark.parametrize("side", [24, 64])
def test_pictures_of_a_transformer_have_any_multiple_of_its_patches(
    measured: Callable[..., Path], tmp_path: Path, side: int
) -> None:
    store = measured("transformer", ENCODER)
    out = tmp_path / "atlas.zarr"
    said = vital("atlas", "--store", store, "--layer", ENCODER, "--out", out, "--side", side, "--steps", 2)
    assert "made" in done(said)
    found = pixels(out, ENCODER)
    assert found.shape == (40, side, side, 3)
    assert all(len(np.unique(picture)) > 10 for picture in found)


def test_a_side_that_the_network_cannot_take_is_refused_before_work(
    measured: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "atlas.zarr"
    said = vital("atlas", "--store", measured("transformer", ENCODER), "--layer", ENCODER, "--out", out, "--side", 36)
    refused(said, "--side 36", "patches of 8", "multiple of 8")
    assert not out.exists()


def test_a_network_runs_no_further_than_the_layer_so_that_its_head_does_not_matter(
    measured: Callable[..., Path], tmp_path: Path
) -> None:
    store, out = measured("fixed_network", "1", "0"), tmp_path / "atlas.zarr"
    done(vital("atlas", "--store", store, "--layer", "1", "--out", out, "--side", 48, "--steps", 2))
    assert pixels(out, "1").shape == (40, 48, 48, 3)
    named = ("--model", "tests.flows.tiny:fixed_network", "--input-size", 48, "--layer", "classes")
    said = vital("references", store.parent / "shards", "--store", tmp_path / "other.zarr", *named)
    refused(said, "48 × 48", "after '2'", "name a layer up to there")
    assert not (tmp_path / "other.zarr").exists()


def test_a_dead_neuron_is_recorded_and_its_neighbours_are_made(measured: Callable[..., Path], tmp_path: Path) -> None:
    store, out = measured("dead_network", LAYER, "0", "1"), tmp_path / "atlas.zarr"
    said = done(vital("atlas", "--store", store, "--layer", LAYER, "--out", out, "--side", 32, "--steps", 2))
    status = np.asarray(array_at(open_store(str(out), "atlas", "r"), f"{LAYER}/status")[:])
    dead, alive = (np.flatnonzero(status == one) for one in (PictureStatus.DEAD, PictureStatus.MADE))
    assert {3, 4, 5} <= set(dead.tolist())
    assert len(dead) + len(alive) == len(status)
    assert len(alive) >= 30
    assert f"{len(alive)} made, {len(dead)} the neuron is zero on every image" in said
    found = pixels(out, LAYER)
    assert not found[dead].any()
    assert found[alive].any((1, 2, 3)).all()
    refused(vital("show", out, LAYER, 4), "no picture")


def test_neurons_with_fewer_references_than_needed_are_recorded(made: Made, tmp_path: Path) -> None:
    store = tmp_path / "stats.zarr"
    shutil.copytree(made.store, store)
    asked = ("--store", store, "--layer", LAYER)
    refused(vital("targets", *asked, "--references", 9), "9 references", "keeps 3", "ask for fewer")
    done(vital("targets", *asked, "--references", 2, "--fewest", 3, "--node", "0"))
    said = done(vital("info", store))
    assert "40 the data set holds fewer references than were asked for" in said
    out = tmp_path / "atlas.zarr"
    said = done(vital("atlas", *asked, "--references", 2, "--out", out, "--steps", 2, "--side", 32))
    assert "40 the data set holds fewer references than were asked for" in said


def test_a_node_after_the_neuron_s_own_layer_is_refused(made: Made) -> None:
    said = vital("targets", "--store", made.store, "--layer", "1", "--node", LAYER)
    refused(said, "no references of layer '1'")
    said = vital("targets", "--store", made.store, "--layer", LAYER, "--crop", "patch", "--node", "5")
    refused(said, "node '5' does not come before layer '2'", "choose from")


def test_conservation_is_shown_for_a_layer() -> None:
    said = done(vital("layers", "squeezenet1_1", "--input-size", 64, "--conservation", "features.7"))
    assert "random weights" in said
    lines = [line.split() for line in said.splitlines()]
    arriving = {line[0]: float(line[2]) for line in lines if line[1] == "arrives"}
    losing = {line[0]: float(line[2]) for line in lines if line[1] == "loses"}
    assert len(arriving) >= 2
    assert all(0 < share <= 1 for share in arriving.values())
    first = min(arriving.values())
    assert first + sum(losing.values()) == pytest.approx(1, abs=1e-3)
    refused(vital("layers", "squeezenet1_1", "--conservation", "featres.7"), "no layer 'featres.7'", "features.7")
