"""Sites and directions through all flows: what is kept, measured and drawn is what was read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from stores import AtlasLayer
from stores.arrays.opening import open_store
from stores.arrays.schema import array_at
from stores.dataset.directions import Directions
from stores.dataset.kept.references import read_references
from stores.errors import MissingStore, SchemaMismatch
from tests.flows import tiny
from tests.flows.conftest import LAYER, Made, atlas_job, references_job, targets_job
from tests.flows.recipes.test_pipeline import oracle_activations
from vital.errors import UnknownLayer

pytestmark = pytest.mark.slow

WIDTH = 8
MATRIX = np.random.default_rng(4).standard_normal((5, tiny.CHANNELS)).astype(np.float32)


@pytest.fixture(params=["npy", "zarr"])
def directions(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / f"concepts.{request.param}"
    if request.param == "npy":
        np.save(file, MATRIX)
    else:
        zarr.create_array(str(file), data=MATRIX)
    return file


def test_directions_go_from_a_file_to_pictures(made: Made, tmp_path: Path, directions: Path) -> None:
    store, atlas, layer = tmp_path / "stats.zarr", tmp_path / "atlas.zarr", f"{LAYER}~concepts"
    select_references(references_job(made.shards, store, layers=(layer,), directions=(str(directions),)))
    group = open_store(str(store), "statistics", "r")
    np.testing.assert_array_equal(Directions(group)["concepts"], MATRIX)
    along = np.einsum("nc,ics->ins", MATRIX, oracle_activations()).max(2)
    found = read_references(group, layer)
    assert found.image.shape[0] == len(MATRIX)
    for row in range(len(MATRIX)):
        np.testing.assert_allclose(found.score[row, 0], along[:, row].max(), rtol=0.05)
    # Later commands know the directions from the store.
    label = measure_targets(targets_job(store, layer))
    own = np.asarray(array_at(open_store(str(store), "statistics", "r"), f"targets/{layer}/{label}/own")[:])
    assert own.shape[0] == len(MATRIX)
    assert own.any(1).all()
    build_atlas(atlas_job(store, atlas, layer))
    assert AtlasLayer(open_store(str(atlas), "atlas", "r"), layer).made().all()


def test_one_site_goes_through_all_flows_and_its_patch_lies_there(made: Made, tmp_path: Path) -> None:
    store, atlas, layer = tmp_path / "stats.zarr", tmp_path / "atlas.zarr", f"{LAYER}@1,6"
    select_references(references_job(made.shards, store, layers=(layer,)))
    found = read_references(open_store(str(store), "statistics", "r"), layer)
    at_site = oracle_activations()[:, :, WIDTH + 6]
    live = at_site.max(0) > 0.1
    np.testing.assert_allclose(found.score[live, 0], at_site.max(0)[live], rtol=0.1, atol=0.02)
    assert (found.site[live] == WIDTH + 6).all()
    side = round(tiny.SIDE * 64 / 224)
    [corner] = np.unique(found.box[live, 0], axis=0)
    centre = corner[:2] + side / 2
    np.testing.assert_allclose(centre, [1.5 * tiny.SIDE / WIDTH, 6.5 * tiny.SIDE / WIDTH], atol=1)
    measure_targets(targets_job(store, layer))
    build_atlas(atlas_job(store, atlas, layer))  # at another side: the same place in a smaller map
    assert AtlasLayer(open_store(str(atlas), "atlas", "r"), layer).made().any()


@pytest.mark.parametrize(
    ("values", "layer", "error", "words"),
    [
        (None, f"{LAYER}~wrong", MissingStore, "no directions at .*wrong.npy: a .npy file or a Zarr array"),
        (np.zeros((2, 7)), f"{LAYER}~wrong", UnknownLayer, "directions 'wrong' are of 7 channels but '2' has 40"),
        (np.zeros(7), f"{LAYER}~wrong", SchemaMismatch, r"holds float64 of shape \(7,\): directions are a matrix"),
        (np.full((2, tiny.CHANNELS), np.nan), f"{LAYER}~wrong", SchemaMismatch, "a matrix of finite numbers"),
        (np.array([{}]), f"{LAYER}~wrong", SchemaMismatch, "cannot be read as a matrix of numbers"),
        (b"", f"{LAYER}~wrong", SchemaMismatch, "cannot be read as a matrix of numbers"),
        (b"PK\3\4 and no more", f"{LAYER}~wrong", SchemaMismatch, "cannot be read as a matrix of numbers"),
        (MATRIX, f"{LAYER}~other", UnknownLayer, r"no directions 'other' .*\(known: wrong\)"),
    ],
)
def test_wrong_directions_stop_before_anything_is_written(
    made: Made, tmp_path: Path, values: np.ndarray | bytes | None, layer: str, error: type[Exception], words: str
) -> None:
    file = tmp_path / "wrong.npy"
    if isinstance(values, bytes):
        file.write_bytes(values)
    elif values is not None:
        np.save(file, values)
    job = references_job(made.shards, tmp_path / "stats.zarr", layers=(layer,), directions=(str(file),))
    with pytest.raises(error, match=words):
        select_references(job)
    assert not (tmp_path / "stats.zarr").exists()


def test_another_matrix_of_the_same_name_is_refused(made: Made, tmp_path: Path) -> None:
    store, file = tmp_path / "stats.zarr", tmp_path / "concepts.npy"
    np.save(file, MATRIX)
    job = references_job(made.shards, store, layers=(f"{LAYER}~concepts",), directions=(str(file),))
    select_references(job)
    np.save(file, MATRIX + 1)
    with pytest.raises(SchemaMismatch, match=r"other directions .concepts. .* give the file another name"):
        select_references(job)
