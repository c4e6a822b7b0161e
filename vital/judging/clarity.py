"""How clear a neuron is, as another network sees its references: clarity, redundancy and polysemanticity.

The three measures are those of SemanticLens (Dreyer et al., "Mechanistic understanding and validation of large AI
models with SemanticLens", 2025, arXiv 2501.05398), which takes the features of a foundation model. A judge's features
are often not below zero, so that any two images look alike. They are standardised over the references of all neurons of
the layer first: what is left says how much more alike those of one neuron are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Int, UInt8

from vital.judging.metrics import unit
from vital.judging.readability import standardised

ROWS = 1024
"""Neurons whose cosines with all others are in memory together: of 100,000 neurons 0.8 GB."""
NEURONS = 8
"""Neurons over whose references features are standardised."""
FEWEST, MOST = 4, 12
"""References of a neuron that can be divided into two groups of two or more, and the most that are: all of the 2,036
divisions of twelve are looked at."""


def measures_of_references(
    features: Float[np.ndarray, "image feature"], rows: Sequence[Int[np.ndarray, "_reference"]]
) -> dict[str, Float[np.ndarray, "neuron"]]:
    """All three by name, from a judge's features of images and the rows of each neuron's references, best first. One
    that is known of no neuron is left out; for fewer than `NEURONS`, whose mean would be their meaning, all are."""
    together = np.concatenate([np.empty(0, np.int64), *rows])
    if sum(len(own) > 0 for own in rows) < NEURONS:
        return {}
    plain = standardised(features, features[together])
    own = [plain[of_neuron] for of_neuron in rows]
    measures = {"clarity": clarity(own), "redundancy": redundancy(own), "polysemanticity": polysemanticity(own)}
    return {name: values for name, values in measures.items() if np.isfinite(values).any()}


def measures_of_facets(
    features: Float[np.ndarray, "image feature"],
    rows: Sequence[Int[np.ndarray, "_reference"]],
    facets: Sequence[Int[np.ndarray, "_reference"]],
) -> tuple[Float[np.ndarray, "neuron"], Float[np.ndarray, "picture"]]:
    """Of neurons whose references fall into ``facets``, numbered from 0: one less the mean cosine between the centres
    of two of a neuron's facets, NaN where it has one; and the clarity of each facet, of one neuron after the other.

    The network told the facets apart by its own activations. A judge that sees 0 between them sees one meaning; what
    `polysemanticity` divides a neuron into are groups of its own. Features are standardised as for all measures here.
    """
    plain = standardised(features, features[np.concatenate([np.empty(0, np.int64), *rows])])
    groups = [
        [plain[own[of == facet]] for facet in range(int(of.max(initial=0)) + 1)]
        for own, of in zip(rows, facets, strict=True)
    ]
    apart = np.full(len(rows), np.nan)
    for neuron, parts in enumerate(groups):
        if len(parts) > 1 and all(len(part) for part in parts):
            centres = unit(np.stack([unit(part.astype(np.float64)).mean(0) for part in parts]))
            pairs = len(parts) * (len(parts) - 1)
            apart[neuron] = 1 - ((centres @ centres.T).sum() - len(parts)) / pairs
    return apart, clarity([part for parts in groups for part in parts])


def clarity(features: Sequence[Float[np.ndarray, "_reference feature"]]) -> Float[np.ndarray, "neuron"]:
    """Mean cosine between two different references of a neuron, from −1 / (references − 1) to 1; NaN below two.

    >>> clarity([np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])])
    array([1., 0.])
    """
    cosines = np.full(len(features), np.nan)
    for neuron, rows in enumerate(features):
        if (count := len(rows)) > 1:
            directions = unit(rows.astype(np.float64))
            total = directions.sum(0)
            # the cosines of all pairs, less those of each with itself
            cosines[neuron] = (total @ total - np.square(directions).sum()) / (count * (count - 1))
    return cosines


def redundancy(features: Sequence[Float[np.ndarray, "_reference feature"]]) -> Float[np.ndarray, "neuron"]:
    """Greatest cosine between the mean features of a neuron's references and those of another neuron; NaN where there
    is no other, and for a neuron without references. It grows with the number of neurons: compare at equal numbers.

    >>> redundancy([np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[3.0, 0.0]])])
    array([1., 0., 1.])
    """
    greatest = np.full(len(features), np.nan)
    there = [neuron for neuron, rows in enumerate(features) if len(rows)]
    if len(there) < 2:
        return greatest
    means = unit(np.stack([features[neuron].mean(0, dtype=np.float64) for neuron in there]))
    for start in range(0, len(means), ROWS):
        near = means[start : start + ROWS] @ means.T
        np.fill_diagonal(near[:, start:], -np.inf)
        greatest[there[start : start + ROWS]] = near.max(1)
    return greatest


def polysemanticity(features: Sequence[Float[np.ndarray, "_reference feature"]]) -> Float[np.ndarray, "neuron"]:
    """One less the cosine between the centres of two groups of a neuron's references: 0 where both show the same, 1
    where they have nothing in common. NaN below `FEWEST` references; of more than `MOST` the first count.

    The groups are those of k-means with two clusters, of directions and found by trying every division; each has at
    least two references, so that one odd image makes no meaning. References that have nothing in common at all have no
    groups either: read it beside `clarity`.

    >>> same, other = [1.0, 0.0], [0.0, 1.0]
    >>> polysemanticity([np.array([same, other, same, other]), np.array([same] * 4)])
    array([1., 0.])
    """
    return np.array([_apart(unit(rows[:MOST].astype(np.float64))) for rows in features], np.float64)


def _apart(rows: Float[np.ndarray, "reference feature"]) -> float:
    if len(rows) < FEWEST:
        return float("nan")
    one = _divisions(len(rows)).astype(np.float64)
    other = 1 - one
    # products of the groups' sums: the greatest Σ |sum|² / members has the least squares left within the groups
    cosines = rows @ rows.T
    own, between, others = (
        np.einsum("di,ij,dj->d", left, cosines, right, optimize=True)
        for left, right in ((one, one), (one, other), (other, other))
    )
    best = (own / one.sum(1) + others / other.sum(1)).argmax()
    length = np.sqrt(own[best] * others[best])
    return float(1 - between[best] / length) if length > 0 else float("nan")


@cache
def _divisions(count: int) -> UInt8[np.ndarray, "division reference"]:
    """Every division of so many references into two groups of two or more, 1 for those that are with the first."""
    numbers = np.arange(2 ** (count - 1))
    rest = numbers[:, None] >> np.arange(count - 1) & 1
    divisions = np.concatenate([np.ones((len(rest), 1)), rest], axis=1).astype(np.uint8)
    members = divisions.sum(1)
    kept: np.ndarray = divisions[(members >= 2) & (members <= count - 2)]
    return kept
