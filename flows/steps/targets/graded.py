"""Images of every strength: half of a layer's sample, from which targets learn what goes with a neuron's activation.

The other half asks what pictures tell (`flows.steps.judging.photographs`), so that no picture is asked about an image
that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int64

from stores import References, Sample, Statistics
from stores.errors import SchemaMismatch
from vital.measuring.kept.ranking import NOBODY
from vital.measuring.kept.sampling import unit_hash
from vital.measuring.targets import Target, trend

MOST_BYTES = 1 << 29
"""Of the rows of graded images, which a process keeps for its next tasks."""
SHARE = 0.5
"""Of a sample, that targets learn from."""
FEWEST_GRADED = 8
"""Images of which a slope is learnt at least."""


@dataclass(frozen=True, eq=False)
class GradedImages:
    """Images in ascending order of their ids, and their sorted rows at every node that is matched."""

    image: Int64[np.ndarray, "image"]
    rows: Mapping[str, Float[np.ndarray, "image _channel _level"]]

    @classmethod
    def finite(cls, image: Int64[np.ndarray, "image"], rows: Mapping[str, np.ndarray]) -> GradedImages:
        """Those of some images on which the network does not overflow: the others would count for every neuron."""
        usable = np.all([np.isfinite(each.reshape(len(each), -1)).all(1) for each in rows.values()], axis=0)
        if usable.all():
            return cls(image, rows)
        return cls(image[usable], {name: each[usable] for name, each in rows.items()})

    def with_trend(self, target: Target, references: References, sample: Sample) -> Target:
        """A target with the trend of its neurons, whose ``references`` it was measured on; their peaks are in the
        ``sample`` that the images are of."""
        known = references.image != NOBODY
        scores = np.where(known, references.score, 0).sum(1, dtype=np.float64) / np.maximum(known.sum(1), 1)
        others = np.stack([~np.isin(self.image, own) for own in references.image], axis=1)
        peaks = sample.peak[np.searchsorted(sample.image, self.image)]
        nodes = {
            name: replace(node, trend=trend(self.rows[name], peaks, others, node.quantiles, scores, target.count))
            for name, node in target.nodes.items()
        }
        return replace(target, nodes=nodes)


@dataclass(frozen=True)
class WantedImages:
    """Graded images: of what, and what reads them."""

    key: tuple[Hashable, ...]
    read: Callable[[], GradedImages | None] = field(compare=False)


@lru_cache(maxsize=1)
def graded_images(wanted: WantedImages) -> GradedImages | None:
    """Read at a process's first task of a layer and kept for its next ones: the same for all neurons."""
    return wanted.read()


def chosen_images(statistics: Statistics, layer: str, image_bytes: int) -> Int64[np.ndarray, "image"]:
    """The images that a layer's trends are learnt from, whose rows take ``image_bytes`` each: the first by their draw
    where memory does not hold all, so that they are of all classes in whatever order these come."""
    images, draws = _drawn(statistics, layer)
    most = max(FEWEST_GRADED, MOST_BYTES // max(image_bytes, 1))
    return np.sort(images[np.argsort(draws, kind="stable")[:most]])


def learnt_from(statistics: Statistics, layer: str) -> Int64[np.ndarray, "image"]:
    """The images that targets of a layer may learn a trend from; none where the store keeps no sample."""
    return _drawn(statistics, layer)[0]


def _drawn(statistics: Statistics, layer: str) -> tuple[Int64[np.ndarray, "image"], Float[np.ndarray, "image"]]:
    try:
        images = statistics.sample(layer, ()).image
    except SchemaMismatch:
        return np.empty(0, np.int64), np.empty(0)
    draws = draws_of(statistics.keys(images.tolist()))
    return images[draws < SHARE], draws[draws < SHARE]


def draws_of(keys: Sequence[str]) -> Float[np.ndarray, "image"]:
    """Of each image a number from 0 to 1, by a hash of its key: the same however the data set is sharded or extended,
    and another one than the lot by which a sample is drawn. Below `SHARE` targets may learn from it."""
    return np.array([unit_hash(f"half {key}") for key in keys], np.float64)
