"""Sorted activations as resolution-free rows of quantiles, and the sums by which they merge.

A row of ``n`` sorted activations has its value ``i`` at the level (i + ½)/n; between levels it is linear, beyond the
first and the last it is constant. So a target measured on 14 × 14 sites can be matched by a picture that has 20 × 20.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def site_levels(sites: int) -> Float[np.ndarray, "site"]:
    """Levels of the sorted activations of ``sites`` sites: (i + ½)/n.

    >>> site_levels(4)
    array([0.125, 0.375, 0.625, 0.875])
    """
    return (np.arange(sites) + 0.5) / sites


def stored_levels(sites: int, count: int) -> Float[np.ndarray, "level"]:
    """Levels kept on disk of a row of ``sites`` activations: all of them, or ``count``, denser towards both ends; none
    for a ``count`` of 0.

    The spacing is that of Chebyshev nodes, (1 − cos πt)/2: activations have long tails, and what a network responds
    to lies there. The first and the last site are always kept.
    """
    if sites <= count:
        return site_levels(sites)
    position = (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2
    return (0.5 + position * (sites - 1)) / sites


@lru_cache(maxsize=256)
def _neighbours(source: bytes, target: bytes, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Left and right neighbour in ``source`` of every level in ``target``, and the weight of the right one; copied to a
    device once, since each copy makes the host wait."""
    have, want = np.frombuffer(source), np.frombuffer(target)
    right = np.clip(np.searchsorted(have, want), 1, max(len(have) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(have) - 1)
    width = np.where(right > left, have[right] - have[left], 1.0)
    weight = np.clip((want - have[left]) / width, 0, 1)
    with torch.inference_mode(False):  # they are kept, and later ones may need a gradient
        return (
            torch.from_numpy(left).to(device),
            torch.from_numpy(right).to(device),
            torch.from_numpy(weight).to(device),
        )


def resample(
    rows: Float[Tensor, "*row level"], have: Float[np.ndarray, "level"], want: Float[np.ndarray, "other"]
) -> Float[Tensor, "*row other"]:
    """Rows given at the levels ``have``, read at the levels ``want``, linear between; equal levels return the rows
    as they are."""
    if np.array_equal(have, want):
        return rows
    left, right, weight = _neighbours(have.tobytes(), want.tobytes(), rows.device)
    return torch.lerp(rows[..., left], rows[..., right], weight.to(rows.dtype))


def stepped(rows: Float[np.ndarray, "*row level"], steps: int) -> Float[np.ndarray, "*row level"]:
    """Rows rounded to multiples of a power of two each: the greatest that makes at least ``steps`` from a row's least
    to its greatest value. Neighbours become equal, and rows take half the bytes when they are compressed.

    An error is at most a half of a step, and as often up as down: a loss that adds squares over sites hardly changes.
    Rows of one value, and rows that are not finite, stay as they are.

    >>> stepped(np.float32([0, 0.3, 0.31, 1]), 4)
    array([0.  , 0.25, 0.25, 1.  ], dtype=float32)
    """
    with np.errstate(invalid="ignore", over="ignore"):
        width = np.ptp(rows, axis=-1, keepdims=True) / steps
    known = (width > 0) & np.isfinite(width)
    step = np.ldexp(np.float64(1), np.frexp(np.where(known, width, 1))[1] - 1)
    return np.where(known, np.rint(np.where(known, rows, 0) / step) * step, rows).astype(rows.dtype)


T = TypeVar("T")
CACHE = 1 << 18
"""Values sorted at a time on a CPU: a megabyte."""
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INDEX = np.int64(0xFFFFFFFF)
_LITTLE = np.little_endian


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="sort")


def share_out(parts: Sequence[T], work: Callable[[T], None]) -> None:
    """``work`` on every part, shared between torch's threads: NumPy releases the interpreter."""
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) <= 1:
        for part in parts:
            work(part)
    else:
        list(_pool(threads).map(work, parts))


def cachefuls(rows: int, sites: int) -> list[slice]:
    """Slices of rows that are worked on at a time: what is made of them on the way stays in a core's cache."""
    size = max(1, CACHE // max(sites, 1))
    return [slice(start, start + size) for start in range(0, rows, size)]


def sort_rows(rows: Float[Tensor, "*row site"]) -> Float[Tensor, "*row site"]:
    """Each row in ascending order."""
    if rows.device.type != "cpu":
        return torch.sort(rows, dim=-1).values
    flat = rows.detach().reshape(-1, rows.shape[-1]).contiguous().numpy()
    result = np.empty_like(flat)

    def work(part: slice) -> None:
        result[part] = np.sort(flat[part], axis=1)

    share_out(cachefuls(*flat.shape), work)
    return torch.from_numpy(result).reshape(rows.shape)


def stored_rows(activations: Float[Tensor, "image channel site"], levels: int) -> Float[Tensor, "image channel level"]:
    """Sorted activations of every channel at the levels that are kept of them (`stored_levels`)."""
    sites = activations.shape[-1]
    return resample(sort_rows(activations), site_levels(sites), stored_levels(sites, levels))


def sort_in_place(rows: Float[np.ndarray, "row site"]) -> Int[np.ndarray, "row*site"]:
    """Put each row (C-contiguous) in ascending order and return where in the flattened rows each value came from.

    Of equal values the earlier site comes first, so the order depends on the values alone. The keys of single precision
    are integers of twice its size, the value's bits above its index: sorting them is two to four times faster than
    ``argsort``, most where many values are equal, as after a ReLU.
    """
    if rows.dtype != np.float32 or not _LITTLE:
        order = np.argsort(rows, axis=1, kind="stable") + np.arange(0, rows.size, rows.shape[1])[:, None]
        rows[...] = rows.reshape(-1)[order]
        return order.reshape(-1)
    rows += 0.0  # −0 and 0 are equal, but their bits are not
    bits = rows.view(np.int32)
    keys = np.empty(rows.shape, np.int64)
    halves = keys.view(np.int32).reshape(*rows.shape, 2)
    halves[..., 0] = np.arange(rows.size, dtype=np.int32).reshape(rows.shape)
    halves[..., 1] = ascending(bits)
    keys.sort(axis=1)
    bits[...] = ascending(halves[..., 1])
    keys &= _INDEX
    return keys.reshape(-1)


def ascending(bits: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
    """Bits of floats as integers of the same order (the magnitude of a negative one is inverted), and back again."""
    flipped: np.ndarray = bits >> 31
    flipped &= _MAGNITUDE
    flipped ^= bits
    return flipped
