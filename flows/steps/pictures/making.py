"""The pictures of a task's blocks: optimised in batches, and written while the next are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flows.jobs import AtlasJob
from flows.running.process import LoadedModel, fitting_batch, load_at_side, load_stored, stored_model
from flows.running.progress import tick
from flows.steps.pictures.declaring import targets_of
from flows.steps.targets import (
    OnTheFly,
    Usual,
    measured_targets,
    origin_rows,
    pushed,
    read_targets,
    usual_of,
    variant_of,
)
from stores import AtlasLayer, Statistics, Targets, open_atlas, open_statistics
from stores.arrays.blocks import COUNT, STATUS
from stores.arrays.names import placed
from stores.errors import PictureStatus
from vital.judging.metrics import MatchedCurve, matched_curves
from vital.measuring.image_sums import ColourDistribution
from vital.measuring.targets import Target
from vital.memory import in_batches
from vital.network.neurons import Readout
from vital.pictures.device import FIXED, dearest
from vital.pictures.optimise import Pictures, optimise
from vital.pictures.step import Begun
from vital.settings import PictureSettings, RelevanceKind

Facet = tuple[int, int]
"""A neuron and a facet of it, from 0."""


@dataclass(frozen=True, eq=False)
class _Work:
    """What a task needs to make pictures: opened and loaded once."""

    job: AtlasJob
    statistics: Statistics
    targets: Targets
    loaded: LoadedModel
    settings: PictureSettings
    """As the layer has them recorded: in a precision that is known."""
    readout: Readout | None
    """As the statistics have it: pictures of another side are read at the same place."""

    @classmethod
    def of(cls, job: AtlasJob, layer: AtlasLayer, fly: OnTheFly | None) -> _Work:
        statistics = open_statistics(job.store)
        stored = load_stored(statistics, job.running)
        readout = stored.survey.layer(job.layer).readout
        if fly is None:
            targets = targets_of(statistics, job, stored)
        else:
            targets = measured_targets(statistics, job.measuring(), stored, fly)
        loaded = load_at_side(stored_model(statistics), job.running, job.picture.side)
        settings = job.picture.model_copy(update={"precision": layer.settings["precision"]})
        return cls(job, statistics, targets, loaded, settings, readout)

    @cached_property
    def usual(self) -> dict[str, Usual]:
        """What the data set gives at each node, where pictures are pushed from it."""
        targets = self.targets
        if not pushed(targets.layer, targets.variant, self.settings):
            return dict.fromkeys(targets.nodes, Usual())
        return usual_of(self.statistics, targets)

    @cached_property
    def relevance(self) -> RelevanceKind:
        """How relevance was measured for the targets."""
        return variant_of(self.targets).relevance

    @cached_property
    def colours(self) -> ColourDistribution:
        """Mean and covariance of the data set's colours, which pictures begin with."""
        return ColourDistribution(*self.statistics.colours())

    def batch(self, facets: Sequence[Facet]) -> int:
        """Pictures that are optimised together: as asked; one size where it must not depend on free memory; or what
        fits into the device by the dearest steps of one picture."""
        device = self.loaded.device
        if isinstance(self.job.batch, int):
            return self.job.batch
        if self.job.running.deterministic:
            return FIXED[device.type]
        if not facets:
            return 1
        short = dearest(self.settings)
        what = (self.job.store, self.job.layer, self.targets.variant, self.targets.nodes, short.model_dump_json())
        return fitting_batch(self.loaded, what, lambda: self.pictures(facets[:1], settings=short))

    def pictures(
        self,
        facets: Sequence[Facet],
        progress: Callable[[int], None] = lambda step: None,
        settings: PictureSettings | None = None,
        begun: Begun | None = None,
    ) -> tuple[Target, Pictures]:
        """The targets of ``facets`` and what was optimised for them, from where it was ``begun``. Those of a neuron
        have the same random stream: they differ in their targets alone."""
        settings = settings or self.settings
        neurons, numbers = zip(*facets, strict=True)
        target = read_targets(self.targets, neurons, self.usual, self.readout, numbers)
        layouts = self.loaded.survey.layouts()
        spectrum = self.statistics.spectrum() if settings.parametrisation == "phase" else None
        return target, optimise(
            self.loaded.model, target, settings, layouts, self.relevance,
            colours=self.colours, spectrum=spectrum, progress=progress, begun=begun,
        )  # fmt: skip

    def rows(self, facets: Sequence[Facet], begun: Begun | None = None) -> dict[Facet, dict[str, np.ndarray]]:
        """The rows of the atlas of every one of ``facets``."""
        share = len(facets) / self.job.picture.steps
        target, pictures = self.pictures(facets, lambda step: tick(share), begun=begun)
        curves = matched_curves(self.loaded.model, target, pictures.pixels, self.loaded.survey.layouts())
        return {
            facet: _row(pictures, curves, position, int(target.count[position]))
            for position, facet in enumerate(facets)
        }


def made_blocks(job: AtlasJob, blocks: Sequence[int], fly: OnTheFly | None = None) -> Callable[[], None]:
    """Optimise all live neurons of ``blocks``, or the facets of each, in batches, and give what then writes each block:
    a thread may do that while others are optimised, since it asks nothing of the network. Targets are those stored, or
    are measured on the ``fly``."""
    layer = open_atlas(job.out, "r+").layer(job.layer)
    work = _Work.of(job, layer, fly)
    every = [neuron for block in blocks for neuron in work.targets.neurons_of(block)]
    status = dict(zip(every, work.targets.status(every).tolist(), strict=True))
    neurons = [neuron for neuron in every if status[neuron] == PictureStatus.MADE]
    counts = work.targets.facets(neurons).tolist()
    facets = [(neuron, facet) for neuron, count in zip(neurons, counts, strict=True) for facet in range(count)]
    made: dict[Facet, dict[str, np.ndarray]] = {}

    def make(part: slice, begun: Begun | None = None) -> None:
        made.update(work.rows(facets[part], begun))

    for _ in in_batches(len(facets), work.batch(facets), make, fixed=job.running.deterministic):
        pass
    targets = work.targets  # and no more of the work: what is written is kept in memory for as long as that takes

    def write() -> None:
        for block in blocks:
            arrays = _block_arrays(layer, block, job.picture.seed, status, made)
            layer.write(block, arrays | origin_rows(layer, targets, layer.neurons_of(block)))

    return write


def _row(pictures: Pictures, curves: Mapping[str, MatchedCurve], position: int, count: int) -> dict[str, np.ndarray]:
    row: dict[str, np.ndarray] = {
        COUNT: np.asarray(count),
        "pixels": pictures.pixels[position],
        "alpha": pictures.alpha[position],
        "loss": pictures.loss[position],
        STATUS: np.asarray(PictureStatus.MADE if pictures.finite[position] else PictureStatus.NON_FINITE),
    }
    for node, curve in curves.items():
        at = f"reached/{placed(node)}"
        row |= {f"{at}/picture": curve.picture[position], f"{at}/target": curve.target[position]}
    return row


def _block_arrays(
    layer: AtlasLayer, block: int, seed: int, status: Mapping[int, int], made: Mapping[Facet, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """A block's rows of every declared array; neurons without a picture keep the reason that their target gave. One
    whose facets are not all finite is not."""
    arrays, neurons = layer.empty(block), layer.neurons_of(block)
    arrays[STATUS][:] = [status[neuron] for neuron in neurons]
    arrays["seed"][:] = seed
    by_facet = layer.most_facets > 1
    for (neuron, facet), row in made.items():
        if neuron not in neurons:
            continue
        at = neuron - neurons.start
        if row[STATUS] != PictureStatus.MADE:
            arrays[STATUS][at] = row[STATUS]
        for name in row.keys() & arrays.keys() - {STATUS}:
            arrays[name][(at, facet) if by_facet else at] = row[name]
    return arrays
