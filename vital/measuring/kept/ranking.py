"""The best images of every neuron. Rankings merge with ``+``: it keeps the best of two disjoint sets of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int64

from vital.measuring.kept.sampling import unit_hash
from vital.measuring.rows import ascending

NOBODY = -1
"""Image id of a rank that nobody took."""
ROOM = 64
"""Candidates of a neuron that wait until they are put in order together."""
AT_ONCE = 4096
"""Neurons put in order together: what is made of them on the way stays small."""
SITE_BITS = 24
"""Bits of a site where it is kept in one number with its image: maps of up to 4096 × 4096."""


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
        return _best(cls.none(wide.shape[0], ranks), cls(wide, ids, sites.T.astype(np.int64)))

    @classmethod
    def of_members(
        cls,
        classes: int,
        ranks: int,
        images: Int[np.ndarray, "image"],
        labels: Int[np.ndarray, "image"],
        keys: Sequence[str],
    ) -> Ranking:
        """The images of every class by lot: by `unit_hash` of their keys. A label that is no class is left out."""
        result, member = cls.none(classes, ranks), (labels >= 0) & (labels < classes)
        lots = np.array([unit_hash(key) for key, one in zip(keys, member, strict=True) if one], np.float64)
        images, labels = images[member].astype(np.int64), labels[member]
        order = np.lexsort((images, lots, labels))
        images, labels, lots = images[order], labels[order], lots[order]
        rank = np.arange(len(labels)) - np.searchsorted(labels, labels)
        kept = rank < ranks
        cells = labels[kept], rank[kept]
        result.scores[cells], result.images[cells] = -lots[kept], images[kept]
        return result

    def __add__(self, other: Ranking) -> Ranking:
        """The best of both, as many ranks as the left one has."""
        if len(self.scores) != len(other.scores):
            raise ValueError(
                f"rankings of {len(self.scores)} and {len(other.scores)} neurons cannot be merged: same layer only"
            )
        if self.scores.shape == other.scores.shape and self.scores.size:
            if self.images.max() < _first(other.images):
                return self._with_later(other)
            if other.images.max() < _first(self.images):
                return other._with_later(self)
        return _best(self, other)

    def _with_later(self, later: Ranking) -> Ranking:
        """The best of both where all images of ``later`` have greater ids: equal scores are in order as they stand."""
        changed = np.flatnonzero(later.scores[:, 0] > self.scores[:, -1])
        result = self.scores.copy(), self.images.copy(), self.sites.copy()
        for start in range(0, len(changed), AT_ONCE):
            some = changed[start : start + AT_ONCE]
            both = _beside(self._of(some), later._of(some))
            # Two runs in order, which a stable sort of this kind merges.
            order = np.argsort(-both[0], axis=1, kind="stable")[:, : self.scores.shape[1]]
            for whole, part in zip(result, both, strict=True):
                whole[some] = np.take_along_axis(part, order, axis=1)
        return Ranking(*result)

    def _of(self, neurons: Int[np.ndarray, "some"]) -> Ranking:
        return Ranking(self.scores[neurons], self.images[neurons], self.sites[neurons])

    def shifted(self, by: int) -> Ranking:
        """The same with image ids counted from another start: from a shard's own rows to the data set's."""
        return replace(self, images=np.where(self.images == NOBODY, NOBODY, self.images + by))

    @property
    def taken(self) -> Int[np.ndarray, "neuron"]:
        """How many ranks each neuron has filled."""
        filled: np.ndarray = (self.images != NOBODY).sum(axis=1)
        return filled


class Ranker:
    """The ranking of a layer while a pass goes on: of each batch only what beats a neuron's worst kept is looked at.

    Candidates wait until there are many and are then put in order together. An image's site is asked for only where
    the image is a candidate. What is kept takes 12 bytes a rank and as many for each place in the waiting room.
    """

    def __init__(self, neurons: int, ranks: int) -> None:
        shape = (neurons, ranks + ROOM)
        self._ranks, self._last, self._most = ranks, -1, 0
        self._scores = np.full(shape, -np.inf, np.float32)
        self._where = np.zeros(shape, np.int64)
        self._worst = np.full(neurons, -np.inf, np.float32)
        self._waiting = np.zeros(neurons, np.int64)

    def add(
        self,
        scores: Float32[np.ndarray, "image neuron"],
        images: Int[np.ndarray, "image"],
        sites: Callable[[int, Int[np.ndarray, "candidate"]], Int[np.ndarray, "candidate"]],
    ) -> None:
        """Add a batch of images, whose ids ascend from batch to batch; ``sites`` gives the winning sites of an image,
        by its position in the batch, for some neurons. A score that is not a number is no candidate.

        Raises ValueError where the ids do not ascend.
        """
        ids = [self._last, *images.tolist()]
        if any(later <= earlier for earlier, later in pairwise(ids)):
            raise ValueError(f"images {ids[1:]} come after image {ids[0]}: give them in the order of their ids")
        scores_in_a_row, where = self._scores.reshape(-1), self._where.reshape(-1)
        for index, image in enumerate(ids[1:]):
            chosen = np.flatnonzero(scores[index] > self._worst)
            if len(chosen):
                free = chosen * self._scores.shape[1] + self._waiting[chosen] + self._ranks
                scores_in_a_row[free] = scores[index, chosen]
                where[free] = (image << SITE_BITS) | sites(index, chosen)
                self._waiting[chosen] += 1
                self._most += 1
            if self._most == ROOM:
                self._settle(np.flatnonzero(self._waiting > ROOM // 2))
                self._most = int(self._waiting.max())
            self._last = image

    def ranking(self) -> Ranking:
        """The best of all images that were added so far."""
        self._settle(np.flatnonzero(self._waiting))
        scores, where = self._scores[:, : self._ranks], self._where[:, : self._ranks]
        taken = ~np.isneginf(scores)
        return Ranking(
            scores.astype(np.float64),
            np.where(taken, where >> SITE_BITS, NOBODY),
            np.where(taken, where & ((1 << SITE_BITS) - 1), 0),
        )

    def _settle(self, neurons: Int[np.ndarray, "candidate"]) -> None:
        """Put in order what waits of these neurons.

        The keys are integers of 64 bits: the score's bits, the best first, above the place, so that of equal scores the
        earlier image comes first. Finding and sorting the least of them is many times faster than ``lexsort``.
        """
        ranks, width = self._ranks, self._scores.shape[1]
        for start in range(0, len(neurons), AT_ONCE):
            some = neurons[start : start + AT_ONCE]
            scores = self._scores[some]
            keys = (~ascending((scores + 0.0).view(np.int32))).astype(np.int64) << 32  # −0 and 0 are equal
            keys |= np.arange(width)
            best = np.partition(keys, ranks - 1, axis=1)[:, :ranks]
            best.sort(axis=1)
            best &= 0xFFFFFFFF
            self._where[some, :ranks] = np.take_along_axis(self._where[some], best, axis=1)
            self._scores[some, :ranks] = np.take_along_axis(scores, best, axis=1)
            self._scores[some, ranks:] = -np.inf
            self._worst[some] = self._scores[some, ranks - 1]
        self._waiting[neurons] = 0


def _beside(one: Ranking, other: Ranking) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, images and sites of both, in one row a neuron."""
    return (
        np.concatenate([one.scores, other.scores], axis=1),
        np.concatenate([one.images, other.images], axis=1),
        np.concatenate([one.sites, other.sites], axis=1),
    )


def _best(one: Ranking, other: Ranking) -> Ranking:
    """The best of both, in whatever order they are, as many ranks as ``one`` has."""
    scores, images, sites = _beside(one, other)
    # Nobody ranks behind everybody, whatever the score.
    order = np.lexsort((images, -scores, images == NOBODY), axis=1)[:, : one.scores.shape[1]]
    return Ranking(*(np.take_along_axis(part, order, axis=1) for part in (scores, images, sites)))


def _first(images: Int[np.ndarray, "neuron rank"]) -> int:
    """The least id, of all but nobody."""
    return int(np.min(images, where=images != NOBODY, initial=np.iinfo(np.int64).max))
