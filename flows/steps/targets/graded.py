"""Images of every strength: half of a layer's sample, from which targets learn what goes with a neuron's activation.

The other half asks what pictures tell (`flows.steps.judging.photographs`), so that no picture is asked about an image
that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int64

from stores import Statistics
from vital.measuring.kept.sampling import unit_hash
from vital.measuring.targets import GradedImages, first_drawn

SHARE = 0.5
"""Of a sample, that targets learn from."""


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
    """The images that a layer's trends are learnt from, whose rows take ``image_bytes`` each."""
    images, draws = _drawn(statistics, layer)
    chosen: np.ndarray = images[first_drawn(draws, image_bytes)]
    return chosen


def learnt_from(statistics: Statistics, layer: str) -> Int64[np.ndarray, "image"]:
    """The images that targets of a layer may learn a trend from; none where the store keeps no sample."""
    return _drawn(statistics, layer)[0]


def _drawn(statistics: Statistics, layer: str) -> tuple[Int64[np.ndarray, "image"], Float[np.ndarray, "image"]]:
    if not statistics.keeps_sample(layer):
        return np.empty(0, np.int64), np.empty(0)
    images = statistics.sample(layer, ()).image
    draws = draws_of(statistics.keys(images.tolist()))
    return images[draws < SHARE], draws[draws < SHARE]


def draws_of(keys: Sequence[str]) -> Float[np.ndarray, "image"]:
    """Of each image a number from 0 to 1, by a hash of its key: the same however the data set is sharded or extended,
    and another one than the lot by which a sample is drawn. Below `SHARE` targets may learn from it."""
    return np.array([unit_hash(f"half {key}") for key in keys], np.float64)
