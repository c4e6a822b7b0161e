"""What fits on the device, and what is done where it does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from vital.errors import DoesNotFit

ON_CPU = 8
"""Greatest measured batch on a CPU, where larger ones gain nothing."""
ON_GPU = 256
"""Greatest measured batch on a GPU."""
SHARE = 0.8
"""Share of the free memory that a measured batch may fill."""
TEMPORARY = 3.0
"""Bytes of a step on a CPU over the bytes that its graph keeps: gradients and what the sort needs (measured)."""


def measured_batch(one_picture: Callable[[], object], device: torch.device) -> int:
    """The greatest power of two of pictures whose step fits into ``device``; ``one_picture`` runs a step of one.

    On a GPU the peak of allocated memory is measured. On a CPU the bytes that the graph keeps are counted, which is
    exact and the same on every run.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        one_picture()
        needed: float = torch.cuda.max_memory_allocated(device) - before
        free, most = torch.cuda.mem_get_info(device)[0], ON_GPU
    else:
        needed = TEMPORARY * _kept_bytes(one_picture)
        free, most = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), ON_CPU
    return largest_power(SHARE * free / max(needed, 1), most)


def largest_power(room: float, most: int) -> int:
    """The greatest power of two up to ``room`` and ``most``, at least 1.

    >>> largest_power(13.7, 256)
    8
    """
    size = 1
    while 2 * size <= min(room, most):
        size *= 2
    return size


def _kept_bytes(run: Callable[[], object]) -> int:
    """Bytes of the distinct tensors that the graph of ``run`` keeps for its backward passes."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


def in_batches(count: int, size: int, work: Callable[[slice], object], what: str = "picture") -> Iterator[slice]:
    """Do ``work`` on slices of at most ``size`` of ``count`` things, in order, and yield each slice when it is done.

    A slice that does not fit into memory is halved, and so are the later ones. Raises `DoesNotFit` where one alone
    does not fit.
    """
    start = 0
    while start < count:
        part = slice(start, min(start + size, count))
        try:
            work(part)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            failed = part.stop - part.start
            if failed == 1:
                raise DoesNotFit(
                    f"one {what} does not fit into memory ({str(error).splitlines()[0]}): "
                    "take a smaller --side, or a device with more memory"
                ) from error
            size = failed // 2
        else:
            yield part
            start = part.stop
        # Outside the except block, where the error still holds the tensors of the batch.
        if size < part.stop - part.start and torch.cuda.is_available():
            torch.cuda.empty_cache()


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "DefaultCPUAllocator" in str(error) or "out of memory" in str(error)
