"""Photographs from a neuron's strongest to its weakest, and the other way round the neurons that each of them excites;
both from the sample of images that is kept with every neuron's peak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from stores import Sample

LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Of the peaks over the data set, at which photographs are shown."""
POOL = 200
"""Images that these are taken from, the same for all neurons and layers: a site has at most so many more files of about
6 kB, and levels are met to within three in a hundred (the deviation of a share of one half is 1 / √(4 · 200))."""
MOST_EXCITED = 48
"""Neurons that a photograph leads to beyond those that have it among their references: a screen of them."""


def across(peaks: Float[np.ndarray, "image"]) -> list[tuple[int, float]]:
    """Images from a neuron's strongest to its weakest: those nearest to nine tenths of all peaks, to eight, and so on,
    and the weakest; each with the share of images that have a lesser peak, equal ones counted half.

    They are taken from `POOL` of the images, so that neurons share them. Of equal peaks, which a neuron that is silent
    on most images has many of, one image is shown.

    >>> across(np.arange(5.0))
    [(4, 0.9), (3, 0.7), (2, 0.5), (1, 0.3), (0, 0.1)]
    """
    if not len(peaks):
        return []
    pool = pool_of(len(peaks))
    shares = shares_below(peaks, pool)
    chosen = [int(np.abs(shares - level).argmin()) for level in LEVELS] + [int(shares.argmin())]
    # of equal peaks the first counts: they have the same share
    by_share = {float(shares[index]): int(pool[index]) for index in reversed(chosen)}
    return [(row, share) for share, row in sorted(by_share.items(), reverse=True)]


def pool_of(images: int) -> Int[np.ndarray, "pooled"]:
    """The rows of a sample that photographs are taken from: `POOL` of them, evenly spread."""
    return np.unique(np.linspace(0, images - 1, min(POOL, images)).round().astype(int))


def shares_below(peaks: Float[np.ndarray, "image"], rows: Int[np.ndarray, "pooled"]) -> Float[np.ndarray, "pooled"]:
    """Of some images' peaks the share of all that are lesser, equal ones counted half."""
    ordered, some = np.sort(peaks), peaks[rows]
    both: np.ndarray = np.searchsorted(ordered, some) + np.searchsorted(ordered, some, "right")
    return both / (2 * len(peaks))


class Excited:
    """The neurons that each photograph of the pool excites most, found while a layer goes by some neurons at a time.

    Neurons are in the order in which `vital look` has them: by the share of the sample's images that excite them less,
    then by how many standard deviations the photograph's peak is above the sample's mean. Only those that it excites
    more than half of the sample does.
    """

    def __init__(self) -> None:
        self._image = np.zeros(0, np.int64)
        # image by neuron: share, deviations, number
        self._best = np.zeros((0, 0, 3))

    def add(self, neurons: Sequence[int], sample: Sample) -> None:
        """See some more neurons, and their peaks on the sample."""
        rows = pool_of(len(sample.image))
        if not len(rows) or not len(neurons):
            return
        if not len(self._image):
            self._image, self._best = sample.image[rows], np.zeros((len(rows), 0, 3))
        wide = sample.peak.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            deviations = np.nan_to_num((wide[rows] - wide.mean(0)) / wide.std(0), nan=0.0, posinf=0.0, neginf=0.0)
        shares = np.stack([shares_below(peaks, rows) for peaks in sample.peak.T], axis=1)
        numbers = np.broadcast_to(np.asarray(neurons, np.float64), shares.shape)
        seen = np.concatenate([self._best, np.stack([shares, deviations, numbers], axis=2)], axis=1)
        order = np.lexsort((seen[..., 2], -seen[..., 1], -seen[..., 0]))[:, :MOST_EXCITED]
        self._best = np.take_along_axis(seen, order[..., None], axis=1)

    def by_image(self) -> dict[int, list[int]]:
        """Neurons by image id, the most excited first."""
        kept = (row[row[:, 0] > 0.5, 2].astype(int).tolist() for row in self._best)
        return dict(zip(self._image.tolist(), kept, strict=True))
