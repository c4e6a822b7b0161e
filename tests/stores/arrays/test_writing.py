from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.arrays.opening import open_store
from stores.arrays.schema import ArraySpec, array_at, declare
from stores.arrays.writing import block_count, grow, write_block, write_whole
from stores.errors import MisalignedBlock, SchemaMismatch


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


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
