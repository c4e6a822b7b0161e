"""What targets and pictures share: a group whose arrays are written block by block, data first and ``done`` last."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Int64, Shaped

from stores.arrays.schema import ArraySpec, array_at, group_at, write_block
from stores.errors import PICTURE_STATUS_MEANINGS, MisalignedBlock, SchemaMismatch

DONE = "done"
STATUS = "status"
STATUSES = ", ".join(f"{status.value} {meaning}" for status, meaning in PICTURE_STATUS_MEANINGS.items())


def block_specs(path: str, neurons: int, block: int) -> list[ArraySpec]:
    """``status`` (neuron) and ``done`` (block) of the group at ``path``."""
    blocks = -(-neurons // block)
    return [
        ArraySpec(f"{path}/{STATUS}", ("neuron",), (neurons,), "uint8", f"what became of it: {STATUSES}", block=block),
        # one chunk per block, so that two tasks never share one
        ArraySpec(f"{path}/{DONE}", ("block",), (blocks,), "uint8", "1 when the block is written", block=1),
    ]


def write_done_block(group: zarr.Group, path: str, block: int, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write one block of every array along ``neuron`` below ``path``: the data, then ``status``, then ``done``.

    Raises:
        MisalignedBlock: an array is not exactly the block.
        SchemaMismatch: an array is missing or was not declared.
    """
    parent = group_at(group, path)
    declared = _arrays_by_neuron(parent)
    if declared.keys() != arrays.keys():
        raise SchemaMismatch(
            f"block {block} of {path} was given {_difference(arrays.keys() - declared.keys(), 'unknown')} and "
            f"{_difference(declared.keys() - arrays.keys(), 'missing')}; write all declared arrays of a block together"
        )
    done = array_at(parent, DONE)
    if not 0 <= block < done.shape[0]:
        raise MisalignedBlock(f"{path} has blocks 0 to {done.shape[0] - 1} but block {block} was given; count from 0")
    for name in sorted(declared, key=lambda name: (name == STATUS, name)):
        write_block(declared[name], block, np.asarray(arrays[name]))
    write_block(done, block, np.ones(1, np.uint8))


def empty_rows(group: zarr.Group, path: str, count: int) -> dict[str, Shaped[np.ndarray, "neuron ..."]]:
    """``count`` rows of zeros of every array that `write_done_block` wants, by relative path."""
    arrays = _arrays_by_neuron(group_at(group, path))
    return {name: np.zeros((count, *array.shape[1:]), array.dtype) for name, array in arrays.items()}


def read_rows(group: zarr.Group, path: str, neurons: Sequence[int]) -> dict[str, Shaped[np.ndarray, "neuron ..."]]:
    """The rows of ``neurons``, in that order, of every array along ``neuron`` below ``path``, by relative path.

    Raises:
        SchemaMismatch: nothing was declared there, or a neuron is out of range.
    """
    arrays = _arrays_by_neuron(group_at(group, path))
    wanted = np.asarray(neurons, np.int64).reshape(-1)
    for array in arrays.values():
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < array.shape[0]):
            raise SchemaMismatch(
                f"neurons {wanted.min()} to {wanted.max()} were asked of {path}, which has 0 to {array.shape[0] - 1}; "
                "ask for neurons in that range"
            )
    return {name: rows_of(array, wanted) for name, array in arrays.items()}


def rows_of(array: zarr.Array[Any], wanted: Int64[np.ndarray, "row"]) -> Shaped[np.ndarray, "row ..."]:
    """Rows of an array in the given order; a run of neighbours is read as one slice."""
    if wanted.size == 0:
        return np.empty((0, *array.shape[1:]), array.dtype)
    if np.array_equal(wanted, np.arange(wanted[0], wanted[0] + wanted.size)):
        return np.asarray(array[int(wanted[0]) : int(wanted[0]) + wanted.size])
    unique, inverse = np.unique(wanted, return_inverse=True)
    return np.asarray(np.asarray(array.oindex[unique])[inverse])


def done_flags(group: zarr.Group, path: str) -> Bool[np.ndarray, "block"]:
    """Which blocks below ``path`` are written; raises SchemaMismatch where nothing was declared."""
    return np.equal(array_at(group, f"{path}/{DONE}")[:], 1)


def _arrays_by_neuron(parent: zarr.Group) -> dict[str, zarr.Array[Any]]:
    # depth 1 reaches NODE/quantiles; reached/NODE/picture of an atlas is one deeper
    return {
        name: array
        for name, array in parent.members(max_depth=2)
        if isinstance(array, zarr.Array) and _axes(array)[:1] == ("neuron",) and not name.startswith("metrics/")
    }


def _axes(array: zarr.Array[Any]) -> tuple[str | None, ...]:
    return tuple(getattr(array.metadata, "dimension_names", None) or ())


def _difference(names: set[str], what: str) -> str:
    return f"{what} {', '.join(sorted(names))}" if names else f"nothing {what}"
