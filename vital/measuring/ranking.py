"""The best images of every neuron, mergeable: ``+`` keeps the best of two rankings of disjoint images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

NOBODY = -1
"""Image id of a rank that nobody took."""


@dataclass(frozen=True)
class Ranking:
    """Scores, image ids and winning sites by rank; the score descends, equal scores are in the order of the image ids.

    Empty ranks stand at the end with the score −∞ and the image `NOBODY`.
    """

    scores: Float64[np.ndarray, "neuron rank"]
    images: Int64[np.ndarray, "neuron rank"]
    sites: Int64[np.ndarray, "neuron rank"]

    @classmethod
    def none(cls, neurons: int, ranks: int) -> Ranking:
        """A ranking of no image: the identity of ``+``."""
        shape = (neurons, ranks)
        return cls(np.full(shape, -np.inf), np.full(shape, NOBODY, np.int64), np.zeros(shape, np.int64))

    @classmethod
    def of(
        cls,
        scores: Float[np.ndarray, "image neuron"],
        images: Int[np.ndarray, "image"],
        sites: Int[np.ndarray, "image neuron"],
        ranks: int,
    ) -> Ranking:
        """The ranking of a batch of images. A score that is not a number is no candidate."""
        wide = np.where(np.isnan(scores), -np.inf, scores.astype(np.float64)).T
        ids = np.where(np.isneginf(wide), NOBODY, np.broadcast_to(images.astype(np.int64), wide.shape))
        empty = cls.none(wide.shape[0], ranks)
        return empty + cls(wide, ids, sites.T.astype(np.int64))

    def __add__(self, other: Ranking) -> Ranking:
        """The best of both, as many ranks as the left one has."""
        if len(self.scores) != len(other.scores):
            raise ValueError(
                f"rankings of {len(self.scores)} and {len(other.scores)} neurons cannot be merged: same layer only"
            )
        scores, images, sites = (
            np.concatenate([mine, theirs], axis=1)
            for mine, theirs in ((self.scores, other.scores), (self.images, other.images), (self.sites, other.sites))
        )
        ranks = self.scores.shape[1]
        # Nobody ranks behind everybody, whatever the score.
        order = np.lexsort((images, -scores, images == NOBODY), axis=1)[:, :ranks]
        return Ranking(*(np.take_along_axis(part, order, axis=1) for part in (scores, images, sites)))

    def shifted(self, by: int) -> Ranking:
        """The same with image ids counted from another start: from a shard's own rows to the data set's."""
        return replace(self, images=np.where(self.images == NOBODY, NOBODY, self.images + by))

    @property
    def taken(self) -> Int[np.ndarray, "neuron"]:
        """How many ranks each neuron has filled."""
        filled: np.ndarray = (self.images != NOBODY).sum(axis=1)
        return filled


def unit_hash(key: str) -> float:
    """A number from 0 to 1 that depends on nothing but the key: the first of a class by it are its references,
    however sharded.

    >>> 0 <= unit_hash("n01440764_10026") < 1
    True
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53
