"""Facets: the groups that a neuron's references fall into, where chance does not make such groups out of one.

A reference is a vector: how much each channel of an earlier node had to do with the neuron's activation there, of which
the direction alone counts (PURE: Dreyer et al., "PURE: Turning polysemantic neurons into pure features by identifying
relevant circuits", CVPR workshops 2024). PURE splits every neuron in two. Here groups have to explain more of the
vectors' spread than those of Gaussian clouds of the same covariance do (SigClust: Liu, Hayes, Nobel, Marron,
"Statistical significance of clustering for high-dimension, low-sample size data", JASA 2008), and there are as many as
stand out most (the gap statistic: Tibshirani, Walther, Hastie, "Estimating the number of clusters in a data set via the
gap statistic", JRSS B 2001).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

FEWEST = 3
"""References of the smallest facet."""
BOUND = 0.01
"""Greatest p-value at which references are grouped."""
DRAWS, PART = 444, 111
"""Clouds that references are compared with, and how many at a time."""
TRIED = 4
"""Numbers of groups, up to this, by which references are told from a cloud."""
POWERS, TURNS = 12, 4
"""How often the axis that a split begins along is made more the principal one, and a split is turned to a better."""
ALIKE, SAME = 1e-9, 1e-6
"""Least share of the spread that is left within groups, and least mean square distance of directions from their middle:
less is rounding."""


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
        """How many facets the references fall into; 1 where they were not divided."""
        return int(self.of.max(initial=0)) + 1


def find_facets(
    vectors: Float[np.ndarray, "reference channel"],
    chance: np.random.Generator,
    most: int,
    fewest: int = FEWEST,
    always: bool = False,
) -> Facets:
    """Group references, given the best first, into at most ``most`` facets of at least ``fewest`` references.

    There is one where clouds fall into some number of groups as clearly with a probability above `BOUND`. What a neuron
    gets depends on its own vectors and ``chance`` alone. References whose vectors have no direction, since they do not
    activate the neuron, go with its first facet; where one is not finite, all do.

    ``always`` divides them into ``most`` groups whatever the test says, of fewer than ``fewest`` references where there
    are few of them; into fewer groups only where no more of them differ.

    >>> apart = np.repeat(np.eye(2), 6, 0) + np.random.default_rng(0).normal(0, 0.1, (12, 2))
    >>> find_facets(apart, np.random.default_rng(1), most=4).of.tolist()
    [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """
    of = np.zeros(len(vectors), np.int64)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    rows = np.flatnonzero(lengths)
    if not np.isfinite(lengths).all() or most < 2 or len(rows) < (2 if always else 2 * fewest):
        return Facets(of, 1.0)
    points, groups, p = vectors[rows] / lengths[rows, None], of[rows], 1.0
    if len(rows) >= 2 * fewest:
        groups, p = _tested_groups(points, chance, most, fewest)
    if always:
        groups = _most_groups(points, most, fewest)
    if always or p <= BOUND:
        parts = [rows[groups == group] for group in np.unique(groups)]
        for number, part in enumerate(sorted(parts, key=_by_size)):
            of[part] = number
    return Facets(of, p)


def _by_size(rows: Int[np.ndarray, "reference"]) -> tuple[int, int]:
    """Sorts groups, the one of the most references first; of equally many, that of the better one."""
    return -len(rows), int(rows[0])


def chance_of(layer: str, neuron: int) -> np.random.Generator:
    """The random stream of a neuron's facets: the same in whatever task."""
    digest = hashlib.blake2b(f"facets/{layer}/{neuron}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _tested_groups(
    points: Float[np.ndarray, "point axis"], chance: np.random.Generator, most: int, fewest: int
) -> tuple[Int[np.ndarray, "point"], float]:
    """The groups of the points that stand out most, and how often groups of clouds of the same covariance stand out as
    much.

    What is left of the spread within 2, 3, … groups is compared, as a logarithm, with what is left of clouds; the
    number of groups with the greatest distance, in deviations of the clouds, counts, as it does for each cloud. `TRIED`
    groups are tried though fewer are wanted: of many no two may stand out. Clouds are drawn until it is clear that the
    bound is not met (Besag, Clifford, "Sequential Monte Carlo p-values", Biometrika 1991): most neurons need few.
    """
    tried = min(max(most, TRIED), len(points) // fewest)
    centred = points - points.mean(0)
    if np.square(centred).sum() <= SAME * len(points):
        return np.zeros(len(points), np.int64), 1.0
    # Along principal axes, beyond which the points have no width.
    widths = np.linalg.svd(centred, compute_uv=False)[: len(points) - 1] / np.sqrt(len(points) - 1)

    def left_of_clouds() -> np.ndarray:
        clouds = chance.standard_normal((PART, len(points), len(widths))) * widths
        clouds -= clouds.mean(1, keepdims=True)
        return _groups(clouds @ clouds.swapaxes(1, 2), tried, fewest)[1]

    usual = left_of_clouds()
    middle, deviation = usual.mean(0), np.maximum(usual.std(0), ALIKE)
    groups, left = _groups((centred @ centred.T)[None], tried, fewest)
    apart = (middle - left[0]) / deviation
    as_well = drawn = 0
    while drawn < DRAWS and as_well < BOUND * (DRAWS + 1):
        as_well += int((((middle - left_of_clouds()) / deviation).max(1) >= apart.max()).sum())
        drawn += PART
    return groups[0, apart[: most - 1].argmax()], (1 + as_well) / (1 + drawn)


def _most_groups(points: Float[np.ndarray, "point axis"], most: int, fewest: int) -> Int[np.ndarray, "point"]:
    """As many groups as are wanted, as far as there are points that differ.

    Splits end where every group has fewer than twice the fewest members, so that groups one less than are wanted hold
    few enough points: that bounds how many the smallest may have.
    """
    count = min(most, len(points))
    centred = points - points.mean(0)
    if np.square(centred).sum() <= SAME * len(points):
        return np.zeros(len(points), np.int64)
    members = min(fewest, ((len(points) - 1) // (count - 1) + 1) // 2)
    groups: np.ndarray = _groups((centred @ centred.T)[None], count, max(members, 1))[0][0, -1]
    return groups


def _groups(
    products: Float[np.ndarray, "cloud point point"], most: int, fewest: int
) -> tuple[Int[np.ndarray, "cloud number point"], Float[np.ndarray, "cloud number"]]:
    """Of each cloud, given by the inner products of its centred points: its 2, 3, … ``most`` groups, and the logarithm
    of the share of its spread that is left within them. The next group is always the best split of any."""
    clouds, count = products.shape[:2]
    every = np.arange(clouds)
    spread = np.maximum(np.trace(products, axis1=1, axis2=2), np.finfo(np.float64).tiny)
    of, within = np.zeros((clouds, count), np.int64), np.ones(clouds)
    first, gain = _split(products, np.ones((clouds, count), bool), fewest)
    splits, gains = first[:, None], gain[:, None]
    groups, left = [], []
    for number in range(1, most):
        widest = gains.argmax(1)
        best = gains[every, widest]
        new = (of == widest[:, None]) & ~splits[every, widest] & (best > 0)[:, None]
        of = np.where(new, number, of)
        within = within - np.maximum(best, 0) / spread
        groups.append(of)
        left.append(np.log(np.maximum(within, ALIKE)))
        if number + 1 < most:
            splits, gains = np.append(splits, splits[:, :1], 1), np.append(gains, gains[:, :1], 1)
            for group in (widest, np.full(clouds, number)):
                splits[every, group], gains[every, group] = _split(products, of == group[:, None], fewest)
    return np.stack(groups, 1), np.stack(left, 1)


def _split(
    products: Float[np.ndarray, "cloud point point"], members: Bool[np.ndarray, "cloud point"], fewest: int
) -> tuple[Bool[np.ndarray, "cloud point"], Float[np.ndarray, "cloud"]]:
    """The best split in two of some members of each cloud, and the squared distances between both parts' middles and
    the whole's, summed over the members; -1 where there are too few.

    Begun by cutting along the principal axis (Boley, "Principal direction divisive partitioning", 1998), which powers
    of the products lead to. Then the members are cut along the line between the middles, again and again, which
    two-means does, too, and is never worse.
    """
    counts = np.maximum(members.sum(1), 1)
    centring = members[:, :, None] * (np.eye(members.shape[1]) - members[:, None] / counts[:, None, None])
    inside = centring @ products @ centring.swapaxes(1, 2)
    best, most = np.zeros_like(members), np.full(len(members), -1.0)
    along = inside[np.arange(len(inside)), np.diagonal(inside, axis1=1, axis2=2).argmax(1)]
    for _ in range(POWERS):
        along = np.matvec(inside, along / np.maximum(np.abs(along).max(1, keepdims=True), np.finfo(np.float64).tiny))
    for _ in range(1 + TURNS):
        first, between = _cut(inside, along, members, fewest)
        better = between > most
        best[better], most[better] = first[better], between[better]
        along = np.matvec(inside, first.astype(np.float64))
    return best, most


def _cut(
    products: Float[np.ndarray, "cloud point point"],
    along: Float[np.ndarray, "cloud point"],
    members: Bool[np.ndarray, "cloud point"],
    fewest: int,
) -> tuple[Bool[np.ndarray, "cloud point"], Float[np.ndarray, "cloud"]]:
    """The members above the best threshold of a coordinate, and what is said of `_split`."""
    order = np.argsort(np.where(members, -along, np.inf), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1)
    among = (ranks[:, None] <= np.arange(members.shape[1])[:, None]).astype(np.float64)
    # |sum of the first k|²: all inner products among them. The rest sums to minus that.
    squares = ((among @ products) * among).sum(2)
    counts, first = members.sum(1)[:, None], np.arange(1, members.shape[1] + 1)
    rest = counts - first
    between = np.where((first >= fewest) & (rest >= fewest), squares * counts / (first * np.maximum(rest, 1)), -1.0)
    at = between.argmax(1)
    chosen = ranks <= at[:, None]
    return chosen, between[np.arange(len(members)), at]
