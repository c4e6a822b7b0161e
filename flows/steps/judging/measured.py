"""A layer of an atlas as it is measured: which neurons have pictures, and which picture is of whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Int8, UInt8

from flows.steps.judging.photographs import CHUNK
from flows.steps.targets import origin_of
from stores import Atlas, AtlasLayer, Statistics

USUAL = ("peak_mean", "peak_deviation")
"""Statistics of a layer that tell how strongly a neuron is activated."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A layer in an atlas, with what is needed to measure it."""

    pictures: AtlasLayer
    statistics: Statistics
    neurons: Sequence[int]
    """Those with a picture."""
    counts: Int[np.ndarray, "neuron"]
    """Pictures of each of them: one for each facet."""

    @classmethod
    def of(cls, atlas: Atlas, statistics: Statistics, layer: str) -> Measured:
        """A layer of an atlas as it is now."""
        pictures = atlas.layer(layer)
        neurons = np.flatnonzero(pictures.made()).tolist()
        return cls(pictures, statistics, neurons, pictures.facets(neurons))

    @cached_property
    def rows(self) -> Int[np.ndarray, "picture"]:
        """The position among `neurons` of the one that each picture is of; its facets follow each other."""
        return np.repeat(np.arange(len(self.neurons)), self.counts)

    @cached_property
    def shown(self) -> Int[np.ndarray, "picture"]:
        """The neuron that each picture is of."""
        shown: np.ndarray = np.asarray(self.neurons, np.int64)[self.rows]
        return shown

    @cached_property
    def facets(self) -> Int[np.ndarray, "picture"]:
        """The facet that each picture is of."""
        facets: np.ndarray = np.arange(len(self.rows)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        return facets

    @cached_property
    def scores(self) -> Float[np.ndarray, "neuron rank"]:
        """The peaks of each neuron on its references."""
        scores: np.ndarray = self.statistics.reference(self.layer, "score")[self.neurons]
        return scores

    def together(self) -> list[Int[np.ndarray, "_picture"]]:
        """The pictures of each neuron."""
        return np.split(np.arange(len(self.rows)), np.cumsum(self.counts)[:-1])

    def reference_facets(self, neurons: Sequence[int]) -> Int8[np.ndarray, "neuron rank"] | None:
        """The facet of each reference of some neurons; None where they are not divided."""
        origin = origin_of(self.statistics, self.pictures)
        return None if origin is None else origin.reference_facets(neurons)

    @cached_property
    def divided(self) -> tuple[tuple[int, ...], ...] | None:
        """The same of all of `neurons`, as a value."""
        of = self.reference_facets(self.neurons)
        return None if of is None else tuple(map(tuple, of.tolist()))

    @property
    def layer(self) -> str:
        """The layer's name, as the atlas has it."""
        return self.pictures.name

    @property
    def side(self) -> int:
        """Side of every picture of the layer, in pixels."""
        return self.pictures.side

    def pixels(self, sibling: AtlasLayer | None = None) -> Iterator[UInt8[np.ndarray, "picture side side colour"]]:
        """All pictures, in chunks; or those that a sibling has in their place."""
        for start in range(0, len(self.rows), CHUNK):
            part = slice(start, start + CHUNK)
            yield (sibling or self.pictures).pixels(self.shown[part].tolist(), self.facets[part].tolist())

    def over_layer(self, values: np.ndarray) -> Float[np.ndarray, "neuron"]:
        """Values of `neurons` as a row for every neuron of the layer, NaN for those without a picture."""
        rows = np.full(self.pictures.count, np.nan, np.float32)
        rows[self.neurons] = values
        return rows

    def by_facet(self, values: np.ndarray) -> Float[np.ndarray, "neuron facet"]:
        """Values of pictures as a row for every neuron of the layer, NaN where there is no picture."""
        rows = np.full((self.pictures.count, self.pictures.most_facets), np.nan, np.float32)
        rows[self.shown, self.facets] = values
        return rows

    def means(self, values: np.ndarray) -> Float[np.ndarray, "neuron"]:
        """Values of pictures, averaged over those of each neuron that are known."""
        known = np.isfinite(values)
        sums = np.bincount(self.rows, np.where(known, values, 0), len(self.neurons))
        counts = np.bincount(self.rows, known, len(self.neurons))
        means: np.ndarray = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return means
