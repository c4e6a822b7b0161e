"""What fits on the device, and what is done where it does not."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vital.errors import DoesNotFit
from vital.settings import PictureSettings

logger = logging.getLogger(__name__)
T = TypeVar("T")

ON_CPU = 8
"""Greatest measured batch on a CPU, where larger ones gain nothing."""
ON_GPU = 256
"""Greatest measured batch on a GPU."""
FIXED = {"cpu": 8, "cuda": 32}
"""The batch where it must not depend on free memory, by device."""
SHARE = 0.8
"""Share of the free memory that a measured batch may fill."""
TEMPORARY = 3.0
"""Bytes of a step on a CPU over the bytes that its graph keeps: gradients and what the sort needs (measured)."""


def dearest(settings: PictureSettings) -> PictureSettings:
    """A run of two steps, one of which needs as much memory as any of a whole run.

    Both show the picture at its whole side. The optimiser's own tensors are there in the second, which is also the one
    with a random crop, where there are any.
    """
    return settings.model_copy(update={"steps": 2, "coarse": 0.0})


def measured_batch(one_picture: Callable[[], object], device: torch.device) -> int:
    """The greatest power of two of pictures whose step fits into ``device``; ``one_picture`` runs the `dearest` steps
    of one.

    On a GPU the peak of allocated memory is measured, of a second run. On a CPU the bytes that the graph keeps are
    counted, which is exact and the same on every run. One where not even that fits: whoever makes it says so.
    """
    try:
        return _measured(one_picture, device)
    except (MemoryError, RuntimeError, RanOut) as error:
        if not out_of_memory(error):
            raise
        return 1


def _measured(one_picture: Callable[[], object], device: torch.device) -> int:
    if device.type == "cuda":
        one_picture()  # workspaces and copies of the network, which come with a process's first, are no picture's
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        one_picture()
        needed: float = torch.cuda.max_memory_allocated(device) - before
        most = ON_GPU
    else:
        needed, most = TEMPORARY * kept_bytes(one_picture), ON_CPU
    return largest_power(SHARE * free_bytes(device) / max(needed, 1), most)


def free_bytes(device: torch.device) -> int:
    """Memory of ``device`` that this process may still take: on a GPU what the driver has left, and what torch's
    allocator has taken from it and does not use."""
    if device.type != "cuda":
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def largest_power(room: float, most: int) -> int:
    """The greatest power of two up to ``room`` and ``most``, at least 1.

    >>> largest_power(13.7, 256)
    8
    """
    size = 1
    while 2 * size <= min(room, most):
        size *= 2
    return size


class _Ledger:
    """Bytes of the distinct storages that are kept at a time, and the most that there were."""

    def __init__(self) -> None:
        self._owners: Counter[int] = Counter()
        self._now = self.most = 0

    def enter(self, storage: torch.UntypedStorage) -> None:
        """One more keeps it."""
        if not self._owners[storage._cdata]:
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
        self._owners[storage._cdata] += 1

    def leave(self, storage: torch.UntypedStorage) -> None:
        """One less does."""
        self._owners[storage._cdata] -= 1
        if not self._owners[storage._cdata]:
            self._now -= storage.nbytes()


class _Kept:
    """A tensor that a graph keeps, in the ledger as long as it does."""

    def __init__(self, tensor: Tensor, ledger: _Ledger) -> None:
        self.tensor, self._ledger = tensor, ledger
        ledger.enter(tensor.untyped_storage())

    def __del__(self) -> None:
        self._ledger.leave(self.tensor.untyped_storage())


def kept_bytes(run: Callable[[], object]) -> int:
    """Most bytes that the graphs of ``run`` keep for their backward passes at any time."""
    ledger = _Ledger()
    with saved_tensors_hooks(lambda tensor: _Kept(tensor, ledger), lambda kept: kept.tensor):
        run()
    return ledger.most


@runtime_checkable
class Resumable(Protocol):
    """Work on some things that was broken off, and can be gone on with."""

    @property
    def done(self) -> int:
        """Steps of it."""

    def take(self, rows: slice) -> Resumable:
        """The same of some of the things."""


class RanOut(DoesNotFit):
    """Memory ran out while some things were worked on: ``why``, in the words of the library that had none. ``begun`` is
    how far they were, where that is known."""

    def __init__(self, why: str, begun: Resumable | None = None) -> None:
        super().__init__(f"memory ran out ({why}): make fewer pictures together, or smaller ones")
        self.why, self.begun = why, begun


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
            size = _halved(error, why, together, what, fixed, then)
            waiting.appendleft((part, begun))
        else:
            yield part
        # Outside the except block, where the error still holds the tensors of the batch.
        if size < together and torch.cuda.is_available():
            torch.cuda.empty_cache()


def fitting(size: int, work: Callable[[int], T], what: str, fixed: bool = False) -> T:
    """``work``, told to take at most ``size`` things together. Where they do not fit into memory all of it is begun
    anew with half as many, which is logged. Raises `DoesNotFit` as `in_batches` does."""
    while True:
        try:
            return work(size)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            size = _halved(error, first_line(error), size, what, fixed)
        # Outside the except block, where the error still holds the tensors of the batch.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _halved(error: BaseException, why: str, failed: int, what: str, fixed: bool, then: str = "begun anew") -> int:
    """Half of what did not fit; logs what happens ``then``. Raises `DoesNotFit` where that is nothing or unwanted."""
    if failed == 1:
        raise DoesNotFit(
            f"one {what} does not fit into memory ({why}): take a smaller --side, or a device with more memory"
        ) from error
    if fixed:
        raise DoesNotFit(
            f"{failed} {what}s together do not fit into memory ({why}) and a batch of fixed size is not "
            f"halved: give --batch {failed // 2}"
        ) from error
    half = failed // 2
    logger.warning("%d %ss together did not fit into memory (%s): %s by %d", failed, what, why, then, half)
    return half


NO_ROOM = re.compile(r"out of memory|_ALLOC_FAILED|_ALLOCATION_FAILED|MemoryAllocation|DefaultCPUAllocator", re.I)
"""How torch, CUDA's runtime, cuBLAS, cuDNN, cuFFT, cuSOLVER and cuSPARSE say that there is no memory left."""


STATE = re.compile(r"\.? GPU \d+ has a total capacity.*")
"""What torch goes on with when it has said how much it could not get: four sentences on memory, and advice."""


def first_line(error: BaseException) -> str:
    """What an error says first, or what it is where it says nothing; of a lack of memory what was asked for alone."""
    return STATE.sub("", (str(error).splitlines() or [type(error).__name__])[0])


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left; libraries of CUDA say it each in its own words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError, RanOut)):
        return True
    return isinstance(error, RuntimeError) and NO_ROOM.search(str(error)) is not None
