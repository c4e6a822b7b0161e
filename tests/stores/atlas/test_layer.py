from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from stores import AtlasLayer, open_atlas
from stores.arrays import blocks
from stores.arrays.blocks import FEW, read_rows
from stores.arrays.opening import open_store
from stores.arrays.schema import ArraySpec, declare
from stores.arrays.writing import write_all
from stores.atlas import layer as layers
from stores.atlas.layer import PictureArrays, picture_specs
from stores.errors import PICTURE_STATUS_MEANINGS, PictureStatus, SchemaMismatch, UnreadableStore

NEURONS, SIDE, RECORDS, BLOCK = 10, 6, 3, 4


def block_of(block: int) -> dict[str, np.ndarray]:
    count = min(BLOCK, NEURONS - block * BLOCK)
    generator = np.random.default_rng(block)
    return {
        "pixels": generator.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8),
        "alpha": generator.integers(0, 256, (count, SIDE, SIDE), np.uint8),
        "loss": generator.random((count, RECORDS), np.float32),
        "seed": generator.integers(0, 2**62, count),
        "status": np.array([PictureStatus.MADE, PictureStatus.DEAD, 1, 1][:count], np.uint8),
        "reached/layer4.2/picture": generator.random((count, 5), np.float32),
        "reached/layer4.2/target": generator.random((count, 5), np.float32),
    }


@pytest.fixture
def group(tmp_path: Path) -> zarr.Group:
    group = open_store(str(tmp_path / "atlas"), "atlas", "a")
    declare(group, picture_specs("layer4.2", SIDE, PictureArrays(NEURONS, BLOCK, RECORDS, {"layer4.2": 5})))
    return group


def test_pictures_come_back_and_the_rest_is_not_made(group: zarr.Group, tmp_path: Path) -> None:
    AtlasLayer(group, "layer4.2").write(2, block_of(2))
    found = AtlasLayer(group, "layer4.2").rows([9, 0])
    assert found["status"].tolist() == [PictureStatus.DEAD, PictureStatus.NOT_MADE]
    for name, rows in block_of(2).items():
        np.testing.assert_array_equal(found[name][0], rows[1])
    assert AtlasLayer(group, "layer4.2").decided().tolist() == [False] * 8 + [True] * 2
    assert AtlasLayer(group, "layer4.2").done().tolist() == [False, False, True]
    assert AtlasLayer(group, "layer4.2").done([2, 0]).tolist() == [True, False]
    for asked in ([9, 0, 8, 9], []):
        some = np.array(asked, np.int64)
        for told in (AtlasLayer.decided, AtlasLayer.status, AtlasLayer.made):
            whole = told(AtlasLayer(group, "layer4.2"))
            assert told(AtlasLayer(group, "layer4.2"), asked).tolist() == whole[some].tolist()
    for ask in (AtlasLayer.status, AtlasLayer.pixels):
        with pytest.raises(SchemaMismatch, match="has 0 to 9"):
            ask(AtlasLayer(group, "layer4.2"), [10])
    stored = {path.name for path in (tmp_path / "atlas/layer4.2/pixels/c").iterdir()}
    assert stored == {"2"}


def test_who_has_looked_sees_what_another_process_writes_later(group: zarr.Group, tmp_path: Path) -> None:
    """Arrays are looked for once; what they hold is read each time."""
    watching = AtlasLayer(open_store(str(tmp_path / "atlas"), "atlas", "r"), "layer4.2")
    with pytest.raises(SchemaMismatch, match="later is not in this store"):
        watching.array("later")
    for block in range(3):
        assert watching.done().tolist() == [one < block for one in range(3)]
        assert watching.decided([block * BLOCK]).tolist() == [False]
        AtlasLayer(group, "layer4.2").write(block, block_of(block))
        np.testing.assert_array_equal(watching.pixels([block * BLOCK]), block_of(block)["pixels"][:1])
        assert watching.status([block * BLOCK]).tolist() == [PictureStatus.MADE]
    AtlasLayer(group, "layer4.2").forget([1])
    assert watching.unwritten(range(3)) == [1]
    declare(group, [ArraySpec("layer4.2/later", ("neuron",), (NEURONS,), "int64", "declared later")])
    assert watching.array("later").shape == (NEURONS,)


def test_flags_are_read_one_by_one_only_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a layer of 100,000 neurons 3,125 requests would find nothing, and a run asks several times."""
    many = BLOCK * (FEW + 6)
    group = open_store(str(tmp_path / "atlas"), "atlas", "a")
    declare(group, picture_specs("2", SIDE, PictureArrays(many, BLOCK, RECORDS)))
    read: list[int] = []

    def counted(array: zarr.Array[Any], wanted: np.ndarray) -> np.ndarray:
        read.append(len(wanted))
        return read_rows(array, wanted)

    monkeypatch.setattr(blocks, "read_rows", counted)
    layer = AtlasLayer(group, "2")
    assert not layer.done().any()
    assert set(layer.status().tolist()) == {PictureStatus.NOT_MADE}
    assert sum(read) == 0
    one = {name: rows for name, rows in block_of(0).items() if not name.startswith("reached")}
    layer.write(FEW + 2, one)
    assert np.flatnonzero(layer.done()).tolist() == [FEW + 2]
    assert np.flatnonzero(layer.made()).tolist() == [(FEW + 2) * BLOCK + row for row in (0, 2, 3)]


def test_pictures_of_facets_come_back_and_those_that_a_neuron_lacks_are_absent(tmp_path: Path) -> None:
    root = open_store(str(tmp_path / "faceted"), "atlas", "a")
    layer = AtlasLayer.of(root, "layer4.2")
    layer.claim({"side": SIDE, "variant": "patch-lrp-facets3", "steps": 3, "seed": 0, "preset": "natural"})
    layer.declare(PictureArrays(NEURONS, BLOCK, RECORDS, {"layer4.2": 5}, facets=3))
    arrays = layer.empty(1)
    assert arrays["pixels"].shape == (BLOCK, 3, SIDE, SIDE, 3)
    generator = np.random.default_rng(0)
    arrays["pixels"][:] = generator.integers(0, 256, arrays["pixels"].shape)
    arrays["reached/layer4.2/picture"][:] = generator.random((BLOCK, 3, 5))
    arrays["count"][:], arrays["status"][:] = [[9, 0, 0], [5, 4, 0], [3, 3, 3], [0, 0, 0]], PictureStatus.MADE
    arrays["status"][3] = PictureStatus.DEAD
    layer.write(1, arrays)
    layer = AtlasLayer.of(root, "layer4.2")
    assert layer.facets().tolist() == [1, 1, 1, 1, 1, 2, 3, 1, 1, 1]
    assert layer.facets_in_words() == ", 1 with 2 facets, 1 with 3 facets"
    np.testing.assert_array_equal(layer.pixels([6, 5]), arrays["pixels"][[2, 1], 0])
    np.testing.assert_array_equal(layer.pixels([6, 5, 6], [2, 1, 0]), arrays["pixels"][[2, 1, 2], [2, 1, 0]])
    np.testing.assert_array_equal(layer.reached()["layer4.2"][0][4:8], arrays["reached/layer4.2/picture"][:, 0])
    np.testing.assert_array_equal(layer.reached([7, 4])["layer4.2"][0], layer.reached()["layer4.2"][0][[7, 4]])
    atlas = open_atlas(str(tmp_path / "faceted"))
    np.testing.assert_array_equal(atlas["layer4.2", 6, 2].pixels, arrays["pixels"][2, 2])
    assert [atlas["layer4.2", 5, 1].title, atlas["layer4.2", 4].title] == [
        "layer4.2:5 channel 5, facet 1", "layer4.2:4 channel 4",
    ]  # fmt: skip
    with pytest.raises(SchemaMismatch, match=r"facet 2 of neuron 5 .* it has 2, counted from 0: ask for 0 to 1"):
        atlas["layer4.2", 5, 2]
    data = atlas.dataset("layer4.2")
    assert data["pixels"].dims == ("neuron", "facet", "row", "column", "colour")
    assert np.isfinite(data["loss"].values).all(2).sum(1).tolist() == [0, 0, 0, 0, 1, 2, 3, 0, 0, 0]


@pytest.mark.parametrize("facets", [1, 2])
def test_an_array_that_was_removed_is_named_whoever_reads_or_goes_on(tmp_path: Path, facets: int) -> None:
    root = open_store(str(tmp_path / "atlas"), "atlas", "a")
    declared = PictureArrays(NEURONS, BLOCK, RECORDS, {"layer4.2": 5}, facets=facets)
    AtlasLayer.of(root, "2").claim({"side": SIDE})
    AtlasLayer.of(root, "2").declare(declared)
    names = [spec.path for spec in picture_specs("2", SIDE, declared) if not spec.path.endswith("/done")]
    assert len(names) == 7 + (facets > 1)
    for name in names:
        (tmp_path / "atlas" / name).rename(tmp_path / "away")
        layer = AtlasLayer.of(root, "2")
        with pytest.raises(UnreadableStore, match=f"^{name} is gone from the store: copy it again"):
            layer.declare(declared)
        with pytest.raises(SchemaMismatch, match=f"^{name} is not in this store; .* or if that has run, copy it"):
            layer.reached() if "reached" in name else layer.facets() if name == "2/count" else layer.rows([0])
        (tmp_path / "away").rename(tmp_path / "atlas" / name)
    AtlasLayer.of(root, "2").declare(declared)


def test_an_atlas_in_an_object_store(s3: str, tmp_path: Path) -> None:
    group = open_store(f"{s3}/{tmp_path.name}", "atlas", "a")
    declare(group, picture_specs("layer4.2", SIDE, PictureArrays(NEURONS, BLOCK, RECORDS, {"layer4.2": 5})))
    AtlasLayer(group, "layer4.2").write(1, block_of(1))
    again = open_store(f"{s3}/{tmp_path.name}", "atlas", "r")
    assert AtlasLayer(again, "layer4.2").decided().tolist() == [False] * 4 + [True] * 4 + [False] * 2
    np.testing.assert_array_equal(AtlasLayer(again, "layer4.2").rows([6])["pixels"][0], block_of(1)["pixels"][2])


def test_a_block_written_twice_has_the_same_bytes(group: zarr.Group, tmp_path: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    for block in (0, 2):
        AtlasLayer(group, "layer4.2").write(block, block_of(block))
    first = content()
    for block in (2, 0):
        AtlasLayer(group, "layer4.2").write(block, block_of(block))
    assert content() == first


def test_xarray_opens_every_group_of_an_atlas(group: zarr.Group, tmp_path: Path) -> None:
    AtlasLayer(group, "layer4.2").write(0, block_of(0))
    AtlasLayer(group, "layer4.2").write_metrics(
        {"score": np.arange(10.0)}, {"score": ("accuracy of the judge", "percent")}
    )
    with xarray.open_zarr(tmp_path / "atlas", group="layer4.2", consolidated=False) as data:
        assert data["pixels"].dims == ("neuron", "row", "column", "colour")
        assert "2 the neuron is zero" in data["status"].attrs["meaning"]
    with xarray.open_zarr(tmp_path / "atlas", group="layer4.2/reached/layer4.2", consolidated=False) as data:
        assert data["picture"].dims == ("neuron", "level")
    with xarray.open_zarr(tmp_path / "atlas", group="layer4.2/metrics", consolidated=False) as data:
        assert data["score"].attrs["long_name"] == "accuracy of the judge"


def test_metrics_do_not_belong_to_the_blocks(group: zarr.Group) -> None:
    assert AtlasLayer(group, "layer4.2").metrics() == {}
    AtlasLayer(group, "layer4.2").write_metrics({"score": np.full(NEURONS, np.nan)}, {})
    AtlasLayer(group, "layer4.2").write_metrics({"score": np.arange(10.0), "more": np.zeros(NEURONS)}, {})
    AtlasLayer(group, "layer4.2").write(1, block_of(1))
    assert AtlasLayer(group, "layer4.2").metrics()["score"].tolist() == list(range(10))
    assert AtlasLayer(group, "layer4.2").metric_names() == ["more", "score"]
    assert not any("score" in name for name in AtlasLayer(group, "layer4.2").rows([0]))
    with pytest.raises(SchemaMismatch, match="exists with shape"):
        AtlasLayer(group, "layer4.2").write_metrics({"score": np.zeros(3)}, {})


def test_of_metrics_that_are_anew_those_that_are_not_found_again_go(tmp_path: Path) -> None:
    root = open_store(str(tmp_path / "faceted"), "atlas", "a")
    layer = AtlasLayer.of(root, "layer4.2")
    layer.claim({"side": SIDE})
    layer.declare(PictureArrays(NEURONS, BLOCK, RECORDS, facets=2))
    of_neurons = {name: np.full(NEURONS, number) for number, name in enumerate(("found", "gone", "theirs"))}
    of_facets = {name: np.repeat(values[:, None], 2, 1) for name, values in of_neurons.items()}
    layer.write_metrics(of_neurons, {}, by_facet=of_facets)
    assert layer.metric_meaning("gone") == ("gone", "")  # it is known to who has looked
    again = {"found": np.full(NEURONS, 7)}
    kept: list[tuple[Callable[[str], bool], set[str]]] = [
        (lambda name: False, {"found", "gone", "theirs"}),
        (lambda name: name != "theirs", {"found", "theirs"}),
    ]
    for anew, left in kept:
        layer.write_metrics(again, {}, by_facet={"found": np.full((NEURONS, 2), 8)}, anew=anew)
        assert set(layer.metric_names()) == layer.metrics().keys() == layer.facet_metrics().keys() == left
    assert (layer.metrics()["found"] == 7).all()
    assert (layer.facet_metrics()["found"] == 8).all()
    assert (layer.metrics()["theirs"] == 2).all()
    with pytest.raises(SchemaMismatch, match="gone is not in this store"):
        layer.metric_meaning("gone")


def test_what_two_evaluations_say_of_a_layer_stays_side_by_side(
    group: zarr.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins and ends while the first writes its arrays."""
    one, two = AtlasLayer(group, "layer4.2"), AtlasLayer(group, "layer4.2")
    values = np.zeros(NEURONS)

    def interrupted(group: zarr.Group, specs: Sequence[ArraySpec], arrays: Mapping[str, np.ndarray]) -> None:
        monkeypatch.setattr(layers, "write_all", write_all)
        declare(group, specs)
        two.write_metrics({"b": values}, {}, {"b": 2.0}, {"two": "2"})
        write_all(group, specs, arrays)

    monkeypatch.setattr(layers, "write_all", interrupted)
    one.write_metrics({"a": values}, {}, {"a": 1.0}, {"one": "1"})
    assert sorted(one.layer_metrics()) == ["a", "b"]
    judged_by: Any = group["layer4.2/metrics"].attrs["judged_by"]
    assert sorted(judged_by) == ["one", "two"]


def test_every_picture_status_has_a_meaning() -> None:
    assert set(PICTURE_STATUS_MEANINGS) == set(PictureStatus)
    assert all(status.meaning for status in PictureStatus)
    assert (PictureStatus.NOT_MADE, PictureStatus.MADE) == (0, 1)
