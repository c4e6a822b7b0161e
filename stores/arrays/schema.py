"""Arrays as declared data, and the stores that hold them.

An ``ArraySpec`` says everything that stands in an array's metadata. Metadata is written once, by ``declare``,
before any task runs; afterwards tasks write whole blocks only (``write_block``).
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.errors import ContainsArrayError, ContainsGroupError, GroupNotFoundError
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from stores.errors import MisalignedBlock, MissingStore, SchemaMismatch
from stores.files import MEMORY, local_path, safe_url
from stores.together import together

StoreKind = Literal["statistics", "atlas"]
SCHEMA_VERSIONS: Mapping[StoreKind, int] = {"statistics": 4, "atlas": 2}
"""Of each kind; raised when a store of the version before cannot be read any more."""
Mode = Literal["r", "r+", "a"]
GROWING_CHUNK = 65536
CHUNK_BYTES = 1 << 20
"""Of an array with a single writer: a task reads a whole chunk for a few rows of it."""

ROWS_TOGETHER = 64
"""Of a Zarr shard that are compressed, and read, together: Zarr's default is one, which takes twice the time."""

if zarr.config.get("codec_pipeline.batch_size") == 1:  # what the user has set stays
    zarr.config.set({"codec_pipeline.batch_size": ROWS_TOGETHER})

_memory_stores: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    ``block=n``: the first axis is written in whole blocks of ``n`` rows by different tasks, so a Zarr shard is
    ``(n, …rest)`` and its inner chunks are single rows, which makes reading one neuron cheap. Without ``block``
    there is a single writer. ``growing``: the first axis is appended to; its length in ``shape`` is the length at
    creation.
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

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise SchemaMismatch(f"{self.path} has axes {self.axes} but shape {self.shape}; name every axis once")
        if self.block is not None and (self.block < 1 or not self.shape or self.growing):
            raise SchemaMismatch(
                f"{self.path} has blocks of {self.block}; a block needs at least one row of an axis that does not grow"
            )


def open_store(url: str, kind: StoreKind, mode: Mode) -> zarr.Group:
    """Root group of the store at ``url``: to read it ("r"), to write into one that exists ("r+"), or to write and make
    it where it is missing ("a").

    ``url`` is a local path, ``memory://NAME`` (one store per name, in this process only) or any URL that fsspec opens.

    Raises:
        MissingStore: nothing is there, and mode is not "a".
        SchemaMismatch: another kind of store, another schema version, or no store of ours.
    """
    missing = MissingStore(f"there is no {kind} store at {safe_url(url)}; check the URL, or make the store first")
    path = local_path(url)
    # a local store makes its folder when it is opened to write
    if mode == "r+" and path is not None and not path.is_dir():
        raise missing
    if mode == "a" and path is not None and not _is_group(path) and (around := store_around(path)) is not None:
        raise SchemaMismatch(
            f"{url} lies inside the store at {around}, whose parts it would be taken for: give a path outside"
        )
    store = _backend(url, read_only=mode == "r")
    try:
        root = zarr.open_group(store, mode="r" if mode == "r" else "r+", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, GroupNotFoundError, ContainsArrayError):
        if mode != "a":
            raise missing from None
        root = zarr.open_group(
            store,
            mode="a",
            zarr_format=3,
            use_consolidated=False,
            attributes={"kind": kind, "schema_version": SCHEMA_VERSIONS[kind], "written_by": "vital-atlas"},
        )
        # a plain folder in a Zarr hierarchy makes every reader warn, an empty group does not
        root.require_group("runs")
    _check_root(root, kind, url)
    return root


def store_around(path: Path) -> Path | None:
    """The local store that a path lies in, or is; none where there is none."""
    path = path.absolute()
    return next((one for one in (path, *path.parents) if _is_group(one) and stored_kind(str(one))), None)


def _is_group(folder: Path) -> bool:
    return (folder / "zarr.json").is_file()


def memory_group() -> zarr.Group:
    """An empty group in this process's memory, gone with the last that holds it."""
    return zarr.create_group(MemoryStore(), zarr_format=3)


def stored_kind(url: str) -> str | None:
    """Which kind of store lies at ``url``, as it says itself; None where there is none of ours."""
    try:
        root = zarr.open_group(_backend(url, read_only=True), mode="r", zarr_format=3, use_consolidated=False)
    except (FileNotFoundError, GroupNotFoundError, ContainsArrayError):
        return None
    kind = root.attrs.get("kind")
    return kind if isinstance(kind, str) else None


def declare(group: zarr.Group, specs: Iterable[ArraySpec]) -> dict[str, zarr.Array[Any]]:
    """Create the arrays and the groups above them, and give the arrays by path; what exists already and agrees is left
    alone. The groups come first, then the arrays together, then the last of them: who finds it finds the others, too.

    Raises:
        SchemaMismatch: an array exists with another shape, type, block or other axes.
    """
    every = {spec.path: spec for spec in specs}
    parents = sorted({parent for path in every if (parent := str(PurePosixPath(path).parent)) != "."})
    there = {parent for parent, found in zip(parents, together(group.get, parents), strict=True) if found is not None}
    scratch = memory_group()  # where zarr says what stands in the metadata
    _create_all(group, {parent: scratch.metadata for parent in parents if parent not in there})
    asked = [path for path in every if str(PurePosixPath(path).parent) in {*there, "."}]
    found = {path: one for path, one in zip(asked, together(group.get, asked), strict=True) if one is not None}
    missing = {path: _create(scratch, spec).metadata for path, spec in every.items() if path not in found}
    for part in (list(missing)[:-1], list(missing)[-1:]):
        found |= _create_all(group, {path: missing[path] for path in part})
    return {path: _agreeing(group, found[path], spec) for path, spec in every.items()}


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
        raise SchemaMismatch(f"{_place(group, spec.path)} is a group but should be an array; use a new store")
    _check_array(existing, spec)
    return existing


def array_at(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """The array at ``path``; raises SchemaMismatch where there is none."""
    member = group.get(path)
    if not isinstance(member, zarr.Array):
        raise SchemaMismatch(f"{_place(group, path)} is not in this store; run the step that writes it first")
    return member


def group_at(group: zarr.Group, path: str) -> zarr.Group:
    """The group at ``path``; raises SchemaMismatch where there is none."""
    member = group.get(path)
    if not isinstance(member, zarr.Group):
        raise SchemaMismatch(f"{_place(group, path)} is not in this store; run the step that writes it first")
    return member


def block_length(array: zarr.Array[Any]) -> int:
    """Rows of one block: the unit of the first axis that one task owns."""
    return int((array.shards or array.chunks)[0])


def block_count(array: zarr.Array[Any]) -> int:
    """Number of blocks; the last may be shorter."""
    return -(-array.shape[0] // block_length(array))


def write_block(array: zarr.Array[Any], block: int, rows: Shaped[np.ndarray, "row *rest"]) -> None:
    """Write the whole block ``block``; only the array's last block may be shorter.

    Raises:
        MisalignedBlock: ``rows`` is not exactly that block, so that two writers would share a Zarr shard.
        SchemaMismatch: values that the array's type cannot hold.
    """
    length = block_length(array)
    start = block * length
    expected = (min(length, array.shape[0] - start), *array.shape[1:])
    if not 0 <= block < block_count(array) or rows.shape != expected:
        raise MisalignedBlock(
            f"{array.path} was given {rows.shape} for block {block} but takes whole blocks of {length} rows, here "
            f"{expected if 0 <= block < block_count(array) else f'block 0 to {block_count(array) - 1}'}: two writers "
            "of one Zarr shard silently lose each other's rows, so give each task whole blocks"
        )
    part, cast = slice(start, start + expected[0]), fitting(array, rows)
    # Of neurons that have nothing Zarr would keep nothing, but compresses and compares row by row before it knows.
    if array.shards and _is_nothing(cast) and _is_nothing(np.asarray(array.fill_value)) and _is_nothing(array[part]):
        return
    array[part] = cast


def _is_nothing(values: Any) -> bool:
    """Whether all are zero, and none is the negative one."""
    values = np.asarray(values)
    return values.dtype.kind in "biuf" and not (values.any() or (values.dtype.kind == "f" and np.signbit(values).any()))


def write_all(group: zarr.Group, specs: Sequence[ArraySpec], values: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Declare arrays that have a single writer and write each whole, together; ``values`` are by path.

    Raises:
        SchemaMismatch: one has another shape or type, or exists with another.
    """
    arrays = declare(group, specs)
    together(lambda path: write_whole(arrays[path], values[path]), sorted(values))


def write_whole(array: zarr.Array[Any], values: Shaped[np.ndarray, "*shape"]) -> None:
    """Write all of an array that has a single writer; raises SchemaMismatch for another shape or type."""
    if values.shape != array.shape:
        raise SchemaMismatch(f"{array.path} was given {values.shape} but is {array.shape}; declare it with that shape")
    array[...] = fitting(array, values)


def grow(array: zarr.Array[Any], start: int, rows: Shaped[np.ndarray, "row *rest"]) -> None:
    """Make the array ``start + row`` long and write ``rows`` at its end; what stood behind ``start`` is dropped."""
    array.resize((start + rows.shape[0], *array.shape[1:]))
    if rows.shape[0]:
        array[start:] = fitting(array, rows)


def fitting(array: zarr.Array[Any], values: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """``values`` in the array's type.

    Raises:
        SchemaMismatch: the types do not go together, or a finite value would become infinite (float16 ends at 65504).
    """
    if not np.can_cast(values.dtype, array.dtype, casting="same_kind"):
        raise SchemaMismatch(f"{array.path} was given {values.dtype} but holds {array.dtype}; convert it first")
    # the check below says more than NumPy's warning
    with np.errstate(over="ignore"):
        cast = values.astype(array.dtype, copy=False)
    if array.dtype.kind == "f" and array.dtype.itemsize < values.dtype.itemsize:
        lost = np.isfinite(values) & ~np.isfinite(cast)
        if lost.any():
            raise SchemaMismatch(
                f"{array.path} was given {values[lost].flat[0]:g}, which {array.dtype} cannot hold; store it as float32"
            )
    elif array.dtype.kind in "iu" and cast is not values and not np.array_equal(cast, values):
        raise SchemaMismatch(f"{array.path} was given values beyond {array.dtype}; store them in a larger type")
    return cast


def _backend(url: str, read_only: bool) -> Store:
    if url.startswith(MEMORY):
        with _memory_lock:
            store = _memory_stores.setdefault(url.removeprefix(MEMORY).strip("/"), MemoryStore())
        return store.with_read_only(read_only)
    if (path := local_path(url)) is not None:
        return LocalStore(path, read_only=read_only)
    # a cached listing would hide what another process has declared since
    options = {"asynchronous": True, "use_listings_cache": False}
    try:
        return FsspecStore.from_url(url, storage_options=options, read_only=read_only)
    except (ImportError, ValueError) as error:
        raise MissingStore(
            f"{safe_url(url)} cannot be opened ({error}); install what it needs, or use a path"
        ) from None


def _check_root(root: zarr.Group, kind: StoreKind, url: str) -> None:
    stored, version = root.attrs.get("kind"), root.attrs.get("schema_version")
    if stored != kind:
        raise SchemaMismatch(
            f"{safe_url(url)} is {'no store of this project' if stored is None else f'of kind {stored}'} but a "
            f"store of kind {kind} was expected; give another URL"
        )
    if version != SCHEMA_VERSIONS[kind]:
        raise SchemaMismatch(
            f"{safe_url(url)} has schema version {version} but this program reads version {SCHEMA_VERSIONS[kind]}; "
            "make the store anew, or use the version of the program that wrote it"
        )


def _create(group: zarr.Group, spec: ArraySpec) -> zarr.Array[Any]:
    chunks, shards = _layout(spec)
    attributes: dict[str, Any] = {"long_name": spec.meaning, "meaning": spec.meaning}
    if spec.units:
        attributes["units"] = spec.units
    return group.create_array(
        spec.path,
        shape=spec.shape,
        dtype=str if spec.dtype == "str" else spec.dtype,
        chunks=chunks,
        shards=shards,
        fill_value="" if spec.dtype == "str" and spec.fill == 0 else spec.fill,
        # shuffled bytes of sorted rows compress well; everything else is integers, pixels or text
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
        if spec.dtype.startswith("float")
        else ZstdCodec(level=3),
        dimension_names=spec.axes,
        attributes=attributes,
    )


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
        return (GROWING_CHUNK, *rest), None
    itemsize = 16 if spec.dtype == "str" else np.dtype(spec.dtype).itemsize
    rows = max(1, CHUNK_BYTES // (itemsize * int(np.prod(rest))))
    # a power of two: the rows of a block never lie in two chunks
    return (max(1, min(1 << rows.bit_length() - 1, spec.shape[0])), *rest), None


def _check_array(array: zarr.Array[Any], spec: ArraySpec) -> None:
    chunks, shards = _layout(spec)
    dtype = "str" if array.dtype.kind in "TO" else str(array.dtype)
    first = 1 if spec.growing else 0
    comparisons = (
        ("shape", array.shape[first:], spec.shape[first:]),
        ("type", dtype, "str" if spec.dtype == "str" else str(np.dtype(spec.dtype))),
        ("axes", getattr(array.metadata, "dimension_names", None), spec.axes),
        ("block", (array.shards or array.chunks)[:1], (shards or chunks)[:1]),
    )
    for what, existing, expected in comparisons:
        # a rank-0 array has no axes to name
        if existing != expected and (existing or expected):
            raise SchemaMismatch(
                f"{array.path} exists with {what} {existing} but {expected} was asked for; repeat the settings it was "
                "made with, or use a new store"
            )


def _place(group: zarr.Group, path: str) -> str:
    return f"{group.path}/{path}".lstrip("/")
