"""Pages of an atlas whose network, statistics or shards are no longer where they were."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from stores.arrays.opening import open_store
from stores.pages.folder import SITE_FOLDER
from tests.flows import tiny
from tests.flows.command import vital
from tests.flows.conftest import LAYER, Made, atlas_job, references_job, targets_job
from tests.flows.pages.test_pages import data, refused

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(_server: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Of these tests alone, which move its parts and put them back: one layer."""
    here = Made(tmp_path_factory.mktemp("moved"))
    tiny.shards(here.shards)
    select_references(references_job(here.shards, here.store, layers=(LAYER,)))
    measure_targets(targets_job(here.store))
    build_atlas(atlas_job(here.store, here.atlas))
    return here


def test_without_its_network_maps_are_refused_with_the_way_out(made: Made, tmp_path: Path) -> None:
    store = open_store(str(made.store), "statistics", "r+")
    kept: Any = store.attrs["model"]
    store.attrs["model"] = {**kept, "name": "tests.flows.tiny:nothing_of_this_name"}
    try:
        refused(vital("pages", made.atlas, "--out", tmp_path / "a"), "nothing_of_this_name", "--no-maps")
        assert not (tmp_path / "a").exists()
        said = vital("pages", made.atlas, "--out", tmp_path / "a", "--no-maps")
        assert said.exit_code == 0, said.output
    finally:
        store.attrs["model"] = kept
    assert list((tmp_path / "a").rglob("*.jpg"))
    assert not list((tmp_path / "a").rglob("*-maps.png"))


def test_no_references_leaves_photographs_out_and_needs_no_statistics(made: Made, tmp_path: Path) -> None:
    assert vital("pages", made.atlas, "--out", tmp_path / "a").exit_code == 0
    assert list((tmp_path / "a").rglob("*.jpg"))
    assert list((tmp_path / "a").rglob("*-maps.png"))
    assert vital("pages", made.atlas, "--out", tmp_path / "a", "--no-references").exit_code == 0
    assert not list((tmp_path / "a").rglob("*.jpg"))
    store = made.store.rename(made.store.with_name("elsewhere.zarr"))
    try:
        refused(vital("pages", made.atlas, "--out", tmp_path / "b"), "--store", "--no-references")
        assert vital("pages", made.atlas, "--out", tmp_path / "b", "--no-references").exit_code == 0
        assert vital("pages", made.atlas, "--out", tmp_path / "c", "--store", store).exit_code == 0
    finally:
        store.rename(made.store)
    assert data(tmp_path / "b" / SITE_FOLDER / "0" / LAYER / "layer.js")["coordinates"] is False
    assert data(tmp_path / "c" / SITE_FOLDER / "0" / LAYER / "layer.js")["coordinates"] is True


def test_shards_that_moved(made: Made, tmp_path: Path) -> None:
    shards = made.shards.rename(made.shards.with_name("elsewhere"))
    try:
        said = vital("pages", made.atlas, "--out", tmp_path / "a")
        assert said.exit_code == 1
        # below the progress bar
        assert re.search(r"\nError: there is no shard at .*tiny-\d+\.tar: .*--shards.*--no-references\n$", said.output)
        said = vital("pages", made.atlas, "--out", tmp_path / "a", "--shards", shards)
        assert said.exit_code == 0, said.output
    finally:
        shards.rename(made.shards)
    assert list((tmp_path / "a").rglob("*.jpg"))


def test_statistics_of_another_model_are_refused(made: Made, tmp_path: Path) -> None:
    from stores.arrays.provenance import claim

    claim(open_store(str(tmp_path / "s.zarr"), "statistics", "a"), "base", {"model": "another"})
    said = vital("pages", made.atlas, "--out", tmp_path / "out", "--store", tmp_path / "s.zarr")
    refused(said, "have base", "was made from base", "--store")
    assert not (tmp_path / "out").exists()
