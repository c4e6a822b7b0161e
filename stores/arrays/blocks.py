"""What targets and pictures share: a group whose arrays are written block by block, data first and ``done`` last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import zarr
from jaxtyping import Bool, Int64, Shaped, UInt8

from stores.arrays.opening import Mode, StoreKind, open_store
from stores.arrays.schema import ArraySpec, array_at, group_at
from stores.arrays.writing import block_length, write_block
from stores.errors import PICTURE_STATUS_MEANINGS, MisalignedBlock, PictureStatus, SchemaMismatch
from stores.together import together

DONE = "done"
STATUS = "status"
COUNT = "count"
FEW = 64
"""Flags of blocks that are read one by one, each a request, before it is asked in one whether there are any."""
FACET = "facet"
"""The axis behind ``neuron`` of what each facet of a neuron has of its own."""
STATUSES = ", ".join(f"{status.value} {meaning}" for status, meaning in PICTURE_STATUS_MEANINGS.items())


@dataclass(frozen=True)
class BlocksAt:
    """Where such a group lies; a task that runs elsewhere is told so."""

    url: str
    kind: StoreKind
    path: str

    def open(self, mode: Mode) -> Blocks:
        """The group, opened anew: it knows what other processes have declared since."""
        return Blocks(open_store(self.url, self.kind, mode), self.path)


@dataclass(frozen=True, eq=False)
class Blocks:
    """The group at ``path`` of a store. Its arrays along ``neuron`` are cut into blocks; a task writes whole ones.

    ``status`` says of each neuron what became of it, ``done`` of each block that it is written. A neuron whose block is
    not written reads as not made.
    """

    root: zarr.Group
    path: str
    beside: ClassVar[tuple[str, ...]] = ()
    """How paths begin of what is along ``neuron``, too, but not written in blocks."""
    _found: dict[str, zarr.Array[Any]] = field(default_factory=dict, init=False, repr=False)
    """The arrays that were asked for, by relative path."""

    @property
    def group(self) -> zarr.Group:
        """The group itself; raises SchemaMismatch where nothing was declared."""
        return group_at(self.root, self.path)

    @property
    def always(self) -> tuple[str, ...]:
        """What such a group has along ``neuron`` for certain, by relative path. The first has a row for every facet,
        where neurons have several."""
        return (STATUS,)

    @property
    def declared(self) -> bool:
        """Whether the arrays are there: a run that is killed early leaves a group without ``done``."""
        return f"{self.path}/{DONE}" in self.root

    @property
    def count(self) -> int:
        """Neurons of the whole layer."""
        return int(self.array(STATUS).shape[0])

    def array(self, name: str) -> zarr.Array[Any]:
        """One of its arrays by relative path; raises SchemaMismatch where there is none. It is looked for until it is
        found: what it holds changes, and is read anew each time, but not what was declared of it."""
        if name not in self._found:
            self._found[name] = array_at(self.root, f"{self.path}/{name}")
        return self._found[name]

    @cached_property
    def _by_neuron(self) -> dict[str, zarr.Array[Any]]:
        # looked for once: what was declared before the tasks does not change, and each look costs requests
        arrays = _arrays_by_neuron(self.group, self.beside)
        self._found.update(arrays)
        for name in self.always:
            self.array(name)  # says so where one was removed
        return arrays

    def done(self, blocks: Sequence[int] | None = None) -> Bool[np.ndarray, "block"]:
        """Which blocks are written, of all or of some, whose flags alone are then read; raises SchemaMismatch where
        nothing was declared."""
        flags = self.array(DONE)
        asked = np.arange(flags.shape[0]) if blocks is None else np.asarray(blocks, np.int64)
        if len(asked) > FEW and not flags.nchunks_initialized:
            return np.zeros(len(asked), bool)
        done: np.ndarray = read_rows(flags, asked) == 1
        return done

    def unwritten(self, blocks: Iterable[int]) -> list[int]:
        """Those of ``blocks`` that are not written, in their order."""
        asked = list(blocks)
        return [block for block, done in zip(asked, self.done(asked), strict=True) if not done]

    def forget(self, blocks: Iterable[int]) -> None:
        """Have ``blocks`` written again; a single writer."""
        done = self.array(DONE)
        for block in blocks:
            done[block] = 0

    def decided(self, neurons: Sequence[int] | None = None) -> Bool[np.ndarray, "neuron"]:
        """Which neurons are decided: their block is written, with a result or the reason why there is none. Of all, or
        of some, whose blocks' flags alone are then read."""
        return self._decided(self.array(STATUS), neurons)

    def status(self, neurons: Sequence[int] | None = None) -> UInt8[np.ndarray, "neuron"]:
        """A `PictureStatus` for each neuron, ``NOT_MADE`` where the block is not written; of all, or of some.

        Raises:
            SchemaMismatch: nothing was declared there, or a neuron is out of range.
        """
        array = self.array(STATUS)
        decided, within = self._decided(array, neurons), self._within(array, neurons)
        status = np.full(len(within), PictureStatus.NOT_MADE, np.uint8)
        status[decided] = read_rows(array, within[decided])
        return status

    def made(self, neurons: Sequence[int] | None = None) -> Bool[np.ndarray, "neuron"]:
        """Which neurons have a result; of all, or of some."""
        made: np.ndarray = self.status(neurons) == PictureStatus.MADE
        return made

    def _decided(self, status: zarr.Array[Any], neurons: Sequence[int] | None) -> Bool[np.ndarray, "neuron"]:
        blocks, of_neuron = np.unique(self._within(status, neurons) // block_length(status), return_inverse=True)
        decided: np.ndarray = self.done(blocks.tolist())[of_neuron]
        return decided

    def neurons_of(self, block: int) -> range:
        """The neurons of a block; the last block may be shorter."""
        status = self.array(STATUS)
        return neurons_of_block(block, block_length(status), int(status.shape[0]))

    def empty(self, block: int) -> dict[str, Shaped[np.ndarray, "neuron ..."]]:
        """Zeros of every array that `write` wants for ``block``, by relative path."""
        count = len(self.neurons_of(block))
        return {name: np.zeros((count, *array.shape[1:]), array.dtype) for name, array in self._by_neuron.items()}

    def write(self, block: int, arrays: Mapping[str, Shaped[np.ndarray, "neuron ..."]]) -> None:
        """Write one block of every array along ``neuron``: the data, then ``status``, then ``done``.

        Raises:
            MisalignedBlock: an array is not exactly the block.
            SchemaMismatch: an array is missing, was not declared, or does not fit its type.
        """
        declared = self._by_neuron
        if declared.keys() != arrays.keys():
            raise SchemaMismatch(
                f"block {block} of {self.path} was given {_difference(arrays.keys() - declared.keys(), 'unknown')} and "
                f"{_difference(declared.keys() - arrays.keys(), 'missing')}; write all declared arrays of a block "
                "together"
            )
        done = self.array(DONE)
        if not 0 <= block < done.shape[0]:
            raise MisalignedBlock(
                f"{self.path} has blocks 0 to {done.shape[0] - 1} but block {block} was given; count from 0"
            )

        def put(name: str) -> None:
            write_block(declared[name], block, np.asarray(arrays[name]))

        together(put, sorted(declared.keys() - {STATUS}))
        put(STATUS)
        write_block(done, block, np.ones(1, np.uint8))

    def rows(
        self, neurons: Sequence[int], names: Sequence[str] | None = None, facets: Sequence[int] | None = None
    ) -> dict[str, Shaped[np.ndarray, "neuron ..."]]:
        """The rows of ``neurons``, in that order, by relative path: of every array along ``neuron``, or of those that
        are named. Of what facets have of their own, that of one facet of each neuron, the first unless ``facets`` says
        which; a neuron may be given for each of its facets.

        Raises:
            SchemaMismatch: such an array was not declared, or a neuron is out of range.
        """
        arrays = self._by_neuron if names is None else dict(zip(names, together(self.array, names), strict=True))
        read = together(lambda array: read_rows(array, self._within(array, neurons)), arrays.values())
        rows = dict(zip(arrays, read, strict=True))
        asked = np.zeros(len(neurons), np.int64) if facets is None else np.asarray(facets, np.int64)
        return {
            name: values[np.arange(len(asked)), asked] if by_facet(arrays[name]) else values
            for name, values in rows.items()
        }

    @cached_property  # looked for once, as they are
    def most_facets(self) -> int:
        """How many facets a neuron has at most: 1 where its references were not grouped."""
        return int(self.array(COUNT).shape[1]) if by_facet(self.array(self.always[0])) else 1

    def facets(self, neurons: Sequence[int] | None = None) -> Int64[np.ndarray, "neuron"]:
        """How many facets each neuron has; of all, or of some. One that is not made has one, too."""
        array = self.array(STATUS)
        within = self._within(array, neurons)
        if self.most_facets == 1:
            return np.ones(len(within), np.int64)
        counts = (read_rows(self.array(COUNT), within) > 0).sum(1)
        facets: np.ndarray = np.maximum(counts * self._decided(array, neurons), 1)
        return facets

    def require_facet(self, neuron: int, facet: int) -> int:
        """How many facets a neuron has; raises SchemaMismatch where ``facet``, counted from 0, is none of them."""
        count = int(self.facets([neuron])[0])
        if not 0 <= facet < count:
            raise SchemaMismatch(
                f"facet {facet} of neuron {neuron} was asked of {self.path}, where it has {count}, counted from 0: "
                f"ask for {'0' if count == 1 else f'0 to {count - 1}'}"
            )
        return count

    def facets_in_words(self) -> str:
        """How many neurons have several facets, to be added to a line on them; empty where none was looked for any."""
        if self.most_facets == 1:
            return ""
        counts = self.facets()
        several = ", ".join(
            f"{int((counts == count).sum())} with {count} facets" for count in np.unique(counts[counts > 1])
        )
        return f", {several or 'none with several facets'}"

    def _within(self, array: zarr.Array[Any], neurons: Sequence[int] | None) -> Int64[np.ndarray, "neuron"]:
        """The rows of ``array`` that are asked for, all of them for None; refused where one is out of range."""
        count = int(array.shape[0])
        if neurons is None:
            return np.arange(count)
        wanted = np.asarray(neurons, np.int64).reshape(-1)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < count):
            least, most = wanted.min(), wanted.max()
            asked = f"neuron {least} was" if least == most else f"neurons {least} to {most} were"
            raise SchemaMismatch(
                f"{asked} asked of {self.path}, which has 0 to {count - 1}; ask for neurons in that range"
            )
        return wanted


def block_specs(path: str, neurons: int, block: int) -> list[ArraySpec]:
    """``status`` (neuron) and ``done`` (block) of the group at ``path``."""
    blocks = -(-neurons // block)
    return [
        ArraySpec(f"{path}/{STATUS}", ("neuron",), (neurons,), "uint8", f"what became of it: {STATUSES}", block=block),
        # one chunk per block, so that two tasks never share one
        ArraySpec(f"{path}/{DONE}", ("block",), (blocks,), "uint8", "1 when the block is written", block=1),
    ]


def neurons_of_block(block: int, length: int, count: int) -> range:
    """The neurons of a block of ``length``, of ``count`` in all; the last block may be shorter."""
    return range(block * length, min((block + 1) * length, count))


def read_rows(array: zarr.Array[Any], wanted: Int64[np.ndarray, "row"]) -> Shaped[np.ndarray, "row ..."]:
    """Rows of an array in the given order. Of blocks of which most rows are wanted all are read: a block is one
    request, and each row by itself is one, too. Elsewhere a run of neighbours is read as one slice."""
    if wanted.size == 0:
        return np.empty((0, *array.shape[1:]), array.dtype)
    unique, inverse = np.unique(wanted, return_inverse=True)
    block = block_length(array)
    first, last = int(unique[0]) // block * block, (int(unique[-1]) // block + 1) * block
    if array.shards is not None and 2 * len(unique) >= last - first:
        return np.asarray(np.asarray(array[first : min(last, array.shape[0])])[wanted - first])
    if np.array_equal(wanted, np.arange(wanted[0], wanted[0] + wanted.size)):
        return np.asarray(array[int(wanted[0]) : int(wanted[0]) + wanted.size])
    return np.asarray(np.asarray(array.oindex[unique])[inverse])


def _arrays_by_neuron(parent: zarr.Group, beside: tuple[str, ...]) -> dict[str, zarr.Array[Any]]:
    """The arrays of a group that are written in blocks of neurons, by relative path."""
    # depth 1 reaches NODE/quantiles; reached/NODE/picture of an atlas is one deeper
    return {
        name: array
        for name, array in parent.members(max_depth=2)
        if isinstance(array, zarr.Array) and _axes(array)[:1] == ("neuron",) and not name.startswith(beside)
    }


def by_facet(array: zarr.Array[Any]) -> bool:
    """Whether an array has a row for every facet of a neuron."""
    return _axes(array)[1:2] == (FACET,)


def _axes(array: zarr.Array[Any]) -> tuple[str | None, ...]:
    return tuple(getattr(array.metadata, "dimension_names", None) or ())


def _difference(names: set[str], what: str) -> str:
    return f"{what} {', '.join(sorted(names))}" if names else f"nothing {what}"
