from dataclasses import replace
from itertools import count as counter
from pathlib import Path

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from stores.arrays.opening import open_store
from stores.arrays.schema import array_at, declare
from stores.arrays.writing import grow
from stores.dataset.index import (
    STATUS_MEANINGS,
    SampleRows,
    ShardRows,
    Status,
    append_index,
    append_parts,
    index_specs,
    read_columns,
    read_index,
    read_shards,
)
from stores.errors import SchemaMismatch
from stores.files import read_arrays, write_arrays

STORES = counter()


def rows(first: int, counts: list[int], bad: int = 0) -> tuple[SampleRows, ShardRows]:
    """Shards ``first``, … with ``counts`` images, of which the first ``bad`` of each are rejected."""
    shard = np.repeat(np.arange(first, first + len(counts)), counts)
    row = np.concatenate([np.arange(0), *(np.arange(count) for count in counts)])
    samples = SampleRows.from_columns(
        {
            "shard": shard,
            "offset": row * 512,
            "size": row + 100,
            "label": row % 3 - 1,
            "key": [f"{s}/{r}é" for s, r in zip(shard, row, strict=True)],
            "status": np.where(row < bad, Status.UNDECODABLE, Status.OK),
            "checksum": row * 7,
        }
    )
    numbers = range(first, first + len(counts))
    shards = ShardRows.from_columns(
        {
            "name": [f"s-{number}.tar" for number in numbers],
            "url": [f"https://me:secret@host/s-{number}.tar?token=secret" for number in numbers],
            "size": [1000] * len(counts),
            "images": counts,
            "rejected": [0] * len(counts),
            "digest": [f"d{number}" for number in numbers],
            "short": ["ends early"] * len(counts),
        }
    )
    return samples, shards


def test_a_column_of_another_type_or_length_is_no_index() -> None:
    """The annotations that say what is stored still say what is held."""
    samples, _ = rows(0, [3])
    for changed in (samples.status.astype(np.int32), samples.status[:2]):
        with pytest.raises(TypeCheckError, match="status"):
            replace(samples, status=changed)


def same(one: SampleRows | ShardRows, two: SampleRows | ShardRows) -> bool:
    return all(np.array_equal(value, two.columns()[name]) for name, value in one.columns().items())


@settings(deadline=None, max_examples=15)
@given(counts=st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=3))
def test_appending_in_parts_is_appending_at_once(counts: list[list[int]]) -> None:
    group = open_store(f"memory://index-{next(STORES)}", "statistics", "a")
    first = 0
    for part in counts:
        append_index(group, *rows(first, part))
        first += len(part)
    expected = rows(0, [count for part in counts for count in part])
    if counts:
        assert same(read_index(group), expected[0])
        assert read_shards(group).identities() == expected[1].identities()


def test_two_stores_hold_the_same_bytes_whether_extended_or_not(tmp_path: Path) -> None:
    append_index(open_store(str(tmp_path / "a"), "statistics", "a"), *rows(0, [3, 2]))
    group = open_store(str(tmp_path / "b"), "statistics", "a")
    append_index(group, *rows(0, [3]))
    append_index(group, *rows(1, [2]))
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_many_small_parts_are_appended_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts join until they fill a chunk; here one of 8 rows, so that several are written."""
    monkeypatch.setattr("stores.dataset.index.GROWING_CHUNK", 8)
    for chunk in ("GROWING_CHUNK", "FEW_CHUNK"):
        monkeypatch.setattr(f"stores.arrays.schema.{chunk}", 8)
    counts = [3, 0, 5, 1, 1, 9, 2]
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    append_index(group, *rows(0, [2], bad=1))
    append_parts(group, (rows(1 + number, [count], bad=1) for number, count in enumerate(counts)))
    samples, shards = rows(0, [2, *counts], bad=1)
    assert same(read_index(group), samples)
    assert read_shards(group).identities() == shards.identities()
    assert read_shards(group).rejected.tolist() == [min(1, count) for count in (2, *counts)]


def test_rows_of_the_index_come_in_any_order_and_only_those_that_are_there(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    append_index(group, *rows(0, [3, 2]))
    whole, wanted = rows(0, [3, 2])[0], np.array([4, 0, 4, 2])
    found = read_columns(group, wanted, ["key", "offset", "checksum"])
    assert found["key"].tolist() == whole.key[wanted].tolist()
    assert found["offset"].tolist() == whole.offset[wanted].tolist()
    assert found["checksum"].tolist() == whole.checksum[wanted].tolist()
    for wrong in ([5], [-1]):
        with pytest.raises(SchemaMismatch, match="has 0 to 4"):
            read_columns(group, np.array(wrong), ["key"])


def test_rejections_are_counted_and_credentials_dropped(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    append_index(group, *rows(0, [3, 1], bad=2))
    shards = read_shards(group)
    assert shards.rejected.tolist() == [2, 1]
    assert shards.url.tolist() == ["https://host/s-0.tar", "https://host/s-1.tar"]
    assert shards.short.tolist() == ["ends early"] * 2


def test_a_killed_append_is_invisible_and_can_be_repeated(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    append_index(group, *rows(0, [3]))
    samples, shards = rows(1, [2])
    for name, column in samples.columns().items():
        grow(array_at(group, f"index/{name}"), 3, column)
    grow(array_at(group, "shards/name"), 1, shards.name)
    assert same(read_index(group), rows(0, [3])[0])
    append_index(group, samples, shards)
    assert same(read_index(group), rows(0, [3, 2])[0])


def test_rows_of_other_shards_are_refused(tmp_path: Path) -> None:
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    with pytest.raises(SchemaMismatch, match="append each shard with all its rows"):
        append_index(group, *rows(1, [3]))
    samples, _ = rows(0, [3])
    with pytest.raises(SchemaMismatch, match="append each shard with all its rows"):
        append_index(group, samples, rows(0, [2])[1])
    with pytest.raises(SchemaMismatch, match="run the step"):
        read_index(open_store(str(tmp_path / "t"), "statistics", "a"))


def test_columns_pass_through_a_partial(tmp_path: Path) -> None:
    samples, _ = rows(0, [3, 2])
    write_arrays(str(tmp_path), "index/0", samples.columns())
    found = read_arrays(str(tmp_path), "index/0")
    assert found is not None
    assert same(SampleRows.from_columns(found), samples)


@given(st.lists(st.integers(0, 3), max_size=4))
def test_concat_has_empty_as_its_identity(counts: list[int]) -> None:
    parts = [rows(number, [count])[0] for number, count in enumerate(counts)]
    whole = SampleRows.concat([SampleRows.empty(), *parts])
    assert same(whole, rows(0, counts)[0])
    assert len(whole) == sum(counts)
    assert len(ShardRows.concat([ShardRows.empty()])) == 0


def test_every_status_has_a_meaning_and_xarray_shows_it(tmp_path: Path) -> None:
    assert all(status.meaning for status in Status)
    assert set(STATUS_MEANINGS) == set(Status)
    group = open_store(str(tmp_path / "s"), "statistics", "a")
    declare(group, index_specs())
    append_index(group, *rows(0, [3]))
    with xarray.open_zarr(tmp_path / "s", group="index", consolidated=False) as found:
        assert dict(found.sizes) == {"image": 3}
        assert "1 cannot be decoded" in found["status"].attrs["long_name"]
        assert found["offset"].attrs["units"] == "byte"
    with xarray.open_zarr(tmp_path / "s", group="shards", consolidated=False) as found:
        assert found["digest"].values.tolist() == ["d0"]
