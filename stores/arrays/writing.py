"""Values into declared arrays: whole blocks by many tasks, whole arrays or rows at the end by one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped

from stores.arrays.schema import ArraySpec, declare
from stores.errors import MisalignedBlock, SchemaMismatch
from stores.together import together


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


def _is_nothing(values: Any) -> bool:
    """Whether all are zero, and none is the negative one."""
    values = np.asarray(values)
    return values.dtype.kind in "biuf" and not (values.any() or (values.dtype.kind == "f" and np.signbit(values).any()))
