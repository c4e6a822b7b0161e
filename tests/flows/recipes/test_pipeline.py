"""The three flows for real, on a tiny network: what they write, against oracles; resuming; determinism."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from PIL import Image

from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from stores import AtlasLayer
from stores.arrays.opening import open_store
from stores.arrays.provenance import claimed, fingerprint
from stores.arrays.schema import array_at, group_at
from stores.dataset.index import read_index, read_shards
from stores.dataset.kept.references import read_references
from stores.errors import ForeignStore, PictureStatus, SchemaMismatch, Status
from tests.flows import tiny
from tests.flows.conftest import LAYER, MODEL, Made, atlas_job, make, references_job, targets_job
from vital.measuring.kept.sampling import unit_hash


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file that is compared: all but the run records."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "runs" not in path.relative_to(folder).parts
    }


def oracle_activations() -> np.ndarray:
    """(image, channel, site) of the layer for the tiny shards, by PIL and the bare network."""
    network = tiny.network().eval()
    images = []
    for number in range(20):
        image = Image.open(io.BytesIO(tiny.jpeg(number)))
        shorter = round(tiny.SIDE * 256 / 224)
        scale = shorter / min(image.size)
        size = (max(shorter, round(image.width * scale)), max(shorter, round(image.height * scale)))
        resized = np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32)
        top, left = (resized.shape[0] - tiny.SIDE) // 2, (resized.shape[1] - tiny.SIDE) // 2
        images.append(resized[top : top + tiny.SIDE, left : left + tiny.SIDE].transpose(2, 0, 1) / 255)
    mean, std = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1), np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    pixels = torch.from_numpy(((np.stack(images) - mean) / std).astype(np.float32))
    with torch.no_grad():
        return network[:3](pixels).flatten(2).numpy()  # type: ignore[index,no-any-return]


def test_references_are_the_images_that_excite_a_channel_most(made: Made) -> None:
    found = read_references(open_store(str(made.store), "statistics", "r"), LAYER)
    peaks = oracle_activations().max(2)
    for channel in range(tiny.CHANNELS):
        best = np.argsort(-peaks[:, channel], kind="stable")[:3]
        # PIL and torch resize differ by a grey level, which can swap near ties: compare what the choice is worth.
        np.testing.assert_allclose(peaks[found.image[channel], channel], peaks[best, channel], rtol=0.02, atol=0.02)
        np.testing.assert_allclose(found.score[channel], peaks[best, channel], rtol=0.02, atol=0.02)


def test_class_references_are_drawn_by_key(made: Made) -> None:
    group = open_store(str(made.store), "statistics", "r")
    found, index = read_references(group, "classes"), read_index(group)
    for label in range(3):
        members = np.flatnonzero(index.label == label)
        drawn = sorted(members, key=lambda image: unit_hash(str(index.key[image])))[:3]
        assert found.image[label].tolist() == drawn
    assert (found.image[3:] == -1).all()


def test_index_finds_every_image_again(made: Made) -> None:
    group = open_store(str(made.store), "statistics", "r")
    index, shards = read_index(group), read_shards(group)
    assert shards.images.tolist() == [10, 10]
    for row in range(len(index)):
        data = (made.shards / str(shards.name[index.shard[row]])).read_bytes()
        assert data[index.offset[row] : index.offset[row] + index.size[row]] == tiny.jpeg(row)


def test_layer_statistics_are_those_of_all_images(made: Made) -> None:
    group = open_store(str(made.store), "statistics", "r")
    activations = oracle_activations()
    np.testing.assert_allclose(
        np.asarray(array_at(group, f"layers/{LAYER}/mean")[:]), activations.mean((0, 2)), rtol=0.02, atol=0.01
    )
    np.testing.assert_allclose(
        np.asarray(array_at(group, f"layers/{LAYER}/active")[:]), (activations > 0).mean((0, 2)), atol=0.02
    )
    assert array_at(group, f"layers/{LAYER}/sums/count")[...] == 20


def test_targets_and_pictures_have_the_contracts_arrays(made: Made) -> None:
    targets = xarray.open_zarr(made.store, group=f"targets/{LAYER}/image-lrp/1", consolidated=False)
    assert targets["quantiles"].dims == ("neuron", "channel", "level")
    assert targets["quantiles"].shape == (40, 12, 16)
    assert targets["quantiles"].dtype == np.float16
    assert targets["importance"].dims == ("neuron", "channel")
    assert 0.3 < float(targets["importance"].max()) <= 1
    atlas = xarray.open_zarr(made.atlas, group=LAYER, consolidated=False)
    assert atlas["pixels"].shape == (40, 24, 24, 3)
    assert atlas["alpha"].dims == ("neuron", "row", "column")
    assert "meaning" in atlas["loss"].attrs or "long_name" in atlas["loss"].attrs
    alive = np.asarray(atlas["status"]) == PictureStatus.MADE
    assert alive.sum() > 30
    assert (np.asarray(atlas["loss"])[alive][:, -1] > 0).all()
    assert np.asarray(atlas["pixels"])[alive].std(axis=(1, 2, 3)).min() > 1


def test_classes_without_images_are_recorded_and_the_others_made(made: Made) -> None:
    status = array_at(open_store(str(made.atlas), "atlas", "r"), "classes/status")[:]
    few = PictureStatus.TOO_FEW_REFERENCES
    assert np.asarray(status).tolist() == [PictureStatus.MADE] * 3 + [few] * 2


def test_running_again_changes_nothing(made: Made, tmp_path: Path) -> None:
    copy = Made(tmp_path)
    for name in ("shards", "store", "atlas"):
        shutil.copytree(getattr(made, name), getattr(copy, name))
    before = {path: path.stat().st_mtime_ns for path in copy.atlas.rglob("c/*") if path.is_file()}
    (copy.shards / "tiny-000000.tar").touch()
    select_references(references_job(copy.shards, copy.store))
    measure_targets(targets_job(copy.store))
    build_atlas(atlas_job(copy.store, copy.atlas))
    assert digests(copy.store) == digests(made.store)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_the_same_bytes_every_time(made: Made, tmp_path: Path) -> None:
    again = make(tmp_path)
    # Attributes name the shards' and the store's places, which differ.
    assert {p: d for p, d in digests(again.atlas).items() if not p.endswith("zarr.json")} == {
        p: d for p, d in digests(made.atlas).items() if not p.endswith("zarr.json")
    }
    skip = ("zarr.json", "shards/url/c/0")
    assert {p: d for p, d in digests(again.store).items() if not p.endswith(skip)} == {
        p: d for p, d in digests(made.store).items() if not p.endswith(skip)
    }


def test_a_missing_block_alone_is_made_again(made: Made, tmp_path: Path) -> None:
    copy = Made(tmp_path)
    shutil.copytree(made.shards, copy.shards)
    shutil.copytree(made.store, copy.store)
    shutil.copytree(made.atlas, copy.atlas)
    done = array_at(open_store(str(copy.atlas), "atlas", "a"), f"{LAYER}/done")
    done[1] = 0
    shutil.rmtree(copy.atlas / LAYER / "pixels" / "c" / "1")
    kept = copy.atlas / LAYER / "pixels" / "c" / "0"
    first = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    build_atlas(atlas_job(copy.store, copy.atlas))
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == first
    same = digests(made.atlas) | {"zarr.json": digests(copy.atlas)["zarr.json"]}  # says where the statistics lie
    assert digests(copy.atlas) == same


def test_neurons_are_rounded_out_and_the_rest_stays_unmade(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "part.zarr"
    build_atlas(atlas_job(made.store, out, neurons="35"))
    there = AtlasLayer(open_store(str(out), "atlas", "r"), LAYER).made()
    assert not there[:32].any()
    assert there[32:].any()


def test_pictures_in_the_published_unit_are_not_added_to_those_in_the_network_s(made: Made, tmp_path: Path) -> None:
    """Of a network whose colours reach to 255; those of another have no such field."""
    far = MODEL.model_copy(update={"mean": (0.4,) * 3, "std": (1 / 255,) * 3})
    store, url = tmp_path / "stats.zarr", tmp_path / "atlas.zarr"
    select_references(references_job(made.shards, store, model=far, layers=(LAYER,)))
    measure_targets(targets_job(store, neurons="0"))
    build_atlas(atlas_job(store, url, neurons="0"))
    layer = group_at(open_store(str(url), "atlas", "r+"), LAYER)
    fields = claimed(layer, "atlas") or {}
    assert fields.pop("unit") == "published"
    layer.attrs["atlas"] = {"fingerprint": fingerprint(fields), "fields": fields}
    with pytest.raises(ForeignStore, match=r"an earlier version .* atlas field unit is nothing, and published"):
        build_atlas(atlas_job(store, url, neurons="0"))
    assert "unit" not in AtlasLayer(open_store(str(made.atlas), "atlas", "r"), LAYER).settings


def test_a_corrupt_image_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    members = {
        "good.jpg": tiny.jpeg(1),
        "bad.jpg": tiny.jpeg(2)[:200],
        "text.jpg": b"no image",
        "last.jpg": tiny.jpeg(3),
    }
    tiny.write_tar(tmp_path / "shards" / "a.tar", members)
    store = tmp_path / "stats.zarr"
    select_references(references_job(tmp_path / "shards", store))
    index = read_index(open_store(str(store), "statistics", "r"))
    assert index.key.tolist() == ["good", "bad", "text", "last"]
    assert index.status.tolist() == [Status.OK, Status.UNDECODABLE, Status.UNDECODABLE, Status.OK]


def test_an_empty_shard_adds_nothing(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.shards, tmp_path / "shards")
    tiny.write_tar(tmp_path / "shards" / "tiny-000009.tar", {})
    select_references(references_job(tmp_path / "shards", tmp_path / "stats.zarr"))
    group = open_store(str(tmp_path / "stats.zarr"), "statistics", "r")
    assert read_shards(group).images.tolist() == [10, 10, 0]
    whole = read_references(open_store(str(made.store), "statistics", "r"), LAYER)
    np.testing.assert_array_equal(read_references(group, LAYER).image, whole.image)


def test_a_half_finished_atlas_opens(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "half.zarr"
    build_atlas(atlas_job(made.store, out, neurons="0:2"))
    atlas = xarray.open_zarr(out, group=LAYER, consolidated=False)
    status = np.asarray(atlas["status"])
    assert (status[:32] != PictureStatus.NOT_MADE).all()
    assert (status[32:] == PictureStatus.NOT_MADE).all()


@pytest.mark.parametrize("kind", ["lrp", "lrp-gamma", "lrp-restricted", "gradient-x-activation"])
def test_every_kind_of_relevance_gives_targets(made: Made, tmp_path: Path, kind: str) -> None:
    store = tmp_path / "stats.zarr"
    shutil.copytree(made.store, store)
    job = targets_job(store, neurons="0")
    variant = job.variant.model_copy(update={"crop": "patch", "relevance": kind, "references": 2})
    name = measure_targets(job.model_copy(update={"variant": variant}))
    assert name == f"patch-{kind}-2"
    rows = np.asarray(array_at(open_store(str(store), "statistics", "r"), f"targets/{LAYER}/{name}/1/importance")[:32])
    assert np.isfinite(rows).all()
    assert rows.max() > 0


def test_references_of_a_killed_merge_are_not_taken_for_whole(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.store, tmp_path / "s.zarr")
    group = open_store(str(tmp_path / "s.zarr"), "statistics", "a")
    del group.attrs[f"references/{LAYER}"]  # what a merge writes last
    with pytest.raises(SchemaMismatch, match="vital references"):
        measure_targets(targets_job(tmp_path / "s.zarr"))


def test_a_very_long_image_is_counted_as_too_large(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 2)).save(buffer, "PNG")
    tiny.write_tar(tmp_path / "shards" / "a.tar", {"long.png": buffer.getvalue(), "good.jpg": tiny.jpeg(1)})
    select_references(references_job(tmp_path / "shards", tmp_path / "s.zarr"))
    index = read_index(open_store(str(tmp_path / "s.zarr"), "statistics", "r"))
    assert index.status.tolist() == [Status.TOO_LARGE, Status.OK]
