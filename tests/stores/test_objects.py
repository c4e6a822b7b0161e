"""Statistics and Atlas as objects: what they hold comes back named, masked, in words and in a notebook."""

from __future__ import annotations

import base64
import io
import re
import shutil
from inspect import unwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stores
from stores.atlas.layer import PictureArrays
from stores.dataset.index import SampleRows, ShardRows
from stores.errors import ForeignStore, MissingStore, PictureStatus, SchemaMismatch, Status

NEURONS, BLOCK, SIDE, RECORDS = 5, 2, 8, 3
BASE: dict[str, Any] = {"model": "m", "weights": "w", "levels": 4}


@pytest.fixture
def statistics(tmp_path: Path) -> stores.Statistics:
    """A store of one shard with three images, one layer's statistics and its references."""
    made = stores.open_statistics(str(tmp_path / "s.zarr"), "a")
    made.claim(BASE, {"name": "m"})
    rows = SampleRows.from_columns(
        {
            "shard": [0, 0, 0], "offset": [512, 1024, 2048], "size": [5, 6, 7], "label": [0, 1, -1],
            "key": ["a", "b", "c"], "status": [Status.OK, Status.OK, Status.UNDECODABLE], "checksum": [1, 2, 0],
        }
    )  # fmt: skip
    shards = {"name": ["x.tar"], "url": ["/x.tar"], "size": [9], "images": [3], "rejected": [1], "digest": ["d"]}
    made.append(rows, ShardRows.from_columns({**shards, "short": [""]}))
    level, row = np.array([0.25, 0.75]), np.arange(6, dtype=np.float32).reshape(3, 2)
    made.write_layer("layer4", level, {"quantiles": row, "mean": row.mean(1)}, {"quantiles": "rows", "mean": "a mean"})
    image = np.array([[0, 1], [1, -1], [-1, -1]])
    whole = np.zeros((3, 2, 4), np.int32)
    made.write_references("layer4", stores.References(image, image.astype(np.float32), image.astype(np.int32), whole))
    return made


@pytest.fixture
def atlas(statistics: stores.Statistics, tmp_path: Path) -> stores.Atlas:
    """Five neurons of which the first block is written: one picture, one dead neuron."""
    made = stores.open_atlas(str(tmp_path / "a.zarr"), "a")
    made.claim(statistics)
    layer = made.layer("layer4")
    settings: dict[str, Any] = {
        "variant": "image",
        "side": SIDE,
        "steps": 7,
        "seed": 0,
        "preset": "natural",
        "method": "vital",
    }
    layer.claim(settings)
    layer.declare(PictureArrays(NEURONS, BLOCK, RECORDS, {"conv1": 2}))
    arrays = layer.empty(0)
    arrays["pixels"][0] = np.arange(SIDE * SIDE * 3).reshape(SIDE, SIDE, 3) % 256
    arrays["loss"][0] = [3, 2, 1]
    arrays["status"][:] = [PictureStatus.MADE, PictureStatus.DEAD]
    layer.write(0, arrays)
    return made.again("r+")


def test_what_is_marked_complete_is_readable_and_what_is_not_is_refused(statistics: stores.Statistics) -> None:
    with pytest.raises(SchemaMismatch, match=r"no references of layer 'layer4', it has those of none"):
        statistics.references("layer4")
    assert (statistics.claimed_kept("layer4") or {})["references"] == 2
    assert statistics.measured() == []
    statistics.mark(["layer4"], {"layer4": 2})
    again = statistics.again()
    assert again.measured() == ["layer4"]
    assert again.ranked() == {"layer4": 2}
    assert again.references("layer4").live(2).tolist() == [True, False, False]
    assert again.references("layer4", 1).image.tolist() == [[0], [1], [-1]]
    with pytest.raises(SchemaMismatch, match="9 references were asked for and the store keeps 2"):
        again.references("layer4", 9)
    assert again.references("layer4", 1, [2, 0]).image.tolist() == [[-1], [0]]
    statistics.unmark(["layer4"], ["layer4"])
    assert statistics.again().ranked() == {}


def test_references_know_where_their_images_lie_as_the_index_does(
    statistics: stores.Statistics, tmp_path: Path
) -> None:
    statistics.mark([], {"layer4": 2})
    again = statistics.again()
    for neurons, count, images in (([0, 1, 2], 2, [0, 1]), ([0], 1, [0]), ([1], None, [1]), ([2], 2, [])):
        found = again.reference_places("layer4", neurons, count)
        assert found.image.tolist() == images
        for name, values in vars(again.places(images)).items():
            assert getattr(found, name).tolist() == values.tolist()
    assert again.places([2, 1, 2]).size.tolist() == [6, 7]
    assert again.keys([2, 0]) == ["c", "a"]
    shutil.rmtree(tmp_path / "s.zarr" / "index" / "offset")  # a task that knows its neurons does without the index
    assert again.reference_places("layer4", [0]).offset.tolist() == [512, 1024]
    with pytest.raises(SchemaMismatch, match="index/offset is not in this store"):
        again.places([0])
    with pytest.raises(SchemaMismatch, match="9 references were asked for and the store keeps 2"):
        again.reference_places("layer4", [0], 9)
    with pytest.raises(SchemaMismatch, match="images 0 to 3 were asked of an index that has 0 to 2"):
        again.places([0, 3])


def test_more_shards_leave_earlier_statistics_unmarked(statistics: stores.Statistics) -> None:
    statistics.mark(["layer4"], {})
    more = {"name": ["y.tar"], "url": ["/y.tar"], "size": [9], "images": [0], "rejected": [0], "digest": ["e"]}
    statistics.append(SampleRows.empty(), ShardRows.from_columns({**more, "short": [""]}))
    assert statistics.again().measured() == []


def test_marks_of_two_runs_on_other_layers_stay_side_by_side(statistics: stores.Statistics) -> None:
    """Both had opened the store before either of them was done."""
    one, two = (statistics.again("r+") for _ in range(2))
    one.mark(["layer4"], {"layer4": 2})
    two.mark(["layer5"], {"layer5": 2})
    assert statistics.again().ranked() == {"layer4": 2, "layer5": 2}
    one.unmark(["layer4"], ["layer4"])
    assert statistics.again().measured() == ["layer5"]


def test_the_network_of_a_store_is_checked_by_field(statistics: stores.Statistics) -> None:
    statistics.check({"weights": "w"})
    with pytest.raises(ForeignStore, match="base field weights = w but now it is other"):
        statistics.check({"weights": "other"})


def test_statistics_say_what_they_hold(statistics: stores.Statistics) -> None:
    assert any("not finished" in line for line in statistics.summary())
    statistics.mark(["layer4"], {"layer4": 2})
    lines = statistics.again().summary()
    assert lines[0].endswith("statistics of m, weights w")
    assert "  shards: 1, images: 3, 2 used, 1 not decodable" in lines[2] or "images: 3" in lines[2]
    assert lines[-1] == "  references/layer4: 2 of 3 neurons have references, up to 2 each"
    html = statistics.again()._repr_html_()
    assert html.count("<li>") == len(lines) - 1


def test_statistics_of_a_layer_have_named_axes(statistics: stores.Statistics) -> None:
    with pytest.raises(SchemaMismatch, match="no statistics of layer 'layer5', it has layer4: give one of these"):
        statistics.dataset("layer5")
    data = statistics.dataset("layer4")
    assert data["quantiles"].dims == ("channel", "level")
    assert data["level"].values.tolist() == [0.25, 0.75]
    assert data["mean"].values.tolist() == [0.5, 2.5, 4.5]
    assert statistics.meaning("layer4", "mean") == "a mean"


def test_a_picture_is_had_by_layer_and_number(atlas: stores.Atlas) -> None:
    picture = atlas["layer4", 0]
    assert picture.status == PictureStatus.MADE
    assert picture.loss.tolist() == [3, 2, 1]
    shown = re.search(r"base64,([^\"]+)", picture._repr_html_())
    assert shown is not None
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[1])))), picture.pixels)
    assert atlas["layer4", 1].status == PictureStatus.DEAD
    assert "<img" not in atlas["layer4", 1]._repr_html_()
    assert atlas["layer4", 4].status == PictureStatus.NOT_MADE
    with pytest.raises(SchemaMismatch, match="has 0 to 4"):
        atlas["layer4", 5]
    with pytest.raises(SchemaMismatch, match="no layer 'layer5', it has layer4"):
        atlas["layer5", 0]
    unchecked = unwrap(type(atlas).__getitem__)  # what tests call is checked by types
    for unlike in ("layer4", ("layer4",), ("layer4", "1"), ("layer4", 1.0), 1):
        with pytest.raises(SchemaMismatch, match=r"is no neuron of an atlas: give a layer and a number, such as atlas"):
            unchecked(atlas, unlike)
    assert unchecked(atlas, ("layer4", np.int64(1))).neuron == 1


def test_a_layer_s_dataset_masks_what_was_not_made(atlas: stores.Atlas) -> None:
    atlas.layer("layer4").write_metrics({"peak": np.arange(5.0)}, {"peak": ("a peak", "")})
    data = atlas.again().dataset("layer4")
    assert data["pixels"].dims == ("neuron", "row", "column", "colour")
    assert np.isfinite(data["pixels"].values).all(axis=(1, 2, 3)).tolist() == [True, False, False, False, False]
    np.testing.assert_array_equal(data["pixels"].values[0].astype(np.uint8), atlas["layer4", 0].pixels)
    assert data["peak"].values.tolist() == [0, 1, 2, 3, 4]
    assert data["status"].dtype == np.uint8
    assert data.attrs["made_from"] == atlas.provenance


def test_metrics_are_told_as_means_with_their_unit(atlas: stores.Atlas) -> None:
    of_neurons = {"peak": np.arange(5.0), "reached": np.array([0, 50, 85, np.nan, np.nan]), "seen": np.full(5, np.nan)}
    meanings = {"reached": ("share of the references", "percent"), "distance": ("of all pictures", "")}
    atlas.layer("layer4").write_metrics(of_neurons, meanings, {"distance": 12.345678})
    assert list(atlas.again().metric_lines())[1:] == [
        "  layer4  peak      mean 2 over 5 neurons",
        "  layer4  reached   mean 45 % over 3 neurons",
        "  layer4  seen      not measured",
        "  layer4  distance  12.35 of the layer",
    ]


def test_an_atlas_finds_its_statistics_and_refuses_others(
    atlas: stores.Atlas, statistics: stores.Statistics, tmp_path: Path
) -> None:
    assert atlas.statistics().url == statistics.url
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("a.zarr", "s.zarr"):
        (tmp_path / name).rename(moved / name)
    assert stores.open_atlas(str(moved / "a.zarr")).statistics().url == str(moved / "s.zarr")  # beside it
    other = stores.open_statistics(str(tmp_path / "other.zarr"), "a")
    other.claim({**BASE, "weights": "others"}, {"name": "m"})
    elsewhere = stores.open_atlas(str(moved / "a.zarr"))
    with pytest.raises(SchemaMismatch, match="give the store it was made from with --store"):
        elsewhere.statistics(other.url)
    other.root.attrs["schema_version"] = 1
    with pytest.raises(SchemaMismatch, match="has schema version 1"):
        elsewhere.statistics(other.url)


def test_an_atlas_shows_itself(atlas: stores.Atlas) -> None:
    assert atlas.layers == ["layer4"]
    assert not atlas.empty
    html = atlas._repr_html_()
    assert html.count("<img") == 1
    assert "1 of 3 blocks" in html
    assert "layer4: image, preset natural, 7 steps, 8 px, seed 0" in html


def test_stores_are_opened_by_kind(atlas: stores.Atlas, statistics: stores.Statistics, tmp_path: Path) -> None:
    assert isinstance(stores.open_any(atlas.url), stores.Atlas)
    assert isinstance(stores.open_any(statistics.url), stores.Statistics)
    with pytest.raises(MissingStore, match=r"there is no store at nowhere\.zarr, statistics or atlas: check the path"):
        stores.open_any("nowhere.zarr")
    for mode in ("r", "r+"):
        with pytest.raises(MissingStore):
            stores.open_statistics(str(tmp_path / "none"), mode)
    assert not (tmp_path / "none").exists()
    with pytest.raises(AttributeError, match="no attribute 'atlases'"):
        stores.atlases  # noqa: B018


def test_what_is_not_marked_done_is_not_made_in_any_view(atlas: stores.Atlas) -> None:
    """A run that was killed between the data and their mark."""
    atlas.layer("layer4").forget([0])
    assert not atlas.layer("layer4").made().any()
    data = atlas.again().dataset("layer4")
    assert data["status"].values.tolist() == [PictureStatus.NOT_MADE] * NEURONS
    assert np.isnan(data["pixels"].values).all()
    assert atlas["layer4", 0].status == PictureStatus.NOT_MADE


def test_targets_that_were_not_measured_have_no_settings(statistics: stores.Statistics) -> None:
    targets = statistics.targets("layer4", "image")
    assert targets.claimed is None
    for read in (lambda: targets.settings, lambda: targets.nodes, targets.require):
        with pytest.raises(SchemaMismatch, match="no targets 'image' of layer 'layer4': run `vital targets"):
            read()


def test_passwords_are_not_shown(atlas: stores.Atlas, statistics: stores.Statistics) -> None:
    url = "https://me:hunter2@host/x.zarr"
    for store in (stores.Atlas(url, atlas.root), stores.Statistics(url, statistics.root)):
        assert "hunter2" not in repr(store) + store._repr_html_() + "".join(store.summary())


def test_a_store_of_another_version_is_called_so(statistics: stores.Statistics) -> None:
    statistics.root.attrs["schema_version"] = 1
    with pytest.raises(SchemaMismatch, match="has schema version 1"):
        stores.open_any(statistics.url)


def test_names_that_are_not_of_the_neurons_stay_away(atlas: stores.Atlas) -> None:
    atlas.layer("layer4").write_names(["one", "two"])
    assert "name" not in atlas.again().dataset("layer4").coords
