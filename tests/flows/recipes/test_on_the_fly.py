"""Targets measured by the task that makes the pictures: the same bytes, and none of them stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from pydantic import ValidationError

from flows.jobs import AtlasJob, FullJob, LayerJob, Running
from flows.pages.again import commands
from flows.pages.layer import LayerSource
from flows.recipes.atlas import build_atlas
from flows.running.process import load_stored
from flows.steps.pictures import targets_of
from flows.steps.targets import origin_of
from stores import open_atlas, open_statistics
from stores.arrays.schema import array_at
from stores.atlas.origin import Origin
from stores.errors import ForeignStore, MissingShard, SchemaMismatch
from tests.flows.conftest import LAYER, VARIANT, Made, atlas_job
from tests.flows.recipes.test_pipeline import digests


def fly(job: AtlasJob, **changes: object) -> AtlasJob:
    return job.model_copy(update={"targets": "fly", **changes})


def of_layer(atlas: Path) -> dict[str, str]:
    """All but the origin, and that there is one."""
    every = {path: digest for path, digest in digests(atlas).items() if path.startswith(f"{LAYER}/")}
    of_layer = json.loads((atlas / LAYER / "zarr.json").read_text("utf-8"))
    of_layer["attributes"].pop("origin", None)
    every[f"{LAYER}/zarr.json"] = json.dumps(of_layer)
    return {path: digest for path, digest in every.items() if not path.startswith(f"{LAYER}/origin/")}


def check_the_origin(made: Made, bare: Made) -> None:
    """What the pages say of targets is the same where no store has them."""
    statistics, known = open_statistics(str(bare.store)), open_statistics(str(made.store))
    pictures = open_atlas(str(bare.atlas)).layer(LAYER)
    targets, origin = known.targets(LAYER, pictures.variant), origin_of(statistics, pictures)
    neurons = np.flatnonzero(pictures.made()).tolist()
    assert isinstance(origin, Origin)
    for node in origin.nodes:
        np.testing.assert_array_equal(origin.importance(node, neurons), targets.importance(node, neurons))
        np.testing.assert_array_equal(origin.mean_rows(node, neurons), targets.mean_rows(node, neurons))
    stored, flown = (
        LayerSource(atlas, atlas.layer(LAYER), "", of)
        for atlas, of in ((open_atlas(str(made.atlas)), known), (open_atlas(str(bare.atlas)), statistics))
    )
    sources = [[page.sources for page in source.neurons(neurons, {})] for source in (stored, flown)]
    assert sources[0] == sources[1]
    assert all(sources[0])
    np.testing.assert_array_equal(stored.page().coordinates, flown.page().coordinates)
    # it needs no statistics
    assert [
        page.sources for page in LayerSource(open_atlas(str(bare.atlas)), pictures, "", None).neurons(neurons, {})
    ] == (sources[0])


@pytest.mark.slow
def test_pictures_have_the_bytes_of_those_from_stored_targets(made: Made, bare: Made) -> None:
    """Settings and fingerprints too; the first block alone comes first, and is left alone later."""
    with pytest.raises(SchemaMismatch, match="no targets 'image-lrp' of layer '2': run `vital targets"):
        build_atlas(atlas_job(bare.store, bare.atlas))
    build_atlas(fly(atlas_job(bare.store, bare.atlas), neurons="0:3"))
    first = {path: path.stat().st_mtime_ns for path in (bare.atlas / LAYER).rglob("c/0/*") if path.is_file()}
    build_atlas(fly(atlas_job(bare.store, bare.atlas)))
    assert of_layer(bare.atlas) == of_layer(made.atlas)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert not list((bare.store / "targets").rglob("c"))
    statistics, pictures = open_statistics(str(bare.store)), open_atlas(str(bare.atlas)).layer(LAYER)
    kept = statistics.targets(LAYER, pictures.variant)
    assert kept.settings == open_statistics(str(made.store)).targets(LAYER, pictures.variant).settings
    assert not kept.declared
    check_the_origin(made, bare)
    said = commands(str(bare.atlas), pictures, str(bare.store), statistics)
    assert [line.split()[1] for line in said] == ["references", "atlas"]
    assert "--targets fly" in said[-1]
    assert "--node 0 --node 1" in said[-1]
    with pytest.raises(ForeignStore, match="variant field fewest"):
        build_atlas(fly(atlas_job(bare.store, bare.atlas, variant=VARIANT.model_copy(update={"fewest": 2}))))


def test_missing_shards_are_refused_before_a_task(
    made: Made, bare: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = array_at(zarr.open_group(str(bare.store), mode="r+"), "shards/url")
    moved = [str(url).replace(str(made.shards), str(tmp_path / "gone")) for url in np.asarray(urls[:])]
    urls[:] = np.array(moved, urls.dtype)
    monkeypatch.setattr("flows.recipes.atlas.run_blocks", lambda *words: pytest.fail("a task was to run"))
    with pytest.raises(MissingShard, match=r"no shard at \S+gone/tiny-00000\d.tar, whose images .* say with --shards"):
        build_atlas(fly(atlas_job(bare.store, bare.atlas)))
    told: list[object] = []
    monkeypatch.setattr("flows.recipes.atlas.run_blocks", lambda task, job, work, key: told.append(work.own))
    build_atlas(fly(atlas_job(bare.store, bare.atlas), shards=(str(made.shards),)))
    assert str(made.shards) in str(told)


def test_what_stored_targets_do_not_have_is_refused(made: Made) -> None:
    statistics = open_statistics(str(made.store))
    loaded = load_stored(statistics, Running())
    for name, asked, had in (("nodes", ("0",), r"\['0', '1'\]"), ("fewest", 2, "1")):
        job = atlas_job(made.store, made.atlas, variant=VARIANT.model_copy(update={name: asked}))
        with pytest.raises(SchemaMismatch, match=f"{name} .* was asked for, but targets .* are stored with {had}"):
            targets_of(statistics, job, loaded)
    with pytest.raises(ValidationError, match="give targets fly with them"):
        AtlasJob(store="s", out="a", layer=LAYER, target_batch=4)


def test_a_full_run_tells_the_pictures_what_targets_would_be_told() -> None:
    parts = (LayerJob(layer="a", targets="fly"), LayerJob(layer="b"))
    full = FullJob(shards=("s.tar",), store="s", out="a", layers=parts, precision="tf32", target_batch=4)
    assert full.atlas(parts[0]).measuring() == full.targets(parts[0])
    assert full.atlas(parts[1]).shards == ()
