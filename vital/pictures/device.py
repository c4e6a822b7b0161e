"""How many pictures fit into the memory of a device, measured on one."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vital.memory import RanOut, out_of_memory
from vital.settings import PictureSettings

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

    The optimiser's own tensors are there in the second, which is also the one with a random crop, where there are any.
    """
    return settings.model_copy(update={"steps": 2})


def needed_bytes(one_picture: Callable[[], object], device: torch.device) -> float:
    """What a picture takes of the memory of ``device``, infinity where not even one fits; ``one_picture`` runs the
    `dearest` steps of one.

    On a GPU the peak of allocated memory is measured, of a second run. On a CPU the bytes that the graph keeps are
    counted, which is exact and the same on every run.
    """
    try:
        return _needed(one_picture, device)
    except (MemoryError, RuntimeError, RanOut) as error:
        if not out_of_memory(error):
            raise
        return math.inf


def _needed(one_picture: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        return TEMPORARY * kept_bytes(one_picture)
    one_picture()  # workspaces and copies of the network, which come with a process's first, are no picture's
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    one_picture()
    return torch.cuda.max_memory_allocated(device) - before


def batch_of(needed: float, device: torch.device) -> int:
    """The greatest power of two of pictures that fit into what ``device`` has free now, where one takes ``needed``
    bytes; at least one, since whoever makes it says where not even that fits."""
    most = ON_GPU if device.type == "cuda" else ON_CPU
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
        """Count the storage in, whose bytes are counted once however many tensors keep it."""
        if not self._owners[storage._cdata]:
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
        self._owners[storage._cdata] += 1

    def leave(self, storage: torch.UntypedStorage) -> None:
        """Count the storage out, whose bytes go with the last tensor that keeps it."""
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
