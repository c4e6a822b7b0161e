"""Sums whose bits depend on nothing but the values: on neither their order nor their batches, tasks or device.

Floating-point numbers on a grid add without rounding as long as the sum stays below 2⁵³ steps of the grid. So each
value is cut into a multiple of a coarse grid and a rest on a fine one, and each is summed for itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from vital.measuring.rows import cachefuls, share_out

logger = logging.getLogger(__name__)

GRID, FINE = 2.0**-12, 2.0**-57
"""The grids of exact sums: they hold up to `LIMIT`, and of each value all bits down to 7·10⁻¹⁸."""
LIMIT = GRID * 2**53
"""Of an exact sum, 2·10¹²: a greater one is rounded as every float64 is, so that its last bits depend on the order."""
ROW_GRID, ROW_FINE = 2.0**-20, 2.0**-63
"""Those of `ExactRows`: up to 8·10⁹, and of each value all bits down to 10⁻¹⁹. Rests of 2,048 values stay whole: a
neuron has at most 1,000 references."""
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


def beyond(coarse: Shaped[np.ndarray, "*rest"], limit: float = LIMIT) -> int:
    """How many of some sums, whose coarse parts are given, are finite and have left what is exact."""
    return int((np.isfinite(coarse) & (np.abs(coarse) > limit)).sum())


class ExactSum:
    """A sum over images while a pass goes on, on the device where the values are; 16 bytes a number."""

    def __init__(self, shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.parts = torch.zeros((2, *shape), dtype=torch.float64, device=device)

    def add(self, values: Float[Tensor, "image *rest"]) -> None:
        """Add the values of every image of a batch; the result does not depend on batches or their order."""
        total = self.parts.view(2, -1)
        flat = values.reshape(len(values), total.shape[1])

        def work(some: Tensor, part: slice) -> None:
            for kept, values in zip(total[:, part], exact_parts(some[:, part]), strict=True):
                kept += values.sum(0, dtype=torch.float64)
            carried(total[:, part])

        for some in flat.split(AT_ONCE):
            slices = cachefuls(flat.shape[1], 2 * len(some)) if flat.device.type == "cpu" else [slice(None)]
            share_out(slices, partial(work, some))

    def numpy(self) -> Float[np.ndarray, "2 *rest"]:
        """A copy on the host."""
        return self.parts.numpy(force=True).copy()


class ExactRows:
    """Sums by name with a row for each neuron, to any of which a value may be added: 16 bytes a number, on the device
    that gives the values until `mean`.

    Both parts are counted in steps of their grids, `ROW_GRID` and `ROW_FINE`, and nothing is carried: a GPU adds to
    rows in no order, and integers commute as long as a row's sum stays below 2³³ and is of 2,048 values at most.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, rows: Int[Tensor, "image"], values: Float[Tensor, "image *rest"]) -> None:
        """Add one value to each of ``rows``; both are on one device. Of what is infinite the mean is undefined, and so
        its block is marked."""
        if name not in self._sums:
            shape = (2, self._rows, *values.shape[1:])
            self._sums[name] = torch.zeros(shape, dtype=torch.float64, device=values.device)
        coarse, fine = self._sums[name]
        # What is made on the way stays in a core's cache, one image at a time; a GPU takes them together.
        for part, where in [(values, rows)] if values.is_cuda else zip(values.split(1), rows.split(1), strict=True):
            rest = part.detach().double() / ROW_GRID
            whole = rest.round()
            coarse.index_add_(0, where, whole)
            fine.index_add_(0, where, rest.sub_(whole).mul_(ROW_GRID / ROW_FINE).round_())

    def mean(self, name: str, count: Int[np.ndarray, "neuron"]) -> np.ndarray:
        """The mean over each neuron's references; zero where there are none."""
        coarse, fine = self._sums[name].numpy(force=True)
        if left := beyond(coarse, 2.0**53):
            logger.warning(
                "%d sums of references' %s are beyond %.0e, where they are exact: their means are right to 16 digits, "
                "but the last bits depend on the order", left, name, ROW_GRID * 2**53,
            )  # fmt: skip
        with np.errstate(invalid="ignore"):
            total = coarse * ROW_GRID + fine * ROW_FINE
        mean: np.ndarray = total / np.maximum(count, 1).reshape(-1, *[1] * (total.ndim - 1))
        return mean
