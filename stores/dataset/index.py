"""The sample index: one row per image seen, and what was read from each shard.

An image id is a position in the index: shards in the order they were read (sorted by name), rows in the order of
the tar.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import zarr
from jaxtyping import Int32, Int64, Shaped, UInt8, UInt32

from stores.arrays.provenance import ShardIdentity
from stores.arrays.schema import ArraySpec, array_at, declare, grow
from stores.errors import STATUS_MEANINGS as STATUS_MEANINGS
from stores.errors import USED as USED
from stores.errors import SchemaMismatch
from stores.errors import Status as Status
from stores.files import safe_url

NO_LABEL = -1
TEXT = np.dtypes.StringDType()


@dataclass(frozen=True)
class SampleRows:
    """Columns of the index, one row per image seen.

    ``shard`` is the position in ``ShardRows``; ``offset`` and ``size`` are the image's bytes in its tar, and
    ``checksum`` is their CRC-32 (0 where they were not read); ``label`` is −1 where unknown; ``key`` is text;
    ``status`` is a ``Status``.
    """

    shard: Int32[np.ndarray, "image"]
    offset: Int64[np.ndarray, "image"]
    size: Int64[np.ndarray, "image"]
    label: Int32[np.ndarray, "image"]
    key: Shaped[np.ndarray, "image"]
    status: UInt8[np.ndarray, "image"]
    checksum: UInt32[np.ndarray, "image"]

    def __len__(self) -> int:
        return int(self.shard.shape[0])

    @staticmethod
    def empty() -> "SampleRows":
        """No rows; the identity of ``concat``."""
        return SampleRows(**{name: np.empty(0, dtype) for name, dtype in _SAMPLE_TYPES.items()})

    @staticmethod
    def from_columns(columns: dict[str, Any]) -> "SampleRows":
        """From sequences by column name, in any type that converts."""
        return SampleRows(**{name: np.asarray(columns[name], dtype) for name, dtype in _SAMPLE_TYPES.items()})

    @staticmethod
    def concat(parts: Sequence["SampleRows"]) -> "SampleRows":
        """The rows of all parts, in order."""
        return SampleRows(**_joined(parts, _SAMPLE_TYPES))

    def columns(self) -> dict[str, Shaped[np.ndarray, "image"]]:
        """The columns by name, as ``partials.write_arrays`` takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class ShardRows:
    """Columns of ``shards``, one row per shard.

    ``size`` and ``digest`` are of the tar's bytes; ``images`` counts its rows of the index, ``rejected`` those of
    them that were not used; ``short`` says why a shard ends too early and is empty for a whole one.
    """

    name: Shaped[np.ndarray, "shard"]
    url: Shaped[np.ndarray, "shard"]
    size: Int64[np.ndarray, "shard"]
    images: Int64[np.ndarray, "shard"]
    rejected: Int64[np.ndarray, "shard"]
    digest: Shaped[np.ndarray, "shard"]
    short: Shaped[np.ndarray, "shard"]

    def __len__(self) -> int:
        return int(self.name.shape[0])

    @staticmethod
    def empty() -> "ShardRows":
        """No rows; the identity of ``concat``."""
        return ShardRows(**{name: np.empty(0, dtype) for name, dtype in _SHARD_TYPES.items()})

    @staticmethod
    def from_columns(columns: dict[str, Any]) -> "ShardRows":
        """From sequences by column name, in any type that converts."""
        return ShardRows(**{name: np.asarray(columns[name], dtype) for name, dtype in _SHARD_TYPES.items()})

    @staticmethod
    def concat(parts: Sequence["ShardRows"]) -> "ShardRows":
        """The rows of all parts, in order."""
        return ShardRows(**_joined(parts, _SHARD_TYPES))

    def columns(self) -> dict[str, Shaped[np.ndarray, "shard"]]:
        """The columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def identities(self) -> list[ShardIdentity]:
        """What the dataset's fingerprint is made of."""
        return [
            ShardIdentity(str(name), int(size), int(images), str(digest))
            for name, size, images, digest in zip(self.name, self.size, self.images, self.digest, strict=True)
        ]


_SAMPLE_TYPES: dict[str, Any] = {
    "shard": np.int32,
    "offset": np.int64,
    "size": np.int64,
    "label": np.int32,
    "key": TEXT,
    "status": np.uint8,
    "checksum": np.uint32,
}
_SHARD_TYPES: dict[str, Any] = {
    "name": TEXT,
    "url": TEXT,
    "size": np.int64,
    "images": np.int64,
    "rejected": np.int64,
    "digest": TEXT,
    "short": TEXT,
}


def index_specs() -> list[ArraySpec]:
    """Arrays of ``index/`` and ``shards/``, empty and growing."""
    statuses = ", ".join(f"{status.value} {meaning}" for status, meaning in STATUS_MEANINGS.items())
    samples: dict[str, tuple[str, str, str, int | str]] = {
        "shard": ("int32", "position of the image's shard in shards/", "", 0),
        "offset": ("int64", "first byte of the image in its tar", "byte", 0),
        "size": ("int64", "length of the image in its tar", "byte", 0),
        "label": ("int32", "class number, -1 where unknown", "", NO_LABEL),
        "key": ("str", "key of the sample in its shard", "", ""),
        "status": ("uint8", f"what became of the image: {statuses}", "", int(Status.UNSEEN)),
        "checksum": ("uint32", "CRC-32 of the image's bytes, 0 where they were not read", "", 0),
    }
    shards: dict[str, tuple[str, str, str, int | str]] = {
        "name": ("str", "base name of the tar", "", ""),
        "url": ("str", "where the tar was read from, without credentials", "", ""),
        "size": ("int64", "length of the tar", "byte", 0),
        "images": ("int64", "rows of the index from this shard", "", 0),
        "rejected": ("int64", "rows of them that were not used", "", 0),
        "digest": ("str", "digest of the tar's bytes", "", ""),
        "short": ("str", "why the tar ends too early, empty if it is whole", "", ""),
        "done": ("uint8", "1 when the rows of the shard are in the index", "", 0),
    }
    return [
        ArraySpec(f"{folder}/{name}", (axis,), (0,), dtype, meaning, units, fill, growing=True)
        for folder, axis, columns in (("index", "image", samples), ("shards", "shard", shards))
        for name, (dtype, meaning, units, fill) in columns.items()
    ]


def append_index(group: zarr.Group, rows: SampleRows, shards: ShardRows) -> None:
    """Append shards and the rows of their images; a single writer.

    ``rows.shard`` counts from the first shard of the store. ``shards/done`` is written last and says how far the
    index counts: an append that was killed leaves nothing behind and may be repeated. ``rejected`` is counted here.

    Raises:
        SchemaMismatch: the rows do not belong to these shards, in order.
    """
    declare(group, index_specs())
    known = read_shards(group)
    first_row, first_shard = int(known.images.sum()), len(known)
    expected = np.repeat(np.arange(first_shard, first_shard + len(shards)), shards.images)
    if not np.array_equal(rows.shard, expected):
        raise SchemaMismatch(
            f"{len(rows)} rows of the index are not those of shards {first_shard} to {first_shard + len(shards) - 1} "
            f"with {shards.images.tolist()} images; append each shard with all its rows, in order"
        )
    for name, column in rows.columns().items():
        grow(array_at(group, f"index/{name}"), first_row, column)
    columns = shards.columns()
    columns["url"] = np.asarray([safe_url(str(url)) for url in shards.url], TEXT)
    rejected = rows.shard[~np.isin(rows.status, USED)] - first_shard
    columns["rejected"] = np.bincount(rejected, minlength=len(shards)).astype(np.int64)
    for name, column in columns.items():
        grow(array_at(group, f"shards/{name}"), first_shard, column)
    grow(array_at(group, "shards/done"), first_shard, np.ones(len(shards), np.uint8))


def read_index(group: zarr.Group) -> SampleRows:
    """All rows of the shards that are done; raises SchemaMismatch where there is no index."""
    count = int(read_shards(group).images.sum())
    return SampleRows.from_columns({name: array_at(group, f"index/{name}")[:count] for name in _SAMPLE_TYPES})


def read_shards(group: zarr.Group) -> ShardRows:
    """The shards that are done; raises SchemaMismatch where there is no index."""
    done = np.asarray(array_at(group, "shards/done")[:])
    count = int(done.argmin()) if not done.all() else len(done)
    return ShardRows.from_columns({name: array_at(group, f"shards/{name}")[:count] for name in _SHARD_TYPES})


def _joined(parts: Sequence[Any], types: dict[str, Any]) -> dict[str, Any]:
    empty = [np.empty(0, dtype) for dtype in types.values()]
    return {
        name: np.concatenate([nothing, *(getattr(part, name) for part in parts)]).astype(dtype, copy=False)
        for (name, dtype), nothing in zip(types.items(), empty, strict=True)
    }
