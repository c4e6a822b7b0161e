"""Sorted activations as resolution-free rows of quantiles, and the sums by which they merge.

A row of ``n`` sorted activations has its value ``i`` at the level (i + ½)/n; between levels it is linear, beyond the
first and the last it is constant. So a target measured on 14 × 14 sites can be matched by a picture that has 20 × 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vital.sorting import cachefuls, share_out, sort_rows


def site_levels(sites: int) -> Float[np.ndarray, "site"]:
    """Levels of the sorted activations of ``sites`` sites: (i + ½)/n.

    >>> site_levels(4)
    array([0.125, 0.375, 0.625, 0.875])
    """
    return (np.arange(sites) + 0.5) / sites


def stored_levels(sites: int, count: int) -> Float[np.ndarray, "level"]:
    """Levels kept on disk of a row of ``sites`` activations: all of them, or ``count``, denser towards both ends.

    The spacing is that of Chebyshev nodes, (1 − cos πt)/2: activations have long tails, and what a network responds
    to lies there. The first and the last site are always kept.
    """
    if sites <= count:
        return site_levels(sites)
    position = (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2
    return (0.5 + position * (sites - 1)) / sites


@lru_cache(maxsize=256)
def _neighbours(source: bytes, target: bytes) -> tuple[Tensor, Tensor, Tensor]:
    """Left and right neighbour in ``source`` of every level in ``target``, and the weight of the right one."""
    have, want = np.frombuffer(source), np.frombuffer(target)
    right = np.clip(np.searchsorted(have, want), 1, max(len(have) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(have) - 1)
    width = np.where(right > left, have[right] - have[left], 1.0)
    weight = np.clip((want - have[left]) / width, 0, 1)
    return torch.from_numpy(left), torch.from_numpy(right), torch.from_numpy(weight)


def resample(
    rows: Float[Tensor, "*row level"], have: Float[np.ndarray, "level"], want: Float[np.ndarray, "other"]
) -> Float[Tensor, "*row other"]:
    """Rows given at the levels ``have``, read at the levels ``want``, linear between; equal levels return the rows
    as they are."""
    if np.array_equal(have, want):
        return rows
    left, right, weight = (part.to(rows.device) for part in _neighbours(have.tobytes(), want.tobytes()))
    return torch.lerp(rows[..., left], rows[..., right], weight.to(rows.dtype))


@dataclass(frozen=True)
class Moments:
    """What is known of a node's channels over a set of images, as sums: ``+`` joins disjoint sets, ``Moments.none``
    is its identity.

    Sums are float64. ``quantiles`` sums each image's sorted row read at the stored levels; ``total`` and ``squares``
    sum the spatial means and mean squares; ``active`` sums the shares of sites with a positive activation, ``peaks``
    and ``peak_squares`` the spatial maxima and their squares.
    """

    quantiles: Float[np.ndarray, "channel level"]
    total: Float[np.ndarray, "channel"]
    squares: Float[np.ndarray, "channel"]
    minimum: Float[np.ndarray, "channel"]
    maximum: Float[np.ndarray, "channel"]
    active: Float[np.ndarray, "channel"]
    peaks: Float[np.ndarray, "channel"]
    peak_squares: Float[np.ndarray, "channel"]
    count: int

    @classmethod
    def none(cls, channels: int, levels: int) -> Moments:
        """The moments of no image."""

        def zero() -> np.ndarray:
            return np.zeros(channels)

        infinity = np.full(channels, np.inf)
        rows = np.zeros((channels, levels))
        return cls(rows, zero(), zero(), infinity, -infinity, zero(), zero(), zero(), 0)

    @classmethod
    def of(cls, activations: Float[Tensor, "image channel site"], levels: int) -> Moments:
        """The moments of a batch of images, at ``stored_levels(sites, levels)``."""
        rows = _described(activations.float(), levels)
        # One image after the other: the sum of a batch must not depend on how the images were batched.
        return cls(
            sum_in_order(rows.kept),
            sum_in_order(rows.mean),
            sum_in_order(rows.square),
            rows.lowest.double().numpy(force=True).min(0, initial=np.inf),
            rows.highest.double().numpy(force=True).max(0, initial=-np.inf),
            sum_in_order(rows.active),
            sum_in_order(rows.highest),
            sum_in_order(rows.highest.square()),
            len(activations),
        )

    def __add__(self, other: Moments) -> Moments:
        if self.quantiles.shape != other.quantiles.shape:
            raise ValueError(
                f"moments of shape {self.quantiles.shape} and {other.quantiles.shape} cannot be added: "
                "same node, same input size only"
            )
        return Moments(
            self.quantiles + other.quantiles,
            self.total + other.total,
            self.squares + other.squares,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            self.active + other.active,
            self.peaks + other.peaks,
            self.peak_squares + other.peak_squares,
            self.count + other.count,
        )


@dataclass(frozen=True)
class _Rows:
    """What is kept of sorted rows."""

    kept: Float[Tensor, "*row level"]
    mean: Float[Tensor, "*row"]
    square: Float[Tensor, "*row"]
    active: Float[Tensor, "*row"]
    lowest: Float[Tensor, "*row"]
    highest: Float[Tensor, "*row"]


def _described(activations: Float[Tensor, "*row site"], levels: int) -> _Rows:
    """Each row sorted and read at ``stored_levels(sites, levels)``, its mean, its mean square, and the share of it that
    is positive."""
    sites = activations.shape[-1]
    have, want = site_levels(sites), stored_levels(sites, levels)
    if activations.device.type != "cpu":
        rows = sort_rows(activations)
        square, active = rows.square().mean(-1), (rows > 0).float().mean(-1)
        return _Rows(resample(rows, have, want), rows.mean(-1), square, active, rows[..., 0], rows[..., -1])
    flat = activations.detach().flatten(0, -2).contiguous().numpy()
    kept = np.empty((len(flat), len(want)), np.float32)
    parts = np.empty((5, len(flat)), np.float32)

    def work(part: slice) -> None:
        rows = np.sort(flat[part], axis=1)
        kept[part] = resample(torch.from_numpy(rows), have, want).numpy()
        mean, square, active, lowest, highest = parts[:, part]
        lowest[:], highest[:] = rows[:, 0], rows[:, -1]
        with np.errstate(over="ignore", invalid="ignore"):  # an activation may be infinite
            mean[:], active[:] = rows.mean(1), (rows > 0).mean(1)
            square[:] = np.square(rows, out=rows).mean(1)

    share_out(cachefuls(*flat.shape), work)  # a node's sorted rows are never in memory together
    shape = activations.shape[:-1]
    return _Rows(torch.from_numpy(kept).reshape(*shape, len(want)), *torch.from_numpy(parts).reshape(5, *shape))


def sum_in_order(rows: Float[Tensor, "image *rest"]) -> Float[np.ndarray, "*rest"]:
    """Float64 sum over images, in their order: it does not depend on how they were batched."""
    total = np.zeros(rows.shape[1:])
    for row in rows.double().numpy(force=True):
        total += row
    return total
