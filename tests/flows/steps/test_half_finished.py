"""An atlas while it is written: every reader shows the finished part, and masks the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray

from flows.recipes.atlas import build_atlas
from stores import open_atlas
from stores.errors import PictureStatus
from tests.flows.command import vital
from tests.flows.conftest import LAYER, Made, atlas_job
from tests.flows.steps.test_inputs import done

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def half(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second of two blocks, and a part of the first one's data without what says that it is done."""
    atlas = tmp_path_factory.mktemp("half") / "atlas.zarr"
    build_atlas(atlas_job(made.store, atlas, neurons="32:40"))
    chunks = atlas / LAYER / "alpha" / "c"
    shutil.copytree(chunks / "1", chunks / "0")
    return atlas


def test_xarray_masks_by_status(half: Path) -> None:
    with xarray.open_zarr(half, group=LAYER, consolidated=False) as data:
        status = data["status"].to_numpy()
        assert (status[:32] == PictureStatus.NOT_MADE).all()
        shown = data["pixels"].isel(neuron=status == PictureStatus.MADE)
        assert shown.sizes["neuron"] == (status == PictureStatus.MADE).sum() > 0
        assert all(len(np.unique(picture)) > 10 for picture in shown.to_numpy())
        assert data["done"].to_numpy().tolist() == [0, 1]


def test_info_counts_what_is_there(half: Path) -> None:
    said = done(vital("info", half))
    assert "1 of 2 blocks" in said
    assert "32 not made yet" in said


def test_pages_show_the_finished_part(half: Path, made: Made, tmp_path: Path) -> None:
    done(vital("pages", half, "--out", tmp_path / "pages"))
    assert (tmp_path / "pages" / "index.html").is_file()
    shown = {int(path.stem) for path in (tmp_path / "pages").rglob("*.webp") if path.stem.isdecimal()}
    finished = set(np.flatnonzero(open_atlas(str(half)).layer(LAYER).made()).tolist())
    assert shown == finished
    assert {39} <= finished <= set(range(32, 40))
    said = vital("show", half, LAYER, "3", "--out", tmp_path / "three.png")
    assert said.exit_code == 1
    assert "neuron 3 of layer '2' has no picture" in said.output
    done(vital("show", half, LAYER, "39", "--out", tmp_path / "last.png"))


def test_metrics_are_of_the_finished_part_alone(half: Path) -> None:
    said = done(vital("evaluate", "--atlas", half))
    assert "over 8 neurons" in said or "over 7 neurons" in said or "over 6 neurons" in said
