"""Sums whose bits depend on nothing but the values: on neither their order nor their batches, tasks or device.

Floating-point numbers on a grid add without rounding as long as the sum stays below 2⁵³ steps of the grid. So each
value is cut into a multiple of a coarse grid and a rest on a fine one, and each is summed for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vital.measuring.rows import cachefuls, share_out

GRID, FINE = 2.0**-12, 2.0**-57
"""The grids of exact sums: they hold up to 2·10¹², and of each value all bits down to 7·10⁻¹⁸."""
AT_ONCE = 256
"""Values whose rests add without a carry: so many times ``GRID`` is 2⁵³ steps of ``FINE``."""


def exact_parts(values: Float[Tensor, "*rest"]) -> tuple[Float[Tensor, "*rest"], Float[Tensor, "*rest"]]:
    """Each value as a multiple of ``GRID`` and a rest, a multiple of ``FINE``, in the value's own precision. No step
    rounds but the one onto ``FINE``; what is infinite or undefined has no rest."""
    rest = torch.frac(values * (1 / GRID))
    rest.nan_to_num_(0.0, 0.0, 0.0)
    coarse = torch.sub(values, rest, alpha=GRID)
    return coarse, rest.mul_(GRID / FINE).round_().mul_(FINE)


P = TypeVar("P", np.ndarray, Tensor)


def carried(parts: P) -> P:
    """The same sum with a rest from 0 to below ``GRID``: equal sums have equal bits."""
    floor: Any = torch.floor if isinstance(parts, Tensor) else np.floor
    carry = floor(parts[1] * (1 / GRID)) * GRID
    parts[0] += carry
    parts[1] -= carry
    return parts


def total_of(parts: Shaped[np.ndarray, "2 *rest"]) -> Shaped[np.ndarray, "*rest"]:
    """The sum itself, rounded once."""
    total: np.ndarray = parts[0] + parts[1]
    return total


class ExactSum:
    """A sum over images while a pass goes on, on the device where the values are; 16 bytes a number."""

    def __init__(self, shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.parts = torch.zeros((2, *shape), dtype=torch.float64, device=device)

    def add(self, values: Float[Tensor, "image *rest"]) -> None:
        """Add every image's value."""
        total = self.parts.view(2, -1)
        flat = values.reshape(len(values), total.shape[1])
        for some in flat.split(AT_ONCE):
            slices = cachefuls(flat.shape[1], 2 * len(some)) if flat.device.type == "cpu" else [slice(None)]

            def work(part: slice, some: Tensor = some) -> None:
                for kept, values in zip(total[:, part], exact_parts(some[:, part]), strict=True):
                    kept += values.sum(0, dtype=torch.float64)
                carried(total[:, part])

            share_out(slices, work)

    def numpy(self) -> Float[np.ndarray, "2 *rest"]:
        """A copy on the host."""
        return self.parts.numpy(force=True).copy()
