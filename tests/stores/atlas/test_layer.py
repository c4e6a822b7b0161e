from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from stores import AtlasLayer
from stores.arrays.schema import declare, open_store
from stores.atlas.layer import picture_specs
from stores.errors import PICTURE_STATUS_MEANINGS, PictureStatus, SchemaMismatch

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
    declare(group, picture_specs("layer4.2", NEURONS, SIDE, RECORDS, BLOCK, {"layer4.2": 5}))
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


def test_an_atlas_in_an_object_store(s3: str, tmp_path: Path) -> None:
    group = open_store(f"{s3}/{tmp_path.name}", "atlas", "a")
    declare(group, picture_specs("layer4.2", NEURONS, SIDE, RECORDS, BLOCK, {"layer4.2": 5}))
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
    assert not any("score" in name for name in AtlasLayer(group, "layer4.2").rows([0]))
    with pytest.raises(SchemaMismatch, match="exists with shape"):
        AtlasLayer(group, "layer4.2").write_metrics({"score": np.zeros(3)}, {})


def test_every_picture_status_has_a_meaning() -> None:
    assert set(PICTURE_STATUS_MEANINGS) == set(PictureStatus)
    assert all(status.meaning for status in PictureStatus)
    assert (PictureStatus.NOT_MADE, PictureStatus.MADE) == (0, 1)
