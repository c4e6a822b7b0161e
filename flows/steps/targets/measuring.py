"""One task's references, measured: cut out of their images, forwarded in batches that fit, and summed for each neuron,
or for each facet of it; and the arrays of a block that this makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Int8

from flows.jobs import TargetsJob
from flows.running.process import LoadedModel, decoders_of, fitting_batch
from flows.running.progress import tick
from flows.steps.images import AHEAD, StoredImages, reference_crops
from flows.steps.targets.graded import WantedImages, chosen_images, graded_images
from stores import References, Statistics, Targets
from stores.arrays.names import placed
from stores.dataset.kept.places import Places
from stores.dataset.targets import P_VALUE, REFERENCE_FACET, TREND
from stores.errors import PictureStatus
from vital.measuring.kept.ranking import NOBODY
from vital.measuring.rows import stepped
from vital.measuring.targets import (
    FEWEST_GRADED,
    Attribution,
    Crop,
    Facets,
    GradedImages,
    Target,
    chance_of,
    find_facets,
    graded_bytes,
    image_rows,
    measure,
    reference_vectors,
)
from vital.memory import fitting
from vital.network.probe import CLASSES
from vital.pictures.device import FIXED

M = TypeVar("M")
Progress: TypeAlias = Callable[[int], None]
"""Is told of references that are done."""
NO_FACETS = {REFERENCE_FACET: -1, P_VALUE: 1.0}
"""What neurons without references have."""
OfCrops: TypeAlias = Callable[[Sequence[int], Iterable[Crop], int, Progress], M]
"""What measures crops: for these neurons, so many in one pass."""


@dataclass(frozen=True, eq=False)
class TaskReferences:
    """The references of some neurons of a layer, and how a task measures them."""

    statistics: Statistics
    job: TargetsJob
    loaded: LoadedModel
    nodes: Sequence[str]
    """What is matched, in the order in which it runs."""
    neurons: Sequence[int]
    urls: Mapping[str, str]
    """Where shards are that moved, by base name."""
    references: References
    places: Places

    @classmethod
    def of(
        cls,
        statistics: Statistics,
        job: TargetsJob,
        loaded: LoadedModel,
        nodes: Sequence[str],
        neurons: Sequence[int],
        urls: Mapping[str, str],
    ) -> TaskReferences:
        """The references of ``neurons``, read from the store."""
        references = statistics.references(job.layer, job.variant.references, neurons)
        places = statistics.reference_places(job.layer, neurons, job.variant.references)
        return cls(statistics, job, loaded, nodes, neurons, urls, references, places)

    @property
    def _attribution(self) -> Attribution:
        job = self.job
        return Attribution.of(self.loaded.survey, job.layer, job.variant.relevance, job.precision)

    def target(self, facets: Sequence[Facets] = ()) -> Target:
        """A row for each neuron, or for each of its ``facets``, in their order."""
        neurons, references = list(self.neurons), self.references
        if facets:
            rows = np.repeat(np.arange(len(facets)), [one.count for one in facets])
            neurons = np.asarray(self.neurons)[rows].tolist()
            of = rank_facets(references, facets)[rows]
            each = np.concatenate([np.arange(one.count) for one in facets])
            images = np.where(of == each[:, None], references.image[rows], NOBODY)
            references = References(images, references.score[rows], references.site[rows], references.box[rows])
        model, attribution, levels = self.loaded.model, self._attribution, self.statistics.levels

        def of_crops(neurons: Sequence[int], crops: Iterable[Crop], batch: int, progress: Progress) -> Target:
            return measure(
                model, attribution, neurons, crops, self.nodes, levels=levels, batch=batch, progress=progress
            )

        whole = self.job.layer == CLASSES or self.job.variant.crop == "image"
        return self._measured("rows", neurons, references, whole, of_crops)

    def with_trend(self, target: Target) -> Target:
        """A ``target`` of these neurons with their trend; without, where too few graded images are kept."""
        statistics, layer = self.statistics, self.job.layer
        image_bytes = graded_bytes(node.quantiles.shape[1:] for node in target.nodes.values())
        made_of = tuple(statistics.provenance.values())
        key = (statistics.url, made_of, layer, tuple(self.nodes), self.job.precision, image_bytes)
        graded = graded_images(WantedImages(key, lambda: self._graded(image_bytes)))
        if graded is None:
            return target
        peaks = statistics.sample(layer, self.neurons).peaks_on(graded.image)
        return graded.with_trend(target, self.references.image, self.references.score, peaks)

    def _graded(self, image_bytes: int) -> GradedImages | None:
        images = chosen_images(self.statistics, self.job.layer, image_bytes)
        if len(images) < FEWEST_GRADED:
            return None
        score, site = np.zeros((len(images), 1), np.float32), np.zeros((len(images), 1), np.int32)
        alone = References(images[:, None], score, site, np.zeros((*site.shape, 4), np.int32))
        model, attribution, levels = self.loaded.model, self._attribution, self.statistics.levels

        def of_crops(
            neurons: Sequence[int], crops: Iterable[Crop], batch: int, progress: Progress
        ) -> dict[str, np.ndarray]:
            pixels = (crop.pixels for crop in crops)
            return image_rows(model, attribution, pixels, self.nodes, levels=levels, batch=batch)

        task = replace(self, references=alone, places=self.statistics.places(images.tolist()))
        neurons = list(self.neurons[:1]) * len(images)
        rows = task._measured("graded", neurons, alone, True, of_crops)
        graded = GradedImages.finite(images, rows, self.statistics.sample(self.job.layer).peaks_on(images))
        return graded if len(graded.image) >= FEWEST_GRADED else None

    def facets(self) -> list[Facets]:
        """The facets of each neuron, as the last node that is matched tells its references apart: by the patches that
        excite it most, also where targets are of whole images. What else is in these tells nothing of the neuron
        (`python benchmarks/facets.py`). Of classes, and of a neuron at one site, no patch is known to."""
        neurons, ranks = self.references.image.shape
        model, attribution, node = self.loaded.model, self._attribution, self.nodes[-1]

        def of_crops(neurons: Sequence[int], crops: Iterable[Crop], batch: int, progress: Progress) -> np.ndarray:
            return reference_vectors(model, attribution, neurons, crops, node, batch=batch, progress=progress)

        # Each reference by itself, as if it were another neuron's.
        image, score, site = (
            part.reshape(-1, 1) for part in (self.references.image, self.references.score, self.references.site)
        )
        alone = References(image, score, site, self.references.box.reshape(-1, 1, 4))
        whole = self.job.layer == CLASSES or self.loaded.survey.layer(self.job.layer).reads.site is not None
        vectors = self._measured("vectors", np.repeat(self.neurons, ranks).tolist(), alone, whole, of_crops)
        by_neuron = zip(self.neurons, self.references.image, vectors.reshape(neurons, ranks, -1), strict=True)
        most, always = self.job.variant.most_facets, self.job.variant.split == "always"
        return [
            find_facets(rows[image != NOBODY], chance_of(self.job.layer, neuron), most, always=always)
            for neuron, image, rows in by_neuron
        ]

    def _measured(
        self, what: str, neurons: Sequence[int], references: References, whole: bool, of_crops: OfCrops[M]
    ) -> M:
        """What is measured of ``references``, whose rows are of ``neurons``, as ``whole`` images or their patches, in
        batches that fit."""
        preprocessing, running = self.loaded.model.preprocessing, self.job.running
        share = 1 / passes(self.job)

        def whole_task(batch: int) -> M:
            ahead, decoders = max(AHEAD, 2 * batch), decoders_of(running, self.loaded.device)
            source = StoredImages(self.statistics, preprocessing, self.urls, decoders, ahead)
            crops = reference_crops(source, references, self.places, whole)
            counted: list[float] = []

            def count(measured: int) -> None:
                counted.append(measured * share)
                tick(measured * share)

            try:
                return of_crops(neurons, (Crop(pixels, rows) for pixels, rows in crops), batch, count)
            except BaseException:
                tick(-sum(counted))
                raise

        def alone() -> M:
            blank = torch.zeros(preprocessing.colours, preprocessing.side, preprocessing.side, dtype=torch.uint8)
            return of_crops(neurons[:1], [Crop(blank, (0,))], 1, lambda measured: None)

        return fitting(self._batch(what, alone), whole_task, "reference", running.deterministic)

    def _batch(self, what: str, alone: Callable[[], object]) -> int:
        """References in one pass: as asked; one size where the arithmetic may depend on it; or what fits on a GPU, by
        what one ``alone`` takes."""
        device = self.loaded.device
        if isinstance(self.job.batch, int):
            return self.job.batch
        if device.type != "cuda" or self.job.running.deterministic:
            return FIXED[device.type]
        asked = (self.job.store, self.job.layer, self.job.variant, self.job.precision, tuple(self.nodes), what)
        return fitting_batch(self.loaded, asked, alone)


def passes(job: TargetsJob) -> int:
    """How often every reference is read and measured: facets have to be known before their means are taken."""
    return 2 if job.variant.most_facets > 1 else 1


def rank_facets(references: References, facets: Sequence[Facets]) -> Int8[np.ndarray, "neuron rank"]:
    """The facet of every reference of some neurons, −1 where there is none."""
    of = np.full(references.image.shape, -1, np.int8)
    for row, one in enumerate(facets):
        of[row, references.image[row] != NOBODY] = one.of
    return of


def add_facets(arrays: dict[str, np.ndarray], block: range, neurons: Sequence[int], facets: Sequence[Facets]) -> None:
    """The facets of a block's neurons, of which there are references."""
    for neuron, divided in zip(neurons, facets, strict=True):
        if neuron in block:
            arrays[REFERENCE_FACET][neuron - block.start, : len(divided.of)] = divided.of
            arrays[P_VALUE][neuron - block.start] = divided.p


def block_arrays(
    targets: Targets, target: Target | None, block: int, none: Collection[int] = (), steps: int | None = None
) -> dict[str, np.ndarray]:
    """A block's rows of every declared array: the target's where there is one, zero elsewhere, and the status that
    says which. Neurons in ``none`` are zero on every image, such as features of a dictionary that are never active. A
    target has a neuron's facets one after the other. Rows are rounded to ``steps``, where it is said."""
    neurons, arrays = targets.neurons_of(block), targets.empty(block)
    few = PictureStatus.TOO_FEW_REFERENCES
    arrays["status"][:] = [PictureStatus.DEAD if neuron in none else few for neuron in neurons]
    by_facet, facets = targets.most_facets > 1, Counter[int]()
    arrays |= {name: np.full_like(arrays[name], value) for name, value in NO_FACETS.items() if by_facet}
    if target is None:
        return arrays
    for position, neuron in enumerate(int(one) for one in target.neurons):
        if neuron not in neurons:
            continue
        row = neuron - neurons.start
        at = (row, facets[neuron]) if by_facet else (row,)
        facets[neuron] += 1
        arrays["own"][at], arrays["count"][at] = target.own[position], target.count[position]
        dead = targets.layer != CLASSES and not target.own[position].any()
        arrays["status"][row] = PictureStatus.DEAD if dead else PictureStatus.MADE
        for name, node in target.nodes.items():
            parts = {
                "quantiles": node.quantiles, TREND: node.trend, "relevant": node.relevant,
                "importance": node.importance,
            }  # fmt: skip
            for part, values in parts.items():
                if values is not None:
                    row_ = values[position]
                    arrays[f"{placed(name)}/{part}"][at] = stepped(row_, steps) if steps and row_.ndim > 1 else row_
    if not all(np.isfinite(values).all() for values in arrays.values()):
        finite = np.all([np.isfinite(values).reshape(len(neurons), -1).all(1) for values in arrays.values()], axis=0)
        arrays["status"][~finite] = PictureStatus.NON_FINITE
    return arrays
