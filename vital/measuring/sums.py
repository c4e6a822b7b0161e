"""What is known of a layer over a set of images: sums that merge with ``+``, one definition a statistic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vital.measuring.exact import ExactSum, beyond, carried, total_of
from vital.measuring.rows import cachefuls, resample, share_out, site_levels, sort_rows, stored_levels

ROWS = "quantiles"
"""The one statistic that is a row a channel; all others are a number."""
PARTS: Mapping[str, str] = {"sums": ", in whole steps of 2⁻¹²", "rests": ", what is below these steps"}
"""Where a store keeps the two parts of a sum, and what they are."""
IDENTITY: Mapping[np.ufunc, float] = {np.add: 0.0, np.minimum: np.inf, np.maximum: -np.inf}
"""What changes nothing when it is joined."""


@dataclass(frozen=True)
class _Rows:
    """What is kept of the sorted rows of a batch."""

    kept: Float[Tensor, "*row level"]
    mean: Float[Tensor, "*row"]
    square: Float[Tensor, "*row"]
    active: Float[Tensor, "*row"]
    lowest: Float[Tensor, "*row"]
    highest: Float[Tensor, "*row"]


@dataclass(frozen=True)
class Statistic:
    """One sum a channel: what it means, what an image's sorted row gives, and how two of them join."""

    meaning: str
    of: Callable[[_Rows], Tensor]
    join: np.ufunc = np.add

    @property
    def adds(self) -> bool:
        """Whether it is a sum, kept in exact parts, and not an extreme."""
        return self.join is np.add

    def joined(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The statistic of two disjoint sets of images together, from that of each."""
        both: np.ndarray = self.join(one, other)
        return carried(both) if self.adds else both


def _statistic(meaning: str, of: Callable[[_Rows], Tensor], join: np.ufunc = np.add) -> dict[str, Statistic]:
    return {"statistic": Statistic(meaning, of, join)}


@dataclass(frozen=True)
class LayerSums:
    """What is known of a layer's channels over a set of images, as sums: ``+`` joins disjoint sets in any order and
    grouping to the same bits, ``LayerSums.none`` is its identity. Float64; what is added up has the two parts of an
    exact sum (`total_of`).

    A new statistic is one field here, and where people are to see it one entry of `MEANS`.
    """

    quantiles: Float[np.ndarray, "2 channel level"] = field(
        metadata=_statistic("sum of the sorted rows of all images", lambda rows: rows.kept)
    )
    total: Float[np.ndarray, "2 channel"] = field(
        metadata=_statistic("sum over images of the mean over sites", lambda rows: rows.mean)
    )
    squares: Float[np.ndarray, "2 channel"] = field(
        metadata=_statistic("sum over images of the mean square over sites", lambda rows: rows.square)
    )
    mean_squares: Float[np.ndarray, "2 channel"] = field(
        metadata=_statistic("sum over images of the square of the mean over sites", lambda rows: rows.mean.square())
    )
    minimum: Float[np.ndarray, "channel"] = field(
        metadata=_statistic("least value", lambda rows: rows.lowest, np.minimum)
    )
    maximum: Float[np.ndarray, "channel"] = field(
        metadata=_statistic("greatest value", lambda rows: rows.highest, np.maximum)
    )
    active: Float[np.ndarray, "2 channel"] = field(
        metadata=_statistic("sum over images of the fraction of sites with a value above 0", lambda rows: rows.active)
    )
    peaks: Float[np.ndarray, "2 channel"] = field(
        metadata=_statistic("sum over images of the greatest value", lambda rows: rows.highest)
    )
    peak_squares: Float[np.ndarray, "2 channel"] = field(
        metadata=_statistic("sum over images of the square of the greatest value", lambda rows: rows.highest.square())
    )
    count: int

    @classmethod
    def statistics(cls) -> dict[str, Statistic]:
        """The definition of every sum by its name."""
        return {part.name: part.metadata["statistic"] for part in fields(cls) if part.metadata}

    @classmethod
    def none(cls, channels: int, levels: int) -> LayerSums:
        """The sums of no image."""
        return LayerTotal(channels, levels).sums()

    @classmethod
    def of(cls, activations: Float[Tensor, "image channel site"], levels: int) -> LayerSums:
        """The sums of a batch of images, at ``stored_levels(sites, levels)``; without rows for 0 levels."""
        kept = len(stored_levels(activations.shape[2], levels))
        total = LayerTotal(activations.shape[1], kept, activations.device)
        total.add(activations, levels)
        return total.sums()

    def __add__(self, other: LayerSums) -> LayerSums:
        if self.quantiles.shape != other.quantiles.shape:
            raise ValueError(
                f"sums of shape {self.quantiles.shape[1:]} and {other.quantiles.shape[1:]} cannot be added: "
                "same node, same input size only"
            )
        both = {name: one.joined(getattr(self, name), getattr(other, name)) for name, one in self.statistics().items()}
        return LayerSums(**both, count=self.count + other.count)

    def beyond(self) -> dict[str, int]:
        """How many sums of a statistic, by its meaning, have left what is exact (`exact.LIMIT`); none as a rule."""
        counts = {one.meaning: beyond(getattr(self, name)[0]) for name, one in self.statistics().items() if one.adds}
        return {meaning: count for meaning, count in counts.items() if count}

    def stored(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """As a store keeps them, by path: `MEANS` for people, and what later images are added to: the coarse parts
        below ``sums/`` and the fine ones below ``rests/``.

        Channels that overflow stay infinite or undefined: their targets say so.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            means = {name: np.asarray(mean.of(self), np.float32) for name, mean in MEANS.items()}
        added = {
            f"{part}/{name}": getattr(self, name)[number]
            for name, one in self.statistics().items()
            if one.adds
            for number, part in enumerate(PARTS)
        }
        kept = {path: values for path, values in (means | added).items() if values.size}
        return {**kept, "sums/count": np.asarray(self.count)}

    @classmethod
    def from_stored(cls, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> LayerSums:
        """What `stored` gave; minima and maxima are kept once, in float32, which holds them exactly."""
        none = np.empty((len(arrays["minimum"]), 0))
        sums = {
            name: np.stack([arrays.get(f"{part}/{name}", none) for part in PARTS])
            if one.adds
            else np.asarray(arrays[name], np.float64)
            for name, one in cls.statistics().items()
        }
        return cls(**sums, count=int(arrays["sums/count"]))

    @classmethod
    def read_from(cls, rows: bool) -> list[str]:
        """The paths that `from_stored` reads: those of rows only of a layer that has ``rows``."""
        parts = {
            name: [f"{part}/{name}" for part in PARTS] if one.adds else [name] for name, one in cls.statistics().items()
        }
        return [path for name, paths in parts.items() if rows or name != ROWS for path in paths] + ["sums/count"]

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """What each array of `stored` means, save the count."""
        return {name: mean.meaning for name, mean in MEANS.items()} | {
            f"{part}/{name}": f"{one.meaning}{which}"
            for name, one in cls.statistics().items()
            if one.adds
            for part, which in PARTS.items()
        }


class LayerTotal:
    """`LayerSums` while a pass goes on, on the device of the activations; they are copied to the host once."""

    def __init__(self, channels: int, levels: int, device: torch.device | str = "cpu") -> None:
        self._count = 0
        self._sums: dict[str, ExactSum] = {}
        self._extremes: dict[str, Tensor] = {}
        for name, one in LayerSums.statistics().items():
            if one.adds:
                self._sums[name] = ExactSum((channels, levels) if name == ROWS else (channels,), device)
            else:
                self._extremes[name] = torch.full((channels,), IDENTITY[one.join], device=device)

    def add(
        self, activations: Float[Tensor, "image channel site"], levels: int
    ) -> Float[Tensor, "image channel level"]:
        """Add a batch of images, and give their sorted rows, which are read at ``stored_levels(sites, levels)``."""
        if not len(activations):
            return activations.new_empty((0, activations.shape[1], len(stored_levels(activations.shape[2], levels))))
        rows = _described(activations.detach().float(), levels)
        for name, one in LayerSums.statistics().items():
            if one.adds:
                self._sums[name].add(one.of(rows))
            elif one.join is np.minimum:
                self._extremes[name] = torch.minimum(self._extremes[name], one.of(rows).amin(0))
            else:
                self._extremes[name] = torch.maximum(self._extremes[name], one.of(rows).amax(0))
        self._count += len(activations)
        return rows.kept

    def sums(self) -> LayerSums:
        """What was added, copied to the host."""
        extremes = {name: value.double().numpy(force=True) for name, value in self._extremes.items()}
        return LayerSums(**extremes, **{name: total.numpy() for name, total in self._sums.items()}, count=self._count)


@dataclass(frozen=True)
class Mean:
    """What people are shown of `LayerSums`."""

    meaning: str
    of: Callable[[LayerSums], Float[np.ndarray, "channel *level"]]


def _mean(sums: LayerSums, name: str) -> Any:
    return total_of(getattr(sums, name)) / max(sums.count, 1)


def _deviation(sums: LayerSums, squares: str, name: str) -> Any:
    return np.sqrt(np.maximum(_mean(sums, squares) - _mean(sums, name) ** 2, 0))


MEANS: Mapping[str, Mean] = {
    "quantiles": Mean("mean of the sorted rows of all images", lambda sums: _mean(sums, "quantiles")),
    "mean": Mean("mean over images and sites", lambda sums: _mean(sums, "total")),
    "deviation": Mean("standard deviation over images and sites", lambda sums: _deviation(sums, "squares", "total")),
    "mean_deviation": Mean(
        "standard deviation over images of the mean over sites", lambda sums: _deviation(sums, "mean_squares", "total")
    ),
    "minimum": Mean("least value", lambda sums: sums.minimum),
    "maximum": Mean("greatest value", lambda sums: sums.maximum),
    "active": Mean("fraction of images and sites with a value above 0", lambda sums: _mean(sums, "active")),
    "peak_mean": Mean("mean over images of the greatest value", lambda sums: _mean(sums, "peaks")),
    "peak_deviation": Mean(
        "standard deviation over images of the greatest value", lambda sums: _deviation(sums, "peak_squares", "peaks")
    ),
}


def _described(activations: Float[Tensor, "*row site"], levels: int) -> _Rows:
    """Each row sorted and read at ``stored_levels(sites, levels)``, its mean, its mean square, and the share of it that
    is positive."""
    sites = activations.shape[-1]
    have, want = site_levels(sites), stored_levels(sites, levels)
    if activations.device.type != "cpu":
        if not len(want):
            square, active = activations.square().mean(-1), (activations > 0).float().mean(-1)
            ends = activations.amin(-1), activations.amax(-1)
            return _Rows(activations[..., :0], activations.mean(-1), square, active, *ends)
        rows = sort_rows(activations)
        square, active = rows.square().mean(-1), (rows > 0).float().mean(-1)
        return _Rows(resample(rows, have, want), rows.mean(-1), square, active, rows[..., 0], rows[..., -1])
    flat = activations.detach().flatten(0, -2).contiguous().numpy()
    kept = np.empty((len(flat), len(want)), np.float32)
    parts = np.empty((5, len(flat)), np.float32)

    def work(part: slice) -> None:
        mean, square, active, lowest, highest = parts[:, part]
        if len(want):
            rows = np.sort(flat[part], axis=1)
            kept[part] = resample(torch.from_numpy(rows), have, want).numpy()
            lowest[:], highest[:] = rows[:, 0], rows[:, -1]
        else:
            rows = flat[part].copy()
            lowest[:], highest[:] = rows.min(1), rows.max(1)
        with np.errstate(over="ignore", invalid="ignore"):  # an activation may be infinite
            mean[:], active[:] = rows.mean(1), (rows > 0).mean(1)
            square[:] = np.square(rows, out=rows).mean(1)

    share_out(cachefuls(*flat.shape), work)  # a node's sorted rows are never in memory together
    shape = activations.shape[:-1]
    return _Rows(torch.from_numpy(kept).reshape(*shape, len(want)), *torch.from_numpy(parts).reshape(5, *shape))
