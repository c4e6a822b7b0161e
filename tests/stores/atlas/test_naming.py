"""Names beside pictures: they come back as they were found, count for nothing half written, and give way to others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from stores import AtlasLayer, Naming
from stores.arrays.opening import open_store
from stores.arrays.schema import declare
from stores.atlas.layer import PictureArrays, picture_specs
from stores.atlas.naming import write_naming

NEURONS, SIDE, BLOCK = 6, 4, 4


def naming(ranks: int = 2, **made_from: object) -> Naming:
    """Words of six neurons; the last two are below their bounds, or have none."""
    stream = np.random.default_rng(0)
    shape = (NEURONS, ranks)
    score = stream.random(shape, np.float32) + 1
    score[4], score[5] = 0.1, np.nan
    word = np.array([[f"слово {neuron}", "<b>"][:ranks] for neuron in range(NEURONS)], np.dtypes.StringDType())
    word[5] = ""
    return Naming(
        word, stream.random(shape, np.float32), score, stream.random(shape, np.float32),
        np.full(NEURONS, 0.5, np.float32), np.full(NEURONS, 0.1, np.float32), score[:, 0] > 0.5,
        stream.integers(0, 99, (NEURONS, 4)),
        stream.random((NEURONS, 4), np.float32), {"source": "labels", **made_from},
    )  # fmt: skip


@pytest.fixture
def group(tmp_path: Path) -> zarr.Group:
    group = open_store(str(tmp_path / "atlas"), "atlas", "a")
    for layer in ("layer4.2", "classes"):
        declare(group, picture_specs(layer, SIDE, PictureArrays(NEURONS, BLOCK, 2)))
    return group


def test_names_come_back_as_they_were_found(group: zarr.Group, tmp_path: Path) -> None:
    layer, made = AtlasLayer(group, "layer4.2"), naming()
    assert layer.naming() is None
    assert layer.names == []
    assert layer.neuron_name(0) == "channel 0"
    AtlasLayer(group, "layer4.2").write_naming(made)
    layer = AtlasLayer(group, "layer4.2")
    found = layer.naming()
    assert found is not None
    for name in ("word", "chosen", "score", "precision", "bound", "precise", "named", "evidence", "shown"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
    assert found.made_from == {"source": "labels"}
    assert layer.names == ["слово 0", "слово 1", "слово 2", "слово 3", "", ""]
    assert [layer.neuron_name(neuron) for neuron in (0, 4)] == ["channel 0, слово 0", "channel 4"]
    with xarray.open_zarr(tmp_path / "atlas", group="layer4.2/names", consolidated=False) as data:
        assert data["score"].dims == ("neuron", "rank")
        assert data["evidence"].dims == ("neuron", "image")
        assert "by chance" in data["bound"].attrs["long_name"]


def test_a_neuron_has_no_name_where_it_was_given_none_whatever_it_scores(group: zarr.Group) -> None:
    made = naming()
    made.named[1:3] = False
    write_naming(group, "layer4.2", made)
    assert AtlasLayer(group, "layer4.2").names == ["слово 0", "", "", "слово 3", "", ""]


def test_names_of_before_there_was_a_bound_on_precision_are_read(group: zarr.Group) -> None:
    write_naming(group, "layer4.2", naming())
    for later in ("precise", "named"):
        del group[f"layer4.2/names/{later}"]
    assert AtlasLayer(group, "layer4.2").names == ["слово 0", "слово 1", "слово 2", "слово 3", "", ""]


def test_other_words_take_their_place_and_half_of_them_count_for_nothing(
    group: zarr.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_naming(group, "layer4.2", naming())
    write_naming(group, "layer4.2", naming(ranks=1, source="probabilities"))
    found = AtlasLayer(group, "layer4.2").naming()
    assert found is not None
    assert found.word.shape == (NEURONS, 1)
    assert found.made_from["source"] == "probabilities"
    with monkeypatch.context() as killed:
        killed.setattr("stores.atlas.naming.claim", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_naming(group, "layer4.2", naming())
    assert AtlasLayer(group, "layer4.2").naming() is None
    write_naming(group, "layer4.2", naming())
    assert AtlasLayer(group, "layer4.2").naming() is not None


def test_a_class_keeps_its_own_name(group: zarr.Group) -> None:
    layer = AtlasLayer(group, "classes")
    layer.write_names(["tench"] * NEURONS)
    layer.write_naming(naming())
    assert layer.neuron_name(0) == "tench"
    assert layer.names == ["tench"] * NEURONS
    layer.write_names([])
    assert layer.names == []
    assert layer.neuron_name(0) == "class 0"


def test_pictures_are_written_beside_names(group: zarr.Group) -> None:
    """Names lie along neurons, too, but belong to no block."""
    write_naming(group, "layer4.2", naming())
    layer = AtlasLayer(group, "layer4.2")
    layer.write(1, layer.empty(1))
    assert layer.done().tolist() == [False, True]
