from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore, WrapperStore

from stores import Targets
from stores.arrays.blocks import read_rows
from stores.arrays.opening import open_store
from stores.arrays.schema import ArraySpec, array_at, declare
from stores.arrays.writing import write_whole
from stores.dataset.layers import layer_specs, read_layer, write_layer
from stores.dataset.targets import TargetArrays, target_specs
from stores.errors import MisalignedBlock, PictureStatus, SchemaMismatch

NODES = {"_blocks.13": (3, 4), "layer4.2": (2, 5)}
NEURONS, BLOCK = 7, 3
HALF = {"quantiles": "float16"}
MEANINGS = {"quantiles": "rows", "mean": "mean", "sums/total": "sum"}


def block_of(block: int, relevant: bool = True) -> dict[str, np.ndarray]:
    count = min(BLOCK, NEURONS - block * BLOCK)
    generator = np.random.default_rng(block)
    arrays: dict[str, np.ndarray] = {
        "own": generator.random((count, 1), np.float32),
        "count": np.full(count, 50),
        "status": np.full(count, PictureStatus.MADE, np.uint8),
    }
    for node, (channels, levels) in NODES.items():
        arrays[f"{node}/quantiles"] = generator.random((count, channels, levels), np.float32)
        if relevant:
            arrays[f"{node}/relevant"] = generator.random((count, channels, levels), np.float32)
            arrays[f"{node}/importance"] = generator.random((count, channels), np.float32)
    return arrays


@pytest.fixture
def group(tmp_path: Path) -> zarr.Group:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    declare(
        group,
        target_specs("targets/layer4.2/patch-lrp", NODES, 1, TargetArrays(NEURONS, BLOCK, NODES, HALF)),
    )
    return group


def test_layer_statistics_come_back(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    declare(group, layer_specs("layer4.2", 3, 4, MEANINGS))
    arrays: dict[str, np.ndarray] = {
        "quantiles": np.random.default_rng(0).random((3, 4), np.float32),
        "level": (np.arange(4) + 0.5) / 4,
        "mean": np.arange(3, dtype=np.float32),
        "sums/total": np.arange(3.0) * 1e12,
        "sums/count": np.asarray(10),
    }
    write_layer(group, "layer4.2", arrays)
    found = read_layer(group, "layer4.2")
    assert all(np.array_equal(found[name], value) for name, value in arrays.items())
    assert found["sums/total"].dtype == np.float64
    with pytest.raises(SchemaMismatch, match="declare it with that shape"):
        write_layer(group, "layer4.2", {"mean": np.zeros(4, np.float32)})
    with pytest.raises(SchemaMismatch, match="median is not in this store"):
        write_layer(group, "layer4.2", {"median": np.zeros(3, np.float32)})
    with xarray.open_zarr(tmp_path / "s", group="layers/layer4.2", consolidated=False) as data:
        assert data["quantiles"].coords["level"].values.tolist() == arrays["level"].tolist()


def test_targets_come_back_by_neuron_in_any_order(group: zarr.Group) -> None:
    blocks = [block_of(block) for block in range(3)]
    for block in (2, 0, 1):
        Targets.of(group, "layer4.2", "patch-lrp").write(block, blocks[block])
    assert Targets.of(group, "layer4.2", "patch-lrp").done().all()
    wanted = [6, 0, 4, 4]
    found = Targets.of(group, "layer4.2", "patch-lrp").rows(wanted)
    assert found.keys() == blocks[0].keys()
    for name, rows in found.items():
        expected = np.concatenate([block[name] for block in blocks])[wanted]
        np.testing.assert_array_equal(rows, expected.astype(rows.dtype))
    assert found["layer4.2/quantiles"].dtype == np.float16
    assert Targets.of(group, "layer4.2", "patch-lrp").rows([])["own"].shape == (0, 1)


def test_targets_of_facets_come_back_by_neuron_and_facet(group: zarr.Group) -> None:
    targets = Targets.of(group, "layer4.2", "patch-lrp-facets2")
    declare(group, target_specs(targets.path, NODES, 1, TargetArrays(NEURONS, BLOCK, NODES, facets=(2, 5))))
    arrays, generator = targets.empty(0), np.random.default_rng(0)
    assert arrays["layer4.2/relevant"].shape == (BLOCK, 2, 2, 5)
    for name in ("own", "layer4.2/relevant", "_blocks.13/importance"):
        arrays[name][:] = generator.random(arrays[name].shape)
    arrays["count"][:], arrays["status"][:] = [[5, 0], [3, 2], [0, 0]], PictureStatus.MADE
    arrays["reference_facet"][:] = [[0] * 5, [0, 1, 0, 1, 0], [-1] * 5]
    targets.write(0, arrays)
    assert targets.facets([1, 0, 2, 6]).tolist() == [2, 1, 1, 1]
    assert targets.reference_facets([1, 2]).tolist() == [[0, 1, 0, 1, 0], [-1] * 5]  # type: ignore[union-attr]
    found = targets.rows([1, 0, 1], facets=[1, 0, 0])
    assert found["count"].tolist() == [2, 5, 3]
    np.testing.assert_array_equal(found["layer4.2/relevant"], arrays["layer4.2/relevant"][[1, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(targets.importance("_blocks.13", [1]), arrays["_blocks.13/importance"][[1], 0])
    plain = Targets.of(group, "layer4.2", "patch-lrp")
    assert (plain.most_facets, plain.reference_facets([0]), plain.facets_in_words()) == (1, None, "")


def test_a_half_written_variant_says_what_is_done(group: zarr.Group, tmp_path: Path) -> None:
    Targets.of(group, "layer4.2", "patch-lrp").write(1, block_of(1))
    assert Targets.of(group, "layer4.2", "patch-lrp").done().tolist() == [False, True, False]
    status = Targets.of(group, "layer4.2", "patch-lrp").rows(range(NEURONS))["status"]
    assert status.tolist() == [0, 0, 0, 1, 1, 1, 0]
    with xarray.open_zarr(tmp_path / "s", group="targets/layer4.2/patch-lrp", consolidated=False) as data:
        assert data["own"].dims == ("neuron", "level")
        assert data["done"].values.tolist() == [0, 1, 0]
    with xarray.open_zarr(tmp_path / "s", group="targets/layer4.2/patch-lrp/_blocks.13", consolidated=False) as data:
        assert data["relevant"].dims == ("neuron", "channel", "level")
        assert float(data["relevant"].sel(neuron=0).sum()) == 0


def test_nodes_may_be_called_as_what_stands_beside_pictures() -> None:
    targets = Targets.of(zarr.create_group(MemoryStore()), "3", "image-lrp")
    nodes = {"names": 2, "metrics": 3}
    levels = {**dict.fromkeys(nodes, np.arange(4.0)), "own": np.arange(4.0)}
    targets.declare(levels, nodes, TargetArrays(NEURONS, BLOCK, ()))
    arrays = {name: rows + 1 for name, rows in targets.empty(0).items()}
    targets.write(0, arrays)
    assert targets.rows([0])["names/quantiles"].shape == (1, 2, 4)
    assert targets.rows([2])["metrics/quantiles"].all()


def test_levels_stand_beside_their_nodes(group: zarr.Group) -> None:
    levels = {node: np.linspace(0, 1, count) for node, (_, count) in NODES.items()}
    levels["own"] = np.array([0.5])
    targets, channels = Targets.of(group, "layer4.2", "patch-lrp"), {node: count for node, (count, _) in NODES.items()}
    targets.declare(levels, channels, TargetArrays(NEURONS, BLOCK, NODES, HALF))
    found = targets.levels
    assert found.keys() == levels.keys()
    assert all(np.array_equal(found[name], value) for name, value in levels.items())


def test_targets_in_memory_have_the_settings_and_are_nobody_elses(group: zarr.Group) -> None:
    stored = Targets.of(group, "layer4.2", "patch-lrp")
    stored.claim({"nodes": ["_blocks.13"], "row_steps": 256})
    levels, channels = {"_blocks.13": np.linspace(0, 1, 4), "own": np.array([0.5])}, {"_blocks.13": 3}
    one, other = stored.in_memory(), stored.in_memory()
    assert (one.settings, one.nodes, one.declared) == (stored.settings, ("_blocks.13",), False)
    for targets in (one, other):
        targets.declare(levels, channels, TargetArrays(NEURONS, BLOCK, ()))
    arrays = one.empty(1)
    arrays["own"][:], arrays["status"][:] = 5, PictureStatus.MADE
    one.write(1, arrays)
    assert one.rows([2, 3, 5])["own"][:, 0].tolist() == [0, 5, 5]
    assert one.done().tolist() == [False, True, False]
    assert not other.done().any()
    assert not stored.done().any()


def test_done_is_written_after_the_data(group: zarr.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("stores.arrays.blocks.write_block", lambda array, block, rows: written.append(array.basename))
    Targets.of(group, "layer4.2", "patch-lrp").write(0, block_of(0))
    assert written[-2:] == ["status", "done"]
    assert len(written) == len(block_of(0)) + 1


def test_a_partial_block_or_a_missing_array_is_refused_and_not_done(group: zarr.Group) -> None:
    short = {name: rows[:2] for name, rows in block_of(0).items()}
    with pytest.raises(MisalignedBlock, match="takes whole blocks of 3"):
        Targets.of(group, "layer4.2", "patch-lrp").write(0, short)
    arrays = block_of(0)
    del arrays["layer4.2/relevant"]
    with pytest.raises(SchemaMismatch, match=r"nothing unknown and missing layer4\.2/relevant"):
        Targets.of(group, "layer4.2", "patch-lrp").write(0, arrays)
    with pytest.raises(SchemaMismatch, match="unknown more and nothing missing"):
        Targets.of(group, "layer4.2", "patch-lrp").write(0, {**block_of(0), "more": np.zeros(3)})
    for block in (-1, 3):
        with pytest.raises(MisalignedBlock, match="count from 0"):
            Targets.of(group, "layer4.2", "patch-lrp").write(block, block_of(0))
    assert not Targets.of(group, "layer4.2", "patch-lrp").done().any()


def test_neurons_and_variants_that_are_not_there(group: zarr.Group) -> None:
    for wanted in ([7], [-1]):
        with pytest.raises(SchemaMismatch, match="has 0 to 6"):
            Targets.of(group, "layer4.2", "patch-lrp").rows(wanted)
    with pytest.raises(SchemaMismatch, match=r"targets/layer4\.2/image is not in this store"):
        Targets.of(group, "layer4.2", "image").rows([0])
    with pytest.raises(SchemaMismatch, match="types were given for quantile;"):
        target_specs("a/b", NODES, 1, TargetArrays(1, 1, NODES, {"quantile": "float16"}))


def test_only_the_nodes_that_are_named_have_relevance() -> None:
    specs = target_specs("targets/layer4.2/patch-lrp", NODES, 1, TargetArrays(NEURONS, BLOCK, ["layer4.2"]))
    assert [spec.path.split("/")[-2] for spec in specs if spec.path.endswith("/relevant")] == ["layer4.2"]
    assert [spec.path.split("/")[-2] for spec in specs if spec.path.endswith("/importance")] == ["layer4.2"]


def test_class_neurons_have_no_relevance(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    declare(group, target_specs("targets/classes/image", NODES, 1, TargetArrays(NEURONS, BLOCK, ())))
    Targets.of(group, "classes", "image").write(2, block_of(2, relevant=False))
    assert Targets.of(group, "classes", "image").declared
    assert not any("relevant" in name for name in Targets.of(group, "classes", "image").rows([6]))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 6), max_size=8))
def test_rows_of_is_indexing(wanted: list[int]) -> None:
    group = open_store("memory://rows-of", "statistics", "a")
    declare(group, [ArraySpec("a", ("neuron", "x"), (7, 2), "int32", "m", block=3)])
    values = np.arange(14, dtype=np.int32).reshape(7, 2)
    write_whole(array_at(group, "a"), values)
    np.testing.assert_array_equal(read_rows(array_at(group, "a"), np.asarray(wanted, np.int64)), values[wanted])


class Asked(WrapperStore[MemoryStore]):
    """A store in memory that counts what is read of chunks."""

    reads = 0

    async def get(self, key: str, *others: Any, **named: Any) -> Any:
        self.reads += "/c/" in key
        return await super().get(key, *others, **named)


@pytest.mark.parametrize(("wanted", "reads"), [([0, 2, 3, 4], 2), ([1, 2, 3, 4, 5], 2), ([1, 6], 4)])
def test_of_blocks_that_are_wanted_in_the_main_all_is_read_at_once(wanted: list[int], reads: int) -> None:
    """Of few rows each is a request, and so is each block's index of where they lie."""
    store = Asked(MemoryStore())
    group = zarr.create_group(store, zarr_format=3)
    declare(group, [ArraySpec("a", ("neuron", "x"), (7, 2), "int32", "m", block=3)])
    array = array_at(group, "a")
    write_whole(array, np.arange(14, dtype=np.int32).reshape(7, 2))
    store.reads = 0
    assert read_rows(array, np.asarray(wanted))[:, 0].tolist() == [2 * row for row in wanted]
    assert store.reads == reads
