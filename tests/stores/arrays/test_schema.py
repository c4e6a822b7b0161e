from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.arrays.schema import (
    SCHEMA_VERSIONS,
    ArraySpec,
    array_at,
    block_count,
    declare,
    grow,
    open_store,
    write_block,
    write_whole,
)
from stores.errors import MisalignedBlock, MissingStore, SchemaMismatch


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return f"memory://{tmp_path.name}" if request.param == "memory" else str(tmp_path / "store")


@pytest.mark.parametrize("place", ["local", "memory", "s3"], indirect=True)
def test_a_store_is_made_once_and_found_again(place: str) -> None:
    with pytest.raises(MissingStore, match="make the store first"):
        open_store(place, "statistics", "r")
    group = open_store(place, "statistics", "a")
    declare(group, [ArraySpec("layers/layer4.2/mean", ("channel",), (3,), "float32", "mean")])
    write_whole(array_at(group, "layers/layer4.2/mean"), np.arange(3, dtype=np.float32))
    open_store(place, "statistics", "a")
    again = open_store(place, "statistics", "r")
    assert np.asarray(array_at(again, "layers/layer4.2/mean")[:]).tolist() == [0, 1, 2]
    assert again.attrs["schema_version"] == SCHEMA_VERSIONS["statistics"]
    with pytest.raises(ValueError, match="read-only"):
        again.require_group("more")
    with pytest.raises(SchemaMismatch, match="kind statistics but a store of kind atlas"):
        open_store(place, "atlas", "r")


def test_a_stranger_store_and_another_version_are_refused(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "stranger"), mode="w")
    with pytest.raises(SchemaMismatch, match="no store of this project"):
        open_store(str(tmp_path / "stranger"), "atlas", "a")
    for kind, version in SCHEMA_VERSIONS.items():
        for other in (version - 1, version + 1):
            open_store(str(tmp_path / kind), kind, "a").attrs["schema_version"] = other
            with pytest.raises(SchemaMismatch, match=f"version {other} but this program reads version {version}; make"):
                open_store(str(tmp_path / kind), kind, "r")
            zarr.open_group(str(tmp_path / kind), mode="r+").attrs["schema_version"] = version


def test_a_store_inside_another_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """It would be taken for a part of it, or write over one, such as references."""
    open_store(str(tmp_path / "s.zarr"), "statistics", "a")
    for name in ("references", "deep/er"):
        with pytest.raises(SchemaMismatch, match=r"lies inside the store at .*s\.zarr, .*: give a path outside"):
            open_store(str(tmp_path / "s.zarr" / name), "atlas", "a")
        assert not (tmp_path / "s.zarr" / name).exists()
    zarr.open_group(str(tmp_path / "others.zarr"), mode="w", zarr_format=3)
    open_store(str(tmp_path / "others.zarr" / "s.zarr"), "atlas", "a")  # a hierarchy of somebody's that holds stores
    open_store(str(tmp_path / "s.zarr"), "statistics", "a")


def test_a_store_to_write_into_is_not_made_by_looking_for_it(tmp_path: Path) -> None:
    with pytest.raises(MissingStore, match="make the store first"):
        open_store(str(tmp_path / "none"), "atlas", "r+")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingStore, match="make the store first"):
        open_store(str(tmp_path / "folder"), "atlas", "r+")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
    open_store(str(tmp_path / "some"), "atlas", "a")
    open_store(str(tmp_path / "some"), "atlas", "r+").attrs["more"] = 1
    assert open_store(str(tmp_path / "some"), "atlas", "r").attrs["more"] == 1


def test_the_root_lists_without_warnings_although_runs_holds_files(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    (tmp_path / "s" / "runs" / "record.json").write_text("{}")
    assert [name for name, _ in group.members()] == ["runs"]


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


@pytest.mark.parametrize("rows", [(3, 2), (5, 2), (8, 2), (4, 3)])
def test_a_part_of_a_block_is_refused_with_the_race(tmp_path: Path, rows: tuple[int, int]) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    declare(group, [ArraySpec("a", ("neuron", "channel"), (10, 2), "float32", "m", block=4)])
    with pytest.raises(MisalignedBlock, match="silently lose each other's rows"):
        write_block(array_at(group, "a"), 0, np.zeros(rows, np.float32))
    with pytest.raises(MisalignedBlock, match="block 0 to 2"):
        write_block(array_at(group, "a"), 3, np.zeros((4, 2), np.float32))
    with pytest.raises(MisalignedBlock):
        write_block(array_at(group, "a"), -1, np.zeros((4, 2), np.float32))


@settings(deadline=None, max_examples=25)
@given(
    neurons=st.integers(1, 11),
    block=st.integers(1, 5),
    rest=st.lists(st.integers(1, 3), max_size=2),
    dtype=st.sampled_from(["float32", "float16", "uint8"]),
    data=st.data(),
)
def test_blocks_come_back_in_whatever_order_they_were_written(
    neurons: int, block: int, rest: list[int], dtype: str, data: st.DataObject
) -> None:
    group = open_store(f"memory://order-{neurons}-{block}-{rest}-{dtype}", "atlas", "a")
    spec = ArraySpec("a", ("neuron", "x", "y")[: 1 + len(rest)], (neurons, *rest), dtype, "m", block=block)
    declare(group, [spec])
    array = array_at(group, "a")
    values = np.random.default_rng(0).integers(0, 200, array.shape).astype(dtype)
    for number in data.draw(st.permutations(range(block_count(array)))):
        write_block(array, number, values[number * block : (number + 1) * block])
    np.testing.assert_array_equal(np.asarray(array[...]), values)


def test_one_zarr_shard_per_block_and_the_same_bytes_when_written_twice(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((10, 3, 5)).astype(np.float32)
    seen = []
    for name, order in (("one", (0, 1, 2)), ("two", (2, 0, 1, 1, 2))):
        group = open_store(str(tmp_path / name), "atlas", "a")
        declare(group, [ArraySpec("a", ("neuron", "channel", "level"), (10, 3, 5), "float16", "m", block=4)])
        for block in order:
            write_block(array_at(group, "a"), block, values[block * 4 : block * 4 + 4])
        seen.append(files(tmp_path / name))
    assert seen[0] == seen[1]
    assert {name for name in seen[0] if name.startswith("a/c")} == {"a/c/0/0/0", "a/c/1/0/0", "a/c/2/0/0"}


def test_a_block_of_nothing_leaves_no_file_and_takes_away_what_was_there(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s.zarr"), "atlas", "a")
    declare(group, [ArraySpec("a", ("neuron", "level"), (8, 3), "float32", "a", block=4)])
    array, file = array_at(group, "a"), tmp_path / "s.zarr" / "a" / "c" / "1" / "0"
    nothing = np.zeros((4, 3), np.float32)
    write_block(array, 1, nothing)
    assert not file.exists()
    for rows in (nothing + 1, -nothing):  # a zero below zero is kept as it is
        write_block(array, 1, rows)
        assert np.asarray(array[4:]).tobytes() == rows.tobytes()
        write_block(array, 1, nothing)
        assert not file.exists()


def test_tasks_that_own_whole_blocks_lose_nothing(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    declare(group, [ArraySpec("a", ("neuron", "x"), (62, 4), "int32", "m", block=4)])
    values = np.arange(248, dtype=np.int32).reshape(62, 4)

    def task(block: int) -> None:
        again = open_store(str(tmp_path / "s"), "atlas", "a")
        write_block(array_at(again, "a"), block, values[block * 4 : block * 4 + 4])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(task, range(16)))
    np.testing.assert_array_equal(np.asarray(array_at(group, "a")[...]), values)


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


def test_values_that_the_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    declare(group, [ArraySpec("half", ("n",), (2,), "float16", "m"), ArraySpec("byte", ("n",), (2,), "uint8", "m")])
    with pytest.raises(SchemaMismatch, match="70000, which float16 cannot hold"):
        write_whole(array_at(group, "half"), np.array([1.0, 7e4], np.float32))
    write_whole(array_at(group, "half"), np.array([np.inf, np.nan], np.float32))
    with pytest.raises(SchemaMismatch, match="convert it first"):
        write_whole(array_at(group, "byte"), np.zeros(2, np.float32))
    with pytest.raises(SchemaMismatch, match="beyond uint8"):
        write_whole(array_at(group, "byte"), np.array([1, 300], np.uint16))
    with pytest.raises(SchemaMismatch, match="declare it with that shape"):
        write_whole(array_at(group, "byte"), np.zeros(3, np.uint8))


def test_growing_arrays(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    spec = ArraySpec("key", ("image",), (0,), "str", "m", growing=True)
    declare(group, [spec])
    grow(array_at(group, "key"), 0, np.array(["a", "bé"], np.dtypes.StringDType()))
    declare(group, [spec])
    grow(array_at(group, "key"), 1, np.array(["c", "d"], np.dtypes.StringDType()))
    assert np.asarray(array_at(group, "key")[:]).tolist() == ["a", "c", "d"]


@pytest.mark.parametrize("spec", [{"axes": ("a",), "shape": (1, 2)}, {"axes": (), "shape": (), "block": 2}])
def test_a_spec_that_contradicts_itself_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(SchemaMismatch):
        ArraySpec(path="p", dtype="uint8", meaning="m", **spec)  # type: ignore[arg-type]


def test_a_url_of_no_known_kind_is_refused() -> None:
    with pytest.raises(MissingStore, match="cannot be opened"):
        open_store("nothing://host/a", "atlas", "a")


def test_missing_arrays_and_groups_say_the_way_out(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "atlas", "a")
    with pytest.raises(SchemaMismatch, match="run the step that writes it first"):
        array_at(group, "layer4.2/pixels")


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
