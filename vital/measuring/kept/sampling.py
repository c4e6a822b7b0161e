"""Images drawn by lot: some of a layer for all its neurons. Samples merge with ``+``: it keeps the first by lot of two
disjoint sets of images."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

SAMPLE_BYTES = 1 << 27
"""Of the peaks of a sample, at most: 2000 images of 16,777 neurons, 335 of 100,000."""


def unit_hash(key: str) -> float:
    """A number from 0 to 1 that depends on nothing but the key: the first of a class by it are its references,
    however sharded.

    >>> 0 <= unit_hash("n01440764_10026") < 1
    True
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


@dataclass(frozen=True)
class Sample:
    """The ``most`` images of the least lots, and the peak of every neuron on each; the ids ascend.

    A lot is the `unit_hash` of the image's key, so that the same images are drawn however they are sharded, and for
    every layer. Single precision: half of it ends at 65504.
    """

    lots: Float64[np.ndarray, "image"]
    images: Int64[np.ndarray, "image"]
    peaks: Float32[np.ndarray, "image neuron"]
    most: int

    @classmethod
    def none(cls, neurons: int, most: int) -> Sample:
        """A sample of no image: the identity of ``+``."""
        return cls(np.empty(0), np.empty(0, np.int64), np.empty((0, neurons), np.float32), most)

    def __add__(self, other: Sample) -> Sample:
        """The first by lot of both, as many as the left one keeps at most; of equal lots the lesser id."""
        images, lots = np.concatenate([self.images, other.images]), np.concatenate([self.lots, other.lots])
        kept = np.lexsort((images, lots))[: self.most]
        kept = kept[np.argsort(images[kept])]
        peaks = np.empty((len(kept), self.peaks.shape[1]), np.float32)
        mine = kept < len(self.images)
        peaks[mine] = self.peaks[kept[mine]]
        peaks[~mine] = other.peaks[kept[~mine] - len(self.images)]
        return Sample(lots[kept], images[kept], peaks, self.most)

    def shifted(self, by: int) -> Sample:
        """The same with image ids counted from another start."""
        return replace(self, images=self.images + by)


def sample_size(neurons: int, asked: int) -> int:
    """How many images the sample of a layer has at most: as asked, where their peaks fit into `SAMPLE_BYTES`."""
    return min(asked, max(1, SAMPLE_BYTES // (4 * neurons)))


class Sampler:
    """The sample of a layer while a pass goes on: of a batch only the images that are drawn are copied."""

    def __init__(self, neurons: int, most: int) -> None:
        self._most = most
        self._drawn: list[tuple[float, int, int]] = []
        """A heap of minus the lot, minus the id, and the row of the peaks: the first is the first to go."""
        self._peaks = np.empty((most, neurons), np.float32)

    def add(
        self,
        lots: Float64[np.ndarray, "image"],
        images: Int[np.ndarray, "image"],
        peaks: Float32[np.ndarray, "image neuron"],
    ) -> None:
        """Add a batch of images: those of the least lots are kept, each with every neuron's peak on it."""
        for index, (lot, image) in enumerate(zip(lots.tolist(), images.tolist(), strict=True)):
            row = len(self._drawn)
            if row < self._most:
                heapq.heappush(self._drawn, (-lot, -image, row))
            elif self._drawn and (-lot, -image) > self._drawn[0][:2]:
                row = self._drawn[0][2]
                heapq.heapreplace(self._drawn, (-lot, -image, row))
            else:
                continue
            self._peaks[row] = peaks[index]

    def sample(self) -> Sample:
        """The images drawn from all that were added so far."""
        drawn = sorted((-image, -lot, row) for lot, image, row in self._drawn)
        rows = np.array([row for _, _, row in drawn], np.int64)
        lots, images = np.array([lot for _, lot, _ in drawn]), np.array([image for image, _, _ in drawn], np.int64)
        return Sample(lots, images, self._peaks[rows], self._most)
