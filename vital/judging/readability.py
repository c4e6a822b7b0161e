"""Whether another network can tell from a picture which photographs excite its neuron.

The machine interpretability score (Zimmermann, Klindt and Brendel, "Measuring mechanistic interpretability at scale
without humans", NeurIPS 2024) asks, as people were asked before, which of two photographs a neuron responds to, given
an explanation of it. Here a judge answers by how near the photographs' features are to the explanation's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vital.judging.metrics import unit

FEWEST = 8
"""Explanations over which features are standardised: of fewer, the mean says more of each than of what they share."""
FEWEST_ASKED = 3
"""Images of either kind that a neuron's question needs."""
ASKED = 10
"""Queries of a neuron that are asked about: the best first, right beyond the references that were used."""
FEW = {"readability_one": 1, "readability_two": 2, "readability_four": 4}
"""How many of a neuron's references, the strongest, the metrics of these names ask as photographs: with those of all
they say how many photographs tell a judge what a picture does."""


@dataclass(frozen=True)
class Question:
    """What is asked of an explanation, as rows of the images: those that excite the neuron, and those that do not."""

    exciting: Int[np.ndarray, "query"]
    others: Int[np.ndarray, "other"]

    @property
    def fair(self) -> bool:
        """Whether there is enough of both."""
        return min(len(self.exciting), len(self.others)) >= FEWEST_ASKED


def chance_error(exciting: float, others: float) -> float:
    """The standard error of an area under the curve that is one half, of so many images that excite a neuron and so
    many others: √((m + n + 1) / (12 m n)), to which the formula of Hanley and McNeil comes there ("The meaning and use
    of the area under a receiver operating characteristic (ROC) curve", 1982). Of endlessly many others it is
    √(1 / (12 m)), and 0 where both are endless.

    >>> round(chance_error(10, math.inf), 3), round(chance_error(10, 55), 3), round(chance_error(3, 12), 3)
    (0.091, 0.1, 0.192)
    """
    return math.sqrt((1 / exciting + 1 / others + 1 / exciting / others) / 12)


def standardised(
    features: Float[np.ndarray, "image feature"], among: Float[np.ndarray, "member feature"] | None = None
) -> Float[np.ndarray, "image feature"]:
    """Each feature less its mean and over its deviation ``among`` some, or all of them; one that never varies is 0.

    Among a method's own pictures this takes out what they all share, a style, which says nothing of a neuron. NaN among
    none, whose mean nobody knows.
    """
    among = features if among is None else among
    if not len(among):
        return np.full(features.shape, np.nan, np.float32)
    mean, deviation = among.mean(0, dtype=np.float64), among.std(0, dtype=np.float64)
    varies = deviation > 1e-12 * np.abs(among).max(0, initial=0.0)
    scaled: np.ndarray = np.where(varies, (features - mean) / np.where(varies, deviation, 1), 0).astype(np.float32)
    return scaled


def readability(
    explanations: Float[np.ndarray, "neuron feature"],
    images: Float[np.ndarray, "image feature"],
    questions: Sequence[Question],
) -> Float[np.ndarray, "neuron"]:
    """The area under the curve by which the cosine to a neuron's explanation tells the images that excite it from
    others: 1 is always, 0.5 by chance. Both sides are standardised. NaN where there are fewer than `FEWEST`
    explanations, or where a question is not fair."""
    result = np.full(len(questions), np.nan)
    if len(explanations) < FEWEST:
        return result
    directions, seen = unit(explanations), unit(images)
    for neuron, question in enumerate(questions):
        if question.fair and np.isfinite(directions[neuron]).all():
            near = seen[np.concatenate([question.exciting, question.others])] @ directions[neuron]
            result[neuron] = area(near[: len(question.exciting)], near[len(question.exciting) :])
    return result


def mean_explanations(
    features: Float[np.ndarray, "image feature"],
    rows: Sequence[Int[np.ndarray, "_reference"]],
    among: Float[np.ndarray, "member feature"] | None = None,
) -> Float[np.ndarray, "neuron feature"]:
    """Photographs as explanations: the mean of each neuron's, given by their rows. NaN for a neuron without any.

    `vital evaluate` standardises them ``among`` a sample of the data set: they have no style to take out, and what the
    photographs of all neurons have in common tells exciting images from others, too. That is the stronger yardstick:
    no picture is asked for it, since what all pictures of a method have in common is taken out of them.
    Without ``among`` they are standardised among those of all neurons, as a method's pictures are.
    """
    if among is None:
        among = features[np.concatenate([np.empty(0, np.int64), *rows])]
    return means_of(standardised(features, among), rows)


def means_of(
    features: Float[np.ndarray, "image feature"], rows: Sequence[Int[np.ndarray, "_reference"]]
) -> Float[np.ndarray, "neuron feature"]:
    """The mean of each neuron's rows, NaN for a neuron without any: explanations, of features that are standardised."""
    none = np.full(features.shape[1], np.nan, np.float32)
    return np.stack([features[own].mean(0) if len(own) else none for own in rows])


def held_out_readability(
    features: Float[np.ndarray, "image feature"],
    rows: Sequence[Int[np.ndarray, "_reference"]],
    counts: Sequence[int] | Int[np.ndarray, "neuron"],
    images: Float[np.ndarray, "other_image feature"],
    sample: Float[np.ndarray, "member feature"],
    questions: Sequence[Question],
) -> list[Float[np.ndarray, "_draw"]]:
    """How much more readable photographs are, taken for pictures of their neuron, than its other references are: of
    each neuron as many as it has pictures (``counts``), beginning with each reference in turn. NaN where `readability`
    is, and where no other reference is left.

    ``features`` of references, of which ``rows`` are a neuron's, are standardised once among themselves, as pictures
    are, and once over the ``sample``, as references are; ``images`` and ``questions`` are those of `readability`.
    """
    together = np.concatenate([np.empty(0, np.int64), *rows])
    pictures, references = standardised(features, features[together]), standardised(features, sample)
    seen, differences = unit(images), []
    for own, count, question in zip(rows, counts, questions, strict=True):
        if len(own) <= count or len(rows) < FEWEST or not question.fair:
            differences.append(np.full(len(own), np.nan))
            continue
        drawn = (np.arange(len(own))[:, None] + np.arange(count)) % len(own)
        rest = [np.delete(own, ranks) for ranks in drawn]
        taken = np.stack([pictures[own[ranks]].mean(0) for ranks in drawn])
        others = np.stack([references[ranks].mean(0) for ranks in rest])
        asked = seen[np.concatenate([question.exciting, question.others])]
        areas = np.array(
            [
                [area(near[: len(question.exciting)], near[len(question.exciting) :]) for near in unit(part) @ asked.T]
                for part in (taken, others)
            ]
        )
        differences.append(areas[0] - areas[1])
    return differences


def area(exciting: Float[np.ndarray, "query"], others: Float[np.ndarray, "other"]) -> float:
    """Area under the receiver's curve: how often one of ``exciting`` is greater than one of ``others``, ties half
    (Hanley and McNeil, 1982).

    >>> area(np.array([2.0, 1.0]), np.array([1.0, 0.0]))
    0.875
    """
    order = np.sort(others)
    below = np.searchsorted(order, exciting, "left") + np.searchsorted(order, exciting, "right")
    return float(below.mean() / (2 * len(others)))


def lower_half(peaks: Float[np.ndarray, "image"]) -> Int[np.ndarray, "half"]:
    """The positions of the half with the lesser peaks, of an odd number without the middle one. Of equal peaks the
    earlier images: the ids of a sample say nothing of what they show. One that is not a number is in neither half."""
    order = np.argsort(peaks, kind="stable")
    lower: np.ndarray = order[: np.isfinite(peaks).sum() // 2]
    return lower
