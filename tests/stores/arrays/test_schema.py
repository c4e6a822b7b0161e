import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from stores.arrays.opening import memory_group, open_store
from stores.arrays.schema import ArraySpec, array_at, declare, group_at
from stores.arrays.writing import grow, write_block
from stores.errors import SchemaMismatch, UnreadableStore


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"shape": (9, 3)}, "shape"),
        ({"dtype": "float64"}, "type"),
        ({"axes": ("neuron", "level")}, "axes"),
        ({"block": 2}, "block"),
    ],
)
def test_declaring_again_must_agree(tmp_path: Path, change: dict[str, object], what: str) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    spec = {"path": "a", "axes": ("neuron", "channel"), "shape": (8, 3), "dtype": "float32", "meaning": "m", "block": 4}
    declare(group, [ArraySpec(**spec)])  # type: ignore[arg-type]
    declare(group, [ArraySpec(**spec)])  # type: ignore[arg-type]
    with pytest.raises(SchemaMismatch, match=f"exists with {what}"):
        declare(group, [ArraySpec(**{**spec, **change})])  # type: ignore[arg-type]
    declare(group, [ArraySpec("a2/b", (), (), "int64", "m")])
    with pytest.raises(SchemaMismatch, match="is a group"):
        declare(group, [ArraySpec("a2", (), (), "int64", "m")])


def test_xarray_explains_a_half_written_group(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    declare(
        group,
        [
            ArraySpec("g/a", ("neuron", "level"), (8, 2), "float32", "rows", "pixel", block=4),
            ArraySpec("g/level", ("level",), (2,), "float64", "position"),
            ArraySpec("g/name", ("neuron",), (8,), "str", "names"),
        ],
    )
    write_block(array_at(group, "g/a"), 1, np.ones((4, 2), np.float32))
    with xarray.open_zarr(tmp_path / "s", group="g", consolidated=False) as found:
        assert found["a"].dims == ("neuron", "level")
        assert found["a"].attrs["long_name"] == "rows"
        assert found["a"].attrs["units"] == "pixel"
        assert found["a"].values.sum(axis=1).tolist() == [0] * 4 + [2] * 4
        assert found["name"].values.tolist() == [""] * 8


@pytest.mark.parametrize("spec", [{"axes": ("a",), "shape": (1, 2)}, {"axes": (), "shape": (), "block": 2}])
def test_a_spec_that_contradicts_itself_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(SchemaMismatch):
        ArraySpec(path="p", dtype="uint8", meaning="m", **spec)  # type: ignore[arg-type]


def test_missing_arrays_and_groups_say_the_way_out(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    for ask in (array_at, group_at):
        with pytest.raises(
            SchemaMismatch, match="run the step that writes it first, or if that has run, copy it again"
        ):
            ask(group, "layer4.2/pixels")


def test_what_was_removed_beside_the_last_array_is_not_made_anew(tmp_path: Path) -> None:
    """It would be empty, and the last array says that it is written."""
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    specs = [ArraySpec(f"layer/{name}", ("neuron",), (3,), "int64", "a number") for name in ("a", "b/c", "done")]
    assert declare(group, specs, sealed=True).keys() == {spec.path for spec in specs}
    before = {path: path.read_bytes() for path in tmp_path.rglob("zarr.json")}
    assert declare(group, specs, sealed=True).keys() == {spec.path for spec in specs}
    for removed, named in (("a", "a"), ("b", "b/c"), ("b/c", "b/c")):
        (tmp_path / "s/layer" / removed).rename(tmp_path / "away")
        with pytest.raises(UnreadableStore, match=f"^layer/{named} is gone from the store: copy it again"):
            declare(group, specs, sealed=True)
        (tmp_path / "away").rename(tmp_path / "s/layer" / removed)
    assert {path: path.read_bytes() for path in tmp_path.rglob("zarr.json")} == before
    shutil.rmtree(tmp_path / "s/layer/done")  # as a run leaves it that was killed before the last
    shutil.rmtree(tmp_path / "s/layer/a")
    declare(group, specs, sealed=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("zarr.json")} == before


def test_the_last_array_is_made_when_all_others_and_their_groups_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    specs = [ArraySpec(f"layers/{name}", ("neuron",), (3,), "int64", "a number") for name in ("b/x", "a/y", "a/done")]
    created, seen = zarr.Group.create_hierarchy, []

    def watched(self: zarr.Group, nodes: Any, **options: Any) -> Any:
        seen.append((sorted(nodes), [path for path in ("layers/a", "layers/b/x", "layers/a/y") if path in self]))
        return created(self, nodes, **options)

    monkeypatch.setattr(zarr.Group, "create_hierarchy", watched)
    arrays = declare(group, specs)
    assert seen == [
        (["layers/a", "layers/b"], []),
        (["layers/a/y", "layers/b/x"], ["layers/a"]),
        (["layers/a/done"], ["layers/a", "layers/b/x", "layers/a/y"]),
    ]
    assert {path: array.path for path, array in arrays.items()} == {spec.path: spec.path for spec in specs}
    seen.clear()
    assert list(declare(group, specs)) == list(arrays)
    assert seen == []


def test_what_another_run_declares_at_the_same_moment_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    specs = [ArraySpec(f"layers/a/{name}", ("neuron",), (3,), "int64", "a number") for name in "xyz"]
    other = ArraySpec("layers/a/y", ("neuron",), (4,), "int64", "a number")
    created = zarr.Group.create_hierarchy

    def late(first: ArraySpec) -> Any:
        def create(self: zarr.Group, nodes: Any, **options: Any) -> Any:
            monkeypatch.undo()
            declare(group, [first])
            return created(self, nodes, **options)

        return create

    monkeypatch.setattr(zarr.Group, "create_hierarchy", late(specs[1]))
    assert list(declare(group, specs)) == [spec.path for spec in specs]
    group = open_store(str(tmp_path / "t"), "statistics", "a")
    monkeypatch.setattr(zarr.Group, "create_hierarchy", late(other))
    with pytest.raises(SchemaMismatch, match=r"exists with shape \(4,\)"):
        declare(group, specs)


def test_arrays_declared_alike_have_attributes_of_their_own() -> None:
    spec = ArraySpec("a", ("neuron",), (3,), "float32", "rows")
    first, second = (declare(memory_group(), [spec])["a"] for _ in range(2))
    first.attrs["mine"] = 1
    later = declare(memory_group(), [spec])["a"]
    assert [dict(one.attrs).get("mine") for one in (first, second, later)] == [1, None, None]


def test_what_grows_may_lie_in_chunks_of_another_length() -> None:
    """As in stores that were made before tables of shards had small ones."""
    group, spec = memory_group(), ArraySpec("names", ("shard",), (0,), "str", "names", growing=True)
    declare(group, [spec])
    grow(declare(group, [replace(spec, few=True)])["names"], 0, np.asarray(["a", "b"], np.dtypes.StringDType()))
    assert array_at(group, "names").chunks > declare(memory_group(), [replace(spec, few=True)])["names"].chunks
    assert np.asarray(array_at(group, "names")).tolist() == ["a", "b"]
