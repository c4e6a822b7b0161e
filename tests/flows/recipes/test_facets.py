"""Neurons that mean two things: their references are told apart, and each group has a target and a picture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import flows
from flows.jobs import ReferencesJob, TargetsJob
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from stores import Targets, open_statistics
from stores.errors import PictureStatus
from tests.flows import coloured
from tests.flows.coloured import BLUE, GREEN, RED
from tests.flows.recipes.test_pipeline import digests
from vital.settings import ModelSettings, StatisticsSettings, VariantSettings

LAYER = f"{coloured.LAYER}~sums"
REFERENCES = 14
VARIANT = VariantSettings(crop="image", facets="auto")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("coloured")
    np.save(folder / "sums.npy", coloured.directions())
    model = ModelSettings(name="tests.flows.coloured:network", input_size=coloured.SIDE)
    select_references(
        ReferencesJob(
            shards=(str(coloured.shards(folder / "shards")),), store=str(folder / "s.zarr"), model=model,
            layers=(LAYER,), directions=(str(folder / "sums.npy"),),
            statistics=StatisticsSettings(references=REFERENCES, levels=16),
        )
    )  # fmt: skip
    measure_targets(TargetsJob(store=str(folder / "s.zarr"), layer=LAYER, variant=VARIANT))
    yield folder / "s.zarr"


def targets_of(store: Path, variant: VariantSettings = VARIANT) -> Targets:
    return open_statistics(str(store)).targets(LAYER, variant.label(False))


@pytest.mark.parametrize(("neuron", "colours"), [(1, {RED, BLUE}), (33, {GREEN, BLUE})])
def test_a_sum_of_two_channels_splits_into_the_references_of_either(
    store: Path, neuron: int, colours: set[int]
) -> None:
    targets = targets_of(store)
    assert targets.facets([neuron]).tolist() == [2]
    [of] = targets.reference_facets([neuron])
    colour = open_statistics(str(store)).references(LAYER, neurons=[neuron]).image[0] % 3
    assert [set(colour[of == facet]) for facet in (0, 1)] in ([{one}, {other}] for one in colours for other in colours)
    assert set(colour) == colours
    [p] = targets.rows([neuron], ["p_value"])["p_value"]
    assert p <= 0.01
