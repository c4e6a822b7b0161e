"""Facets: the groups that a neuron's references fall into, where chance does not make such groups out of one.

A reference is a vector: how much each channel of an earlier node had to do with the neuron's activation there, of which
the direction alone counts (PURE: Dreyer et al., "Turning polysemantic neurons into pure features by identifying
relevant circuits", CVPR workshops 2024). PURE splits every neuron in two. Here a split has to explain more of the
vectors' spread than the best split of one Gaussian cloud of the same covariance does (SigClust: Liu, Hayes, Nobel,
Marron, "Statistical significance of clustering for high-dimension, low-sample size data", JASA 2008).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

FEWEST = 3
"""References of the smallest facet."""
BOUND = 0.01
"""Greatest p-value at which a group is split."""
DRAWS, PART = 999, 111
"""Clouds that a split is compared with, and how many at a time."""
AXES = 2
"""Principal axes along which a split is begun."""
TURNS = 4
"""How often a split is turned towards a better one."""


@dataclass(frozen=True)
class Facets:
    """Which facet each of a neuron's references belongs to."""

    of: Int[np.ndarray, "reference"]
    """Numbers from 0, the facet of the most references first; of equally many, that of the better reference."""
    p: float
    """How often one cloud is split as well as all references are: the p-value of one meaning; 1 where there are too few
    references to tell."""

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.of.max(initial=0)) + 1


def find_facets(
    vectors: Float[np.ndarray, "reference channel"], chance: np.random.Generator, most: int, fewest: int = FEWEST
) -> Facets:
    """Split references, given the best first, into at most ``most`` facets of at least ``fewest`` references.

    The group of the most references is tried first; one is split where a cloud as wide in every direction is split as
    well at most with probability `BOUND`. What a neuron gets depends on its own vectors and ``chance`` alone.
    References whose vectors have no direction, since they do not activate the neuron, go with its first facet; where
    one is not finite, all do.

    >>> apart = np.repeat(np.eye(2), 6, 0) + np.random.default_rng(0).normal(0, 0.1, (12, 2))
    >>> find_facets(apart, np.random.default_rng(1), most=4).of.tolist()
    [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """
    of = np.zeros(len(vectors), np.int64)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        return Facets(of, 1.0)
    directions = vectors / np.maximum(lengths, np.finfo(np.float64).tiny)
    every = np.flatnonzero(lengths)
    p, final, waiting = 1.0, list[np.ndarray](), [every]
    while waiting:
        rows = min(waiting, key=_by_size)
        waiting = [others for others in waiting if others is not rows]
        if len(rows) < 2 * fewest or len(waiting) + len(final) + 2 > most:
            final.append(rows)
            continue
        first, by_chance = _tested_split(directions[rows], chance, fewest)
        if rows is every:
            p = by_chance
        if by_chance > BOUND:
            final.append(rows)
        else:
            waiting += [rows[first], rows[~first]]
    for number, rows in enumerate(sorted(final, key=_by_size)):
        of[rows] = number
    return Facets(of, p)


def _by_size(rows: Int[np.ndarray, "reference"]) -> tuple[int, int]:
    """Sorts groups, the one of the most references first; of equally many, that of the better one."""
    return -len(rows), int(rows[0]) if len(rows) else 0


def chance_of(layer: str, neuron: int) -> np.random.Generator:
    """The random stream of a neuron's facets: the same in whatever task."""
    digest = hashlib.blake2b(f"facets/{layer}/{neuron}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _tested_split(
    points: Float[np.ndarray, "point axis"], chance: np.random.Generator, fewest: int
) -> tuple[Bool[np.ndarray, "point"], float]:
    """The best split in two, and how often Gaussian clouds of the same covariance are split as well.

    Clouds are drawn until it is clear that the bound is not met (Besag, Clifford, "Sequential Monte Carlo p-values",
    Biometrika 1991): most neurons need the first few.
    """
    centred = points - points.mean(0)
    [first], [share] = _splits((centred @ centred.T)[None], fewest)
    # along principal axes, beyond which the points have no width
    widths = np.linalg.svd(centred, compute_uv=False)[: len(points) - 1] / np.sqrt(len(points) - 1)
    as_well = drawn = 0
    while drawn < DRAWS and as_well < BOUND * (DRAWS + 1):
        clouds = chance.standard_normal((PART, len(points), len(widths))) * widths
        clouds -= clouds.mean(1, keepdims=True)
        as_well += int((_splits(clouds @ clouds.swapaxes(1, 2), fewest)[1] >= share).sum())
        drawn += PART
    return first, (1 + as_well) / (1 + drawn)


def _splits(
    products: Float[np.ndarray, "cloud point point"], fewest: int
) -> tuple[Bool[np.ndarray, "cloud point"], Float[np.ndarray, "cloud"]]:
    """Of each cloud, given by the inner products of its centred points: its best split, and the share of the squared
    distances to the middle that lies between both groups' middles.

    Begun by cutting along principal axes (Boley, "Principal direction divisive partitioning", 1998). Then the points
    are cut along the line between the middles, again and again, which two-means does, too, and is never worse.
    """
    clouds, count = products.shape[:2]
    spread = np.maximum(np.trace(products, axis1=1, axis2=2), np.finfo(np.float64).tiny)
    best, most = np.zeros((clouds, count), bool), np.full(clouds, -1.0)
    axes = np.linalg.eigh(products)[1][..., ::-1]
    for axis in range(min(AXES, count)):
        along = axes[..., axis]
        for _ in range(1 + TURNS):
            first, between = _cut(products, along, fewest)
            better = between > most
            best[better], most[better] = first[better], between[better]
            along = np.matvec(products, first.astype(np.float64))
    return best, most / spread


def _cut(
    products: Float[np.ndarray, "cloud point point"], along: Float[np.ndarray, "cloud point"], fewest: int
) -> tuple[Bool[np.ndarray, "cloud point"], Float[np.ndarray, "cloud"]]:
    """The points above the best threshold of a coordinate, and the squared distances between the groups' middles and
    the whole's, summed over the points."""
    clouds, count = along.shape
    order = np.argsort(-along, axis=1, kind="stable")
    ordered = np.take_along_axis(np.take_along_axis(products, order[:, :, None], 1), order[:, None], 2)
    # |sum of the first k|²: all inner products among them. The rest sums to minus that.
    squares = np.diagonal(ordered.cumsum(1).cumsum(2), axis1=1, axis2=2)
    first = np.arange(1, count + 1)
    between = squares * np.divide(count, first * (count - first), where=first < count, out=np.zeros(count))
    between = np.where((first >= fewest) & (first <= count - fewest), between, -1.0)
    at = between.argmax(1)
    chosen = np.zeros((clouds, count), bool)
    np.put_along_axis(chosen, order, np.arange(count) <= at[:, None], 1)
    return chosen, between[np.arange(clouds), at]
