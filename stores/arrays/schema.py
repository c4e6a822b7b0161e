"""Arrays as declared data.

An ``ArraySpec`` says everything that stands in an array's metadata. Metadata is written once, by ``declare``,
before any task runs; afterwards tasks write whole blocks only (`stores.arrays.writing`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.errors import ContainsArrayError, ContainsGroupError

from stores.arrays.opening import COPY, memory_group, undamaged
from stores.errors import SchemaMismatch, UnreadableStore
from stores.together import together

GROWING_CHUNK = 65536
FEW_CHUNK = 1024
CHUNK_BYTES = 1 << 20
"""Of an array with a single writer: a task reads a whole chunk for a few rows of it."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    ``block=n``: the first axis is written in whole blocks of ``n`` rows by different tasks, so a Zarr shard is
    ``(n, …rest)`` and its inner chunks are single rows, which makes reading one neuron cheap. Without ``block``
    there is a single writer. ``growing``: the first axis is appended to; its length in ``shape`` is the length at
    creation. ``few``: it will be short, and lies in small chunks: text is read and written as if a chunk were full.
    """

    path: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    meaning: str
    units: str = ""
    fill: int | float | str = 0
    block: int | None = None
    growing: bool = False
    few: bool = False

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise SchemaMismatch(f"{self.path} has axes {self.axes} but shape {self.shape}; name every axis once")
        if self.block is not None and (self.block < 1 or not self.shape or self.growing):
            raise SchemaMismatch(
                f"{self.path} has blocks of {self.block}; a block needs at least one row of an axis that does not grow"
            )


def declare(group: zarr.Group, specs: Iterable[ArraySpec], *, sealed: bool = False) -> dict[str, zarr.Array[Any]]:
    """Create the arrays and the groups above them, and give the arrays by path; what exists already and agrees is left
    alone. The groups come first, then the arrays together, then the last of them: who finds it finds the others, too.
    Where these are always declared together, ``sealed``, one that lacks beside the last was removed: made anew it would
    be empty, and taken for what was written.

    Raises:
        SchemaMismatch: an array exists with another shape, type, block or other axes.
        UnreadableStore: one was removed.
    """
    every = {spec.path: spec for spec in specs}
    if sealed and _member(group, list(every)[-1]) is not None:  # asked first: another run may just be creating them
        there = _members(group, list(every))
        agreeing = {path: _agreeing(group, one, every[path]) for path, one in there.items()}
        if gone := [path for path in every if path not in there]:
            raise UnreadableStore(f"{_path_in(group, gone[0])} is gone from the store: {COPY}")
        return agreeing
    parents = sorted({parent for path in every if (parent := str(PurePosixPath(path).parent)) != "."})
    above = _members(group, parents)
    _create_all(group, {parent: memory_group().metadata for parent in parents if parent not in above})
    asked = [path for path in every if str(PurePosixPath(path).parent) in {*above, "."}]
    made = _members(group, asked)
    missing = {path: _metadata(spec) for path, spec in every.items() if path not in made}
    for part in (list(missing)[:-1], list(missing)[-1:]):
        made |= _create_all(group, {path: missing[path] for path in part})
    return {path: _agreeing(group, made[path], spec) for path, spec in every.items()}


def array_at(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """The array at ``path``; raises SchemaMismatch where there is none, UnreadableStore where it is damaged."""
    member = _member(group, path)
    if not isinstance(member, zarr.Array):
        raise _lacking(group, path)
    return member


def group_at(group: zarr.Group, path: str) -> zarr.Group:
    """The group at ``path``; raises SchemaMismatch where there is none, UnreadableStore where it is damaged."""
    member = _member(group, path)
    if not isinstance(member, zarr.Group):
        raise _lacking(group, path)
    return member


def _lacking(group: zarr.Group, path: str) -> SchemaMismatch:
    where = _path_in(group, path)
    return SchemaMismatch(
        f"{where} is not in this store; run the step that writes it first, or if that has run, {COPY}"
    )


def _member(group: zarr.Group, path: str) -> zarr.Array[Any] | zarr.Group | None:
    with undamaged(f"{group.store_path}/{path}"):
        return group.get(path)


def _members(group: zarr.Group, paths: Sequence[str]) -> dict[str, zarr.Array[Any] | zarr.Group]:
    """Those of ``paths`` that are there, asked for together."""
    found = zip(paths, together(partial(_member, group), paths), strict=True)
    return {path: member for path, member in found if member is not None}


def _create_all(group: zarr.Group, nodes: Mapping[str, Any]) -> dict[str, zarr.Array[Any] | zarr.Group]:
    """Groups or arrays by path, created together; those that another run has created in the meantime are its own."""
    if not nodes:
        return {}
    try:
        made = dict(group.create_hierarchy(dict(nodes)))
        return {path: made[path] for path in nodes}
    except (ContainsArrayError, ContainsGroupError):
        if len(nodes) == 1:
            return {path: group[path] for path in nodes}
        return {path: one for name in nodes for path, one in _create_all(group, {name: nodes[name]}).items()}


def _agreeing(group: zarr.Group, existing: zarr.Array[Any] | zarr.Group, spec: ArraySpec) -> zarr.Array[Any]:
    if not isinstance(existing, zarr.Array):
        raise SchemaMismatch(f"{_path_in(group, spec.path)} is a group but should be an array; use a new store")
    _check_array(existing, spec)
    return existing


def _metadata(spec: ArraySpec) -> Any:
    """What Zarr writes of an array; attributes of its own, which Zarr changes in place."""
    kept = _kept_metadata(spec, *_layout(spec))
    return kept.update_attributes(dict(kept.attributes))


@lru_cache(maxsize=4096)
def _kept_metadata(spec: ArraySpec, chunks: tuple[int, ...], shards: tuple[int, ...] | None) -> Any:
    """Found by Zarr itself, in memory: it takes a millisecond, and each partial of a pass has the same arrays."""
    attributes: dict[str, Any] = {"long_name": spec.meaning, "meaning": spec.meaning}
    if spec.units:
        attributes["units"] = spec.units
    made = memory_group().create_array(
        spec.path,
        shape=spec.shape,
        dtype=str if spec.dtype == "str" else spec.dtype,
        chunks=chunks,
        shards=shards,
        fill_value="" if spec.dtype == "str" and spec.fill == 0 else spec.fill,
        # shuffled bytes of sorted rows compress well; everything else is integers, pixels or text. Either way what a
        # disk has changed is found when it is read
        compressors=(BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec())
        if spec.dtype.startswith("float")
        else ZstdCodec(level=3, checksum=True),
        dimension_names=spec.axes,
        attributes=attributes,
    )
    return made.metadata


def _layout(spec: ArraySpec) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Inner chunks and Zarr shards."""
    rest = tuple(max(1, length) for length in spec.shape[1:])
    if not spec.shape:
        return (), None
    if spec.block is not None:
        # one number per row: a chunk of its own for each would be larger than what it holds
        if not rest or spec.block == 1:
            return (spec.block, *rest), None
        return (1, *rest), (spec.block, *rest)
    if spec.growing:
        return (FEW_CHUNK if spec.few else GROWING_CHUNK, *rest), None
    itemsize = 16 if spec.dtype == "str" else np.dtype(spec.dtype).itemsize
    rows = max(1, CHUNK_BYTES // (itemsize * int(np.prod(rest))))
    # a power of two: the rows of a block never lie in two chunks
    return (max(1, min(1 << rows.bit_length() - 1, spec.shape[0])), *rest), None


def _check_array(array: zarr.Array[Any], spec: ArraySpec) -> None:
    dtype = "str" if array.dtype.kind in "TO" else str(array.dtype)
    first = 1 if spec.growing else 0
    comparisons: list[tuple[str, Any, Any]] = [
        ("shape", array.shape[first:], spec.shape[first:]),
        ("type", dtype, "str" if spec.dtype == "str" else str(np.dtype(spec.dtype))),
        ("axes", getattr(array.metadata, "dimension_names", None), spec.axes),
    ]
    if not spec.growing:  # its chunks are nobody's blocks
        chunks, shards = _layout(spec)
        comparisons.append(("block", (array.shards or array.chunks)[:1], (shards or chunks)[:1]))
    for what, existing, expected in comparisons:
        # a rank-0 array has no axes to name
        if existing != expected and (existing or expected):
            raise SchemaMismatch(
                f"{array.path} exists with {what} {existing} but {expected} was asked for; repeat the settings it was "
                "made with, or use a new store"
            )


def _path_in(group: zarr.Group, path: str) -> str:
    return f"{group.path}/{path}".lstrip("/")
