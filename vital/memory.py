"""What does not fit into memory: how a library says so, and work that is then done in smaller pieces. And what a
process does with memory that it frees."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from vital.errors import DoesNotFit

logger = logging.getLogger(__name__)
T = TypeVar("T")

NO_ROOM = re.compile(
    r"out of memory|_ALLOC_FAILED|_ALLOCATION_FAILED|_STATUS_NOT_INITIALIZED|MemoryAllocation|DefaultCPUAllocator", re.I
)
"""How torch, CUDA's runtime, cuBLAS, cuDNN, cuFFT, cuSOLVER and cuSPARSE say that there is no memory left. One of these
that is "not initialized" found none for what it keeps of its own, when it was first asked for."""
STATE = re.compile(r"\.? GPU \d+ has a total capacity.*")
"""What torch goes on with when it has said how much it could not get: four sentences on memory, and advice."""

DASKS = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""What Dask gives the workers that it starts: every freed 64 kB go back."""
KEPT = {"MALLOC_TRIM_THRESHOLD_": (-1, (1 << 31) - 1), "MALLOC_MMAP_THRESHOLD_": (-3, 1 << 30)}
"""What the environment calls glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; their numbers (malloc.h), and bytes, of the
former as many as can be."""


@runtime_checkable
class Resumable(Protocol):
    """Work on some things that was broken off, and can be gone on with."""

    @property
    def done(self) -> int:
        """Steps that were taken before it was broken off."""

    def take(self, rows: slice) -> Resumable:
        """The same work on the things in these ``rows`` alone."""


class RanOut(DoesNotFit):
    """Memory ran out while some things were worked on: ``why``, in the words of the library that had none. ``begun`` is
    how far they were, where that is known."""

    def __init__(self, why: str, begun: Resumable | None = None) -> None:
        super().__init__(f"memory ran out ({why}): make fewer pictures together, or smaller ones")
        self.why, self.begun = why, begun


def first_line(error: BaseException) -> str:
    """What an error says first, or what it is where it says nothing; of a lack of memory what was asked for alone."""
    return STATE.sub("", (str(error).splitlines() or [type(error).__name__])[0])


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left; libraries of CUDA say it each in its own words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError, RanOut)):
        return True
    return isinstance(error, RuntimeError) and NO_ROOM.search(str(error)) is not None


def in_batches(
    count: int, size: int, work: Callable[..., object], what: str = "picture", fixed: bool = False
) -> Iterator[slice]:
    """Do ``work(slice)`` on slices of at most ``size`` of ``count`` things, in order, and yield each when it is done.

    A slice that does not fit into memory is halved, and so are the later ones. Where `RanOut` says how far it was, it
    is gone on with by ``work(slice, begun)``; else it is begun anew. Which of the two is logged. Raises `DoesNotFit`
    where one alone does not fit, and where the size is ``fixed``.
    """
    waiting: deque[tuple[slice, Resumable | None]] = deque([(slice(0, count), None)] if count else [])
    while waiting:
        part, begun = waiting.popleft()
        together = min(size, part.stop - part.start)
        if together < part.stop - part.start:
            middle = part.start + together
            waiting.appendleft((slice(middle, part.stop), begun and begun.take(slice(together, None))))
            part, begun = slice(part.start, middle), begun and begun.take(slice(0, together))
        try:
            work(part) if begun is None else work(part, begun)
        except (MemoryError, RuntimeError, RanOut) as error:
            if not out_of_memory(error):
                raise
            why, begun = (error.why, error.begun) if isinstance(error, RanOut) else (first_line(error), None)
            then = "begun anew" if begun is None else f"gone on with from step {begun.done}"
            size = _halved(together, why, what, fixed, "take a smaller --side, or a device with more memory", then)
            waiting.appendleft((part, begun))
        else:
            yield part
        if size < together:
            _forget_freed()


def by_parts(count: int, work: Callable[[slice], T], what: str = "picture") -> list[T]:
    """What ``work`` gives of ``count`` things that do not depend on each other: of all together, or, where these do not
    fit into memory, of as many as do, part by part in order. Where torch is to be deterministic nothing is halved."""
    if not count or torch.are_deterministic_algorithms_enabled():
        return [work(slice(0, count))]
    parts: list[T] = []
    for _ in in_batches(count, count, lambda part: parts.append(work(part)), what):
        pass
    return parts


def fitting(
    size: int,
    work: Callable[[int], T],
    what: str,
    fixed: bool = False,
    way_out: str = "take a device with more memory",
) -> T:
    """``work``, told to take at most ``size`` things together. Where they do not fit into memory all of it is begun
    anew with half as many, which is logged. Raises `DoesNotFit` as `in_batches` does, with the ``way_out`` where one
    alone does not fit."""
    while True:
        try:
            return work(size)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            size = _halved(size, first_line(error), what, fixed, way_out)
        _forget_freed()


def _forget_freed() -> None:
    """Leave a smaller batch the pieces that torch's allocator keeps of a greater one. An except block is too early: the
    error holds the tensors of the batch."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _halved(failed: int, why: str, what: str, fixed: bool, way_out: str, then: str = "begun anew") -> int:
    """Half of what did not fit; logs what happens ``then``. Raises `DoesNotFit` where that is nothing or unwanted."""
    if failed == 1:
        raise DoesNotFit(f"one {what} does not fit into memory ({why}): {way_out}")
    if fixed:
        raise DoesNotFit(
            f"{failed} {what}s together do not fit into memory ({why}) and a batch of fixed size is not "
            f"halved: give --batch {failed // 2}"
        )
    half = failed // 2
    logger.warning("%d %ss together did not fit into memory (%s): %s by %d", failed, what, why, then, half)
    return half


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host where a GPU copies them from by itself; for any other ``device`` as they are."""
    return values.pin_memory() if device.type == "cuda" and not values.is_cuda else values


@cache
def keep_memory() -> bool:
    """Have this process keep the memory that it frees, and say whether it does: elsewhere than with glibc, or where the
    environment has set it otherwise, nothing happens.

    A network frees its activations in each step and asks for as many in the next. glibc gives large pieces back to the
    system at once, and the system clears every page that is asked for anew: on a virtual machine that took a network's
    forward pass twice the time of its arithmetic. `give_back` hands over what is free at the end of a shard. Small
    pieces may part what was freed, until glibc has kept seven of a size, so a peak is higher: 2.1 GB instead of 1.5 in
    a pass over ResNet-50.
    """
    set_otherwise = any(os.environ.get(name) not in (None, DASKS.get(name)) for name in KEPT)
    tell = _of_libc("mallopt")
    if tell is None or set_otherwise:
        return False
    return all(tell(option, value) for option, value in KEPT.values())


def give_back() -> None:
    """Hand what is freed back to the system, wherever it lies; nothing happens where the C library knows no such call.

    glibc keeps freed pieces that lie between used ones. A pass decodes images of all sizes, so those pieces grow in
    number with the images seen, and its memory with the number of shards. Once a shard this costs some milliseconds.
    """
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
