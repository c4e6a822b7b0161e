"""Which photographs a neuron's page shows, and which neurons a photograph leads to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from flows.pages.photographs.across import Excited, across
from flows.pages.photographs.thumbnails import Thumbnails
from flows.steps.targets import origin_of, variant_of
from stores import AtlasLayer, References, Sample
from stores.dataset.kept.references import LOWEST
from stores.pages.content import Photo
from vital.measuring.kept.ranking import NOBODY
from vital.network.probe import CLASSES

MOST, LEAST = 9, 4
"""References of a neuron on its page, and photographs of its least activation."""
ALIKE = 0.25
"""Of a neuron's references: a label that as many have leads to it."""


@dataclass(frozen=True)
class Shown:
    """A photograph on a neuron's page: its image id, and whether it is there for the neuron's least activation."""

    image: int
    lowest: bool = False


@dataclass(frozen=True)
class NeuronPhotographs:
    """What is shown of one neuron: its references, best first; photographs from its strongest to its weakest; and those
    of its least activation. Where it has several facets, the references are of the first, and ``facets`` has those of
    further ones by number. ``shown`` has all of them in this order."""

    references: Sequence[Photo]
    across: Sequence[Photo]
    lowest: Sequence[Photo]
    shown: Sequence[Shown]
    facets: Mapping[int, Sequence[Photo]]


class LayerPhotographs:
    """The photographs of the neurons of a layer."""

    def __init__(self, photographs: Thumbnails, pictures: AtlasLayer) -> None:
        statistics = photographs.statistics
        layer, variant = pictures.name, pictures.variant
        self._origin = origin_of(statistics, pictures)
        settings = variant_of(statistics.targets(layer, variant))
        self._all, self._layer, self._classes = photographs, layer, layer == CLASSES
        self._references = statistics.references(layer, settings.references)
        self._shown: set[int] = set()
        self._lowest = statistics.references(layer + LOWEST) if layer + LOWEST in statistics.ranked() else None
        self._excited = Excited()

    def of(self, neurons: Sequence[int]) -> tuple[dict[int, NeuronPhotographs], dict[str, int]]:
        """The photographs of some neurons, and the image ids by the photographs' names."""
        of_neurons: dict[int, NeuronPhotographs] = {}
        images: dict[str, int] = {}
        facets = None if self._origin is None else self._origin.reference_facets(neurons)
        sample = self._sample(neurons)
        self._excited.add(neurons, sample)
        for position, neuron in enumerate(neurons):
            of = None if facets is None else facets[position]
            first, *further = self._by_facet(neuron, of)
            parts = (
                first,
                self._across(sample, position),
                self._best(self._lowest, neuron, range(LEAST)) if self._lowest else [],
            )
            images |= {photo.file: image for part in (*parts, *further) for photo, image in part}
            shown = [Shown(image, group == 2) for group, part in enumerate((*parts, *further)) for _, image in part]
            references, across_all, lowest = ([photo for photo, _ in part] for part in parts)
            others = {number: [photo for photo, _ in part] for number, part in enumerate(further, 1)}
            of_neurons[neuron] = NeuronPhotographs(references, across_all, lowest, shown, others)
        self._shown.update(images.values())
        return of_neurons, images

    def _sample(self, neurons: Sequence[int]) -> Sample:
        if not self._all.statistics.keeps_sample(self._layer):  # then only the ends are known
            return Sample(np.zeros(0, np.int64), np.zeros((0, len(neurons)), np.float32))
        return self._all.statistics.sample(self._layer, neurons)

    def seen_by(self, neurons: Sequence[int]) -> list[tuple[Photo, list[int]]]:
        """The photographs that were asked for, each with neurons that it excites: first those that have it among their
        references, where it stands nearest to the best; then those of which more is known (`Excited`)."""
        images = self._references.image[list(neurons)]
        row, rank = np.nonzero(np.isin(images, list(self._shown)))
        excited_by: dict[int, dict[int, None]] = {}
        for one in np.lexsort((row, rank)):
            excited_by.setdefault(int(images[row[one], rank[one]]), {})[int(neurons[row[one]])] = None
        for image, excited in self._excited.by_image().items():
            if image in self._shown and excited:
                excited_by.setdefault(image, {}).update(dict.fromkeys(excited))
        return [(self._all.photo(image, math.nan, None), list(named)) for image, named in sorted(excited_by.items())]

    def labelled(self, neurons: Sequence[int]) -> list[tuple[str, int, int]]:
        """Labels that many of a neuron's references have, `ALIKE` of them or more and at least two: the label's name,
        the neuron, and how many. None for classes, whose references are chosen by their label."""
        labels = self._all.labels(self._references.image[list(neurons)])
        if self._classes or not labels.size:
            return []
        fewest = max(2, math.ceil(ALIKE * labels.shape[1]))
        width = int(labels.max()) + 1
        row, rank = np.nonzero(labels >= 0)
        pairs, counts = np.unique(row * width + labels[row, rank], return_counts=True)
        kept = counts >= fewest
        return [
            (self._all.name_of(pair % width), int(neurons[pair // width]), count)
            for pair, count in zip(pairs[kept].tolist(), counts[kept].tolist(), strict=True)
        ]

    def _by_facet(self, neuron: int, facets: Int[np.ndarray, "rank"] | None) -> list[list[tuple[Photo, int]]]:
        """Up to `MOST` references of each facet, best first; of a neuron without facets those of one."""
        of = np.zeros(self._references.image.shape[1], int) if facets is None else facets
        return [
            self._best(self._references, neuron, np.flatnonzero(of == facet)[:MOST].tolist())
            for facet in range(max(0, int(of.max(initial=0))) + 1)
        ]

    def _best(self, references: References, neuron: int, ranks: Sequence[int]) -> list[tuple[Photo, int]]:
        shown = []
        for rank in ranks:
            image = references.image[neuron, rank] if rank < references.image.shape[1] else NOBODY
            if image == NOBODY:
                continue
            edges = [float(edge) / self._all.side for edge in references.box[neuron, rank]]
            box = None if edges[2] >= 1 else (edges[0], edges[1], edges[2], edges[3])
            # members of a class are chosen by a number drawn from their keys, which is no activation
            score = math.nan if self._classes else float(references.score[neuron, rank])
            shown.append((self._all.photo(int(image), score, box), int(image)))
        return shown

    def _across(self, sample: Sample, position: int) -> list[tuple[Photo, int]]:
        peaks = sample.peak[:, position]
        return [
            (self._all.photo(image, float(peaks[row]), None, above), image)
            for row, above in across(peaks)
            for image in [int(sample.image[row])]
        ]
