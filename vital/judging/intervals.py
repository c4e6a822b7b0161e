"""Means with 95 % intervals over neurons and seeds, by the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

DRAWS = 4000
"""Resamples; the interval's own chance error is then far below its width."""


@dataclass(frozen=True)
class Interval:
    """A mean, and the bounds of its central 95 %; ``neurons`` and ``seeds`` that it rests on. NaN where nothing was
    measured."""

    mean: float
    low: float
    high: float
    neurons: int
    seeds: int

    @property
    def bounded(self) -> bool:
        """Whether the bounds mean anything: a single value has no spread."""
        return self.neurons * self.seeds > 1


def interval(values: Float[np.ndarray, "neuron seed"]) -> Interval:
    """The mean of one metric with its interval. Neurons and seeds are resampled independently of each other: both
    could have been others (Owen, "The pigeonhole bootstrap", 2007). Wider than a bootstrap of all pictures as if they
    were independent.

    Neurons without a value under every seed are left out.

    >>> interval(np.ones((4, 3))).low
    1.0
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values).all(1)] if values.size else values
    neurons, seeds = values.shape
    if not values.size:
        return Interval(float("nan"), float("nan"), float("nan"), 0, seeds)
    rows, columns = _resamples(neurons, seeds)
    means = ((rows @ values) * columns).sum(1) / values.size
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high), neurons, seeds)


@lru_cache(maxsize=8)
def _resamples(neurons: int, seeds: int) -> tuple[Float[np.ndarray, "draw neuron"], Float[np.ndarray, "draw seed"]]:
    """How often each resample has each neuron and each seed."""
    source = np.random.default_rng(0)  # the same figures from the same pictures
    rows, columns = np.empty((DRAWS, neurons)), np.empty((DRAWS, seeds))
    for draw in range(DRAWS):
        rows[draw] = np.bincount(source.integers(0, neurons, neurons), minlength=neurons)
        columns[draw] = np.bincount(source.integers(0, seeds, seeds), minlength=seeds)
    return rows, columns


def paired(values: Float[np.ndarray, "neuron seed"], others: Float[np.ndarray, "neuron seed"]) -> Interval:
    """The mean difference between two methods on the same neurons, seed by seed, with its interval.

    >>> paired(np.array([[3.0], [5.0]]), np.array([[1.0], [3.0]])).mean
    2.0
    """
    return interval(np.asarray(values, np.float64) - np.asarray(others, np.float64))
