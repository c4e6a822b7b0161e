"""Every test of flows has the session's Prefect server; and a store made once from tiny shards."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from flows.jobs import AtlasJob, ReferencesJob, TargetsJob
from tests import checking
from tests.flows import tiny
from tests.flows.once import made_once
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

LAYER = "2"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """From its first fixture on a test of flows has the first calls of each function checked."""
    checking.spare(True)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    try:
        return (yield)
    finally:
        checking.spare(False)


MODEL = ModelSettings(name="tests.flows.tiny:network", input_size=tiny.SIDE)
VARIANT = VariantSettings(nodes=("0", "1"))
PICTURE = PictureSettings(side=24, steps=3, relevant_weight=1.0)


@pytest.fixture(scope="session", autouse=True)
def _server(prefect_server: str) -> None:
    """Started before anything else of the flows."""


def references_job(folder: Path, store: Path, **changes: object) -> ReferencesJob:
    """The job that all tests begin with."""
    return ReferencesJob(
        shards=(str(folder),),
        store=str(store),
        model=MODEL,
        layers=(LAYER, "classes"),
        statistics=StatisticsSettings(references=3, levels=16),
    ).model_copy(update=changes)


def targets_job(store: Path, layer: str = LAYER, **changes: object) -> TargetsJob:
    """Targets of a layer."""
    return TargetsJob(store=str(store), layer=layer, variant=VARIANT).model_copy(update=changes)


def atlas_job(store: Path, out: Path, layer: str = LAYER, **changes: object) -> AtlasJob:
    """Pictures of a layer."""
    job = AtlasJob(store=str(store), out=str(out), layer=layer, variant=VARIANT, picture=PICTURE, batch=4)
    return job.model_copy(update=changes)


class Made:
    """A finished statistics store and atlas."""

    def __init__(self, folder: Path) -> None:
        self.shards, self.store, self.atlas = folder / "shards", folder / "stats.zarr", folder / "atlas.zarr"


def make(folder: Path) -> Made:
    """The whole path on tiny shards."""
    from flows.recipes.atlas import build_atlas
    from flows.recipes.references import select_references
    from flows.recipes.targets import measure_targets

    made = Made(folder)
    tiny.shards(made.shards)
    select_references(references_job(made.shards, made.store))
    for layer in (LAYER, "classes"):
        measure_targets(targets_job(made.store, layer))
        build_atlas(atlas_job(made.store, made.atlas, layer))
    return made


@pytest.fixture(scope="session")
def made(_server: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made once for all tests; none may change it."""
    return Made(made_once(tmp_path_factory, "made", make))


@pytest.fixture
def bare(made: Made, tmp_path: Path) -> Made:
    """A copy of the store without targets, to which others may be added."""
    copy = Made(tmp_path)
    shutil.copytree(made.store, copy.store)
    shutil.rmtree(copy.store / "targets")
    return copy
