"""Images of every strength: half of a layer's sample, from which targets learn what goes with a neuron's activation.

The other half asks what pictures tell (`flows.steps.judging.photographs`), so that no picture is asked about an image
that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from stores import References, Sample, Statistics
from stores.errors import SchemaMismatch
from vital.measuring.kept.ranking import NOBODY
from vital.measuring.kept.sampling import unit_hash
from vital.measuring.targets import Target, trend

MOST_BYTES = 1 << 29
"""Of the rows of graded images, which a process keeps for its next tasks."""
FEWEST_GRADED = 8
"""Images of which a slope is learnt at least."""


@dataclass(frozen=True, eq=False)
class GradedImages:
    """Images in ascending order of their ids, and the peaks of a layer's neurons on them."""

    image: Int[np.ndarray, "image"]
    peak: Float[np.ndarray, "image neuron"]

    @classmethod
    def of(cls, statistics: Statistics, layer: str, image_bytes: int) -> GradedImages | None:
        """Those of a layer whose rows take ``image_bytes`` each; None where its sample has too few."""
        try:
            sample = statistics.sample(layer)
        except SchemaMismatch:
            return None  # a store that keeps no sample
        rows = np.flatnonzero(for_targets(statistics, sample))[: max(FEWEST_GRADED, MOST_BYTES // max(image_bytes, 1))]
        return cls(sample.image[rows], sample.peak[rows]) if len(rows) >= FEWEST_GRADED else None

    def with_trend(
        self,
        target: Target,
        references: References,
        rows: Mapping[str, Float[np.ndarray, "image channel level"]],
    ) -> Target:
        """A target with the trend of its neurons, whose ``references`` it was measured on; ``rows`` are those of the
        images at every node."""
        usable = np.flatnonzero(
            np.all([np.isfinite(each.reshape(len(each), -1)).all(1) for each in rows.values()], axis=0)
        )
        if len(usable) < len(self.image):  # images on which the network overflows
            some = {name: each[usable] for name, each in rows.items()}
            return GradedImages(self.image[usable], self.peak[usable]).with_trend(target, references, some)
        known = references.image != NOBODY
        scores = np.where(known, references.score, 0).sum(1, dtype=np.float64) / np.maximum(known.sum(1), 1)
        others = np.stack([~np.isin(self.image, own) for own in references.image], axis=1)
        peaks = self.peak[:, target.neurons]
        nodes = {
            name: replace(node, trend=trend(rows[name], peaks, others, node.quantiles, scores, target.count))
            for name, node in target.nodes.items()
        }
        return replace(target, nodes=nodes)


@dataclass(frozen=True)
class WantedRows:
    """Rows of graded images at every node: which, and what makes them."""

    key: tuple[Hashable, ...]
    make: Callable[[], dict[str, Float[np.ndarray, "image channel level"]]] = field(compare=False)


@lru_cache(maxsize=1)
def kept_rows(wanted: WantedRows) -> dict[str, Float[np.ndarray, "image channel level"]]:
    """These rows, made at a process's first task of a layer: the same for all its neurons."""
    return wanted.make()


def for_targets(statistics: Statistics, sample: Sample) -> Bool[np.ndarray, "image"]:
    """Which images of a sample targets learn from, about half: by a hash of their keys, so that they are the same
    however the data set is sharded or extended."""
    return halved(statistics.keys(sample.image.tolist()))


def learnt_from(statistics: Statistics, layer: str) -> Int64[np.ndarray, "image"]:
    """The images that targets of a layer may learn a trend from."""
    try:
        sample = statistics.sample(layer)
    except SchemaMismatch:
        return np.empty(0, np.int64)
    images: np.ndarray = sample.image[for_targets(statistics, sample)]
    return images


def halved(keys: Sequence[str]) -> Bool[np.ndarray, "image"]:
    """Whether images of these keys are of the half that targets learn from."""
    return np.array([unit_hash(f"half {key}") < 0.5 for key in keys], bool)
