"""The sample index: one row per image seen, and what was read from each shard.

An image id is a position in the index: shards in the order they were read (sorted by name), rows in the order of
the tar.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, TypeVar, get_type_hints

import numpy as np
import zarr
from jaxtyping import Int32, Int64, Shaped, UInt8, UInt32

from stores.arrays.blocks import read_rows
from stores.arrays.provenance import ShardIdentity
from stores.arrays.schema import GROWING_CHUNK, ArraySpec, array_at, declare
from stores.arrays.writing import grow
from stores.errors import STATUS_MEANINGS as STATUS_MEANINGS
from stores.errors import USED as USED
from stores.errors import SchemaMismatch
from stores.errors import Status as Status
from stores.files import safe_url
from stores.together import together

NO_LABEL = -1
TEXT = np.dtypes.StringDType()


R = TypeVar("R", bound="Rows")


@dataclass(frozen=True)
class StoredColumn:
    """What the array of a column is in the store: its type, "str" for text, and what it means."""

    dtype: str
    meaning: str
    units: str = ""
    fill: int | str = 0

    @property
    def in_memory(self) -> Any:
        """NumPy's type of the column."""
        return TEXT if self.dtype == "str" else np.dtype(self.dtype)


class Rows:
    """Columns of one length. A subclass is a dataclass whose fields are annotated with the `StoredColumn` they are."""

    def __len__(self) -> int:
        return len(next(iter(self.columns().values())))

    @classmethod
    def stored(cls) -> dict[str, StoredColumn]:
        """What each column is, by name."""
        return {name: hint.__metadata__[0] for name, hint in get_type_hints(cls, include_extras=True).items()}

    @classmethod
    def empty(cls: type[R]) -> R:
        """No rows; the identity of ``concat``."""
        return cls.concat([])

    @classmethod
    def from_columns(cls: type[R], columns: Mapping[str, Any]) -> R:
        """From sequences by column name, in any type that converts."""
        return cls(**{name: np.asarray(columns[name], column.in_memory) for name, column in cls.stored().items()})

    @classmethod
    def concat(cls: type[R], parts: Sequence[R]) -> R:
        """The rows of all parts, in order."""
        joined = {}
        for name, column in cls.stored().items():
            arrays = [np.empty(0, column.in_memory), *(getattr(part, name) for part in parts)]
            joined[name] = np.concatenate(arrays)
        return cls.from_columns(joined)

    @classmethod
    def read(cls: type[R], group: zarr.Group, folder: str, count: int) -> R:
        """The first ``count`` rows of the arrays in a folder of the store."""
        names = list(cls.stored())
        read = together(lambda name: array_at(group, f"{folder}/{name}")[:count], names)
        return cls.from_columns(dict(zip(names, read, strict=True)))

    @classmethod
    def specs(cls, folder: str, axis: str, few: bool = False) -> list[ArraySpec]:
        """The arrays of the columns in a folder of the store, empty and growing along ``axis``."""
        return [
            ArraySpec(f"{folder}/{name}", (axis,), (0,), growing=True, few=few, **asdict(column))
            for name, column in cls.stored().items()
        ]

    def columns(self) -> dict[str, Shaped[np.ndarray, "row"]]:
        """The columns by name, as `stores.files.write_arrays` takes them."""
        return {name: getattr(self, name) for name in self.stored()}


_STATUSES = ", ".join(f"{status.value} {meaning}" for status, meaning in STATUS_MEANINGS.items())


@dataclass(frozen=True)
class SampleRows(Rows):
    """Columns of ``index``, one row per image seen."""

    shard: Annotated[Int32[np.ndarray, "image"], StoredColumn("int32", "position of the image's shard in shards/")]
    offset: Annotated[Int64[np.ndarray, "image"], StoredColumn("int64", "first byte of the image in its tar", "byte")]
    size: Annotated[Int64[np.ndarray, "image"], StoredColumn("int64", "length of the image in its tar", "byte")]
    label: Annotated[Int32[np.ndarray, "image"], StoredColumn("int32", "class number, -1 where unknown", "", NO_LABEL)]
    key: Annotated[Shaped[np.ndarray, "image"], StoredColumn("str", "key of the sample in its shard", "", "")]
    status: Annotated[
        UInt8[np.ndarray, "image"],
        StoredColumn("uint8", f"what became of the image: {_STATUSES}", "", int(Status.UNSEEN)),
    ]
    checksum: Annotated[
        UInt32[np.ndarray, "image"],
        StoredColumn("uint32", "CRC-32 of the image's bytes, 0 where they were not read"),
    ]


@dataclass(frozen=True)
class ShardRows(Rows):
    """Columns of ``shards``, one row per shard."""

    name: Annotated[Shaped[np.ndarray, "shard"], StoredColumn("str", "base name of the tar", "", "")]
    url: Annotated[
        Shaped[np.ndarray, "shard"], StoredColumn("str", "where the tar was read from, without credentials", "", "")
    ]
    size: Annotated[Int64[np.ndarray, "shard"], StoredColumn("int64", "length of the tar", "byte")]
    images: Annotated[Int64[np.ndarray, "shard"], StoredColumn("int64", "rows of the index from this shard")]
    rejected: Annotated[Int64[np.ndarray, "shard"], StoredColumn("int64", "rows of them that were not used")]
    digest: Annotated[Shaped[np.ndarray, "shard"], StoredColumn("str", "digest of the tar's bytes", "", "")]
    short: Annotated[
        Shaped[np.ndarray, "shard"], StoredColumn("str", "why the tar ends too early, empty if it is whole", "", "")
    ]

    def identities(self) -> list[ShardIdentity]:
        """What the dataset's fingerprint is made of."""
        return [
            ShardIdentity(str(name), int(size), int(images), str(digest))
            for name, size, images, digest in zip(self.name, self.size, self.images, self.digest, strict=True)
        ]


def index_specs() -> list[ArraySpec]:
    """Arrays of ``index/`` and ``shards/``, empty and growing."""
    done = ArraySpec(
        "shards/done", ("shard",), (0,), "uint8", "1 when the rows of the shard are in the index",
        growing=True, few=True,
    )  # fmt: skip
    return [*SampleRows.specs("index", "image"), *ShardRows.specs("shards", "shard", few=True), done]


def append_index(group: zarr.Group, rows: SampleRows, shards: ShardRows) -> None:
    """Append shards and the rows of their images, as `append_parts` does."""
    append_parts(group, [(rows, shards)])


def append_parts(group: zarr.Group, parts: Iterable[tuple[SampleRows, ShardRows]]) -> None:
    """Append shards and the rows of their images, part by part; a single writer. Of the images only a few parts are in
    memory together.

    ``rows.shard`` counts from the first shard of the store. ``shards/done`` is written last and says how far the
    index counts: an append that was killed leaves nothing behind and may be repeated. ``rejected`` is counted here.

    Raises:
        SchemaMismatch: the rows do not belong to these shards, in order.
    """
    arrays = declare(group, index_specs(), sealed=True)
    row, first = image_count(group), shard_count(group)
    tables: list[ShardRows] = []
    for rows, shards in _chunkfuls(parts):
        before = first + sum(len(table) for table in tables)
        expected = np.repeat(np.arange(before, before + len(shards)), shards.images)
        if not np.array_equal(rows.shard, expected):
            raise SchemaMismatch(
                f"{len(rows)} rows of the index are not those of shards {before} to {before + len(shards) - 1} "
                f"with {shards.images.tolist()} images; append each shard with all its rows, in order"
            )
        _grow_all(arrays, "index", row, rows)
        row += len(rows)
        rejected = np.bincount(rows.shard[~np.isin(rows.status, USED)] - before, minlength=len(shards))
        tables.append(replace(shards, rejected=rejected.astype(np.int64)))
    table = ShardRows.concat(tables)
    table = replace(table, url=np.asarray([safe_url(str(url)) for url in table.url], TEXT))
    _grow_all(arrays, "shards", first, table)
    grow(arrays["shards/done"], first, np.ones(len(table), np.uint8))


def _grow_all(arrays: Mapping[str, zarr.Array[Any]], folder: str, start: int, rows: Rows) -> None:
    columns = rows.columns()
    together(lambda name: grow(arrays[f"{folder}/{name}"], start, columns[name]), columns)


def _chunkfuls(parts: Iterable[tuple[SampleRows, ShardRows]]) -> Iterator[tuple[SampleRows, ShardRows]]:
    """The parts joined until they fill a chunk of the index: each write of less reads and writes the last one again."""
    waiting: list[tuple[SampleRows, ShardRows]] = []
    for part in parts:
        waiting.append(part)
        if sum(len(rows) for rows, _ in waiting) >= GROWING_CHUNK:
            yield _joined(waiting)
            waiting = []
    yield _joined(waiting)


def _joined(parts: Sequence[tuple[SampleRows, ShardRows]]) -> tuple[SampleRows, ShardRows]:
    return SampleRows.concat([rows for rows, _ in parts]), ShardRows.concat([shards for _, shards in parts])


def read_columns(
    group: zarr.Group, images: Int64[np.ndarray, "image"], names: Sequence[str]
) -> dict[str, Shaped[np.ndarray, "image"]]:
    """Columns of the index by name at the rows ``images``, in any order; only chunks that hold one of them are read.

    Raises:
        SchemaMismatch: there is no index, or it has no such image.
    """
    count = image_count(group)
    if images.size and not (images.min() >= 0 and images.max() < count):
        raise SchemaMismatch(
            f"images {images.min()} to {images.max()} were asked of an index that has 0 to {count - 1}; ask for images "
            "of this store"
        )
    read = together(lambda name: read_rows(array_at(group, f"index/{name}"), images), names)
    return dict(zip(names, read, strict=True))


def read_index(group: zarr.Group) -> SampleRows:
    """All rows of the shards that are done; raises SchemaMismatch where there is no index."""
    return SampleRows.read(group, "index", image_count(group))


def read_shards(group: zarr.Group) -> ShardRows:
    """The shards that are done; raises SchemaMismatch where there is no index."""
    return ShardRows.read(group, "shards", shard_count(group))


def shard_count(group: zarr.Group) -> int:
    """How many shards are done; raises SchemaMismatch where there is no index."""
    done = np.asarray(array_at(group, "shards/done")[:])
    return int(done.argmin()) if not done.all() else len(done)


def image_count(group: zarr.Group) -> int:
    """How many images the shards have that are done; raises SchemaMismatch where there is no index."""
    return int(np.asarray(array_at(group, "shards/images")[: shard_count(group)]).sum())
