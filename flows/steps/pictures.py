"""The atlas store as the flows see it: declared before any task, filled by blocks, recording what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Shaped

from flows.jobs import BLOCK, AtlasJob, Running
from flows.running.cluster import UNKNOWN_WORKERS, workers_have_gpus
from flows.running.neurons import blocks_of
from flows.running.process import LoadedModel, fitting_batch, load_at_side, load_stored, stored_model
from flows.running.progress import tick
from flows.running.workers.devices import device_name
from flows.steps.reading.labels import network_names
from flows.steps.targets import (
    OnTheFly,
    Usual,
    declare_origin,
    declare_targets,
    measured_targets,
    origin_rows,
    read_targets,
    usual_of,
    variant_of,
)
from stores import AtlasLayer, Statistics, Targets, open_atlas, open_statistics
from stores.arrays.blocks import COUNT, STATUS, neurons_of_block
from stores.arrays.names import placed
from stores.errors import PictureStatus, SchemaMismatch
from vital.judging.metrics import MatchedCurve, matched_curves
from vital.measuring.image_sums import ColourDistribution
from vital.measuring.targets import Target
from vital.memory import in_batches
from vital.network.arithmetic import ON_GPU, resolved
from vital.network.layers import Layer, Survey
from vital.network.neurons import Readout
from vital.network.probe import CLASSES, INPUT
from vital.pictures.baselines import check_method
from vital.pictures.device import FIXED, dearest
from vital.pictures.device import ON_GPU as MOST_ON_GPU
from vital.pictures.optimise import Pictures, optimise, records_of
from vital.pictures.step import Begun
from vital.settings import PictureMethod, PictureSettings, Precision

ALGORITHMS: Mapping[PictureMethod, int] = {"vital": 6, "pixel": 2, "fourier": 2, "maco": 2, "deepinversion": 2}
"""Version of how each method makes pictures of settings; those of another version are not added to. Of vital 2:
windows of class pictures are scored by the logit; 3: class pictures have the contrast of the data; 4: those of channels
have it, too, and match what their references share of their difference from the data set; 5: amplitudes fall
steeper; 6: no step is at half the side, and channels' own activations weigh a quarter."""


def targets_of(statistics: Statistics, job: AtlasJob, loaded: LoadedModel) -> Targets:
    """The targets that a job's pictures are made for; on the fly, what is known of them before they are measured.

    Raises:
        SchemaMismatch: they were not measured, or with other nodes or fewest references than are asked for.
    """
    if job.targets == "fly":
        return declare_targets(statistics, job.measuring(), loaded, fly=True)
    targets = statistics.targets(job.layer, job.variant.label(job.layer == CLASSES)).require()
    kept, asked = variant_of(targets), job.variant
    for name, has, wants in (
        ("nodes", sorted({*kept.nodes} - {INPUT}), sorted({*asked.nodes} - {INPUT})),
        ("fewest", kept.fewest, asked.fewest),
    ):
        if wants not in (has, [], 1):
            raise SchemaMismatch(
                f"{name} {wants} was asked for, but targets {targets.variant} of layer {job.layer!r} are stored with "
                f"{has}: leave it out, or have them measured with --targets fly in another store"
            )
    return targets


def planned_tasks(
    job: AtlasJob,
    statistics: Statistics,
    targets: Targets,
    live: Bool[np.ndarray, "neuron"],
    tasks: Sequence[tuple[int, ...]],
) -> tuple[dict[tuple[int, ...], float], dict[tuple[int, ...], dict[str, OnTheFly]]]:
    """How many pictures each task makes, as far as it is known, and what it is told beside its blocks.

    Raises:
        SchemaMismatch: targets of a task are not stored.
        MissingShard: one that targets are to be measured on is not where it should be.
    """
    if job.targets == "fly":
        asked = OnTheFly.of_tasks(job.measuring(), statistics, live, tasks)
        return {blocks: pictures_of(live, blocks) for blocks in tasks}, {
            blocks: {"fly": of_task} for blocks, of_task in asked.items()
        }
    targets.require_blocks([block for blocks in tasks for block in blocks])
    facets = targets.facets() * targets.made()
    return {blocks: pictures_of(facets, blocks) for blocks in tasks}, {}


def check_side(larger: Survey, layer: Layer, nodes: Iterable[str]) -> None:
    """Refuse a side of pictures at which the network does not run as far as the layer and its nodes."""
    for name in (layer.reads.layer, *nodes):
        if name != INPUT:
            larger.layer(name)


def declare_pictures(job: AtlasJob, statistics: Statistics, targets: Targets, loaded: LoadedModel) -> AtlasLayer:
    """Claim the atlas for these statistics and settings, and create the layer's arrays."""
    check_method(loaded.model, job.picture)
    if job.picture.parametrisation == "phase":
        statistics.spectrum()  # refuses statistics without one
    atlas = open_atlas(job.out, "a")
    atlas.claim(statistics)
    levels, layer = targets.levels(), atlas.layer(job.layer)
    version = ALGORITHMS[job.picture.method]
    precision = _precision(job, layer.settings.get("precision") if job.layer in atlas.layers else None)
    made_by = {**job.picture.model_dump(mode="json"), "precision": precision}
    layer.claim({"variant": targets.variant, "algorithm": version, **made_by})
    nodes = {node: len(levels[node]) for node in targets.nodes}
    colours = loaded.model.preprocessing.colours
    if job.targets == "fly" and not layer.declared:  # what is there already of other targets stays as it is
        declare_origin(layer, targets, BLOCK)
    layer.declare(targets.count, records_of(job.picture.steps), BLOCK, nodes, targets.most_facets, colours)
    layer.write_shown(loaded.model.preprocessing.shown_channels if colours != 3 else ())
    layer.write_names(_class_names(loaded, statistics, targets.count) if job.layer == CLASSES else [])
    return layer


def _class_names(loaded: LoadedModel, statistics: Statistics, count: int) -> list[str]:
    """What the network calls its classes, or else the data set; empty where neither names any."""
    own, of_images = loaded.model.class_names, network_names(statistics)
    names = [*own[:count], *[""] * (count - len(own))]
    named = [name or of_images.get(number, "") for number, name in enumerate(names)]
    return named if any(named) else []


def _precision(job: AtlasJob, begun: str | None) -> Precision:
    """What ``auto`` means for a layer's pictures: the precision that they were ``begun`` in, else what suits the device
    that tasks run on."""
    asked = job.picture.precision
    if asked == "auto" and begun in get_args(Precision):
        return cast(Precision, begun)
    if asked == "auto" and job.running.scheduler:
        return ON_GPU if _on_gpu(job.running) else "float32"
    return resolved(asked, torch.device(device_name(job.running.device)))


def _on_gpu(running: Running) -> bool:
    """Whether tasks run on a GPU: with a scheduler as far as the run says so, or the workers that are there."""
    if running.scheduler:
        return running.on_gpu or workers_have_gpus(running)
    return device_name(running.device).startswith("cuda")


def task_pictures(job: AtlasJob, layer: AtlasLayer, neurons: Sequence[int], live: Bool[np.ndarray, "neuron"]) -> int:
    """How many pictures a task of ``layer`` makes at most, as the first run chose it for the ``neurons`` that it was
    asked for.

    A task repeated has the same batches, hence the same bytes, and two runs lease each other the same tasks. So later
    runs, with other workers or another batch, keep to it.
    """
    kept = layer.per_task
    if kept is None:
        begun = bool(layer.done().any())  # by a version whose tasks were of one block's worth
        kept = BLOCK if begun else _chosen_pictures(job, pictures_of(live, blocks_of(neurons, BLOCK)))
        layer.write_per_task(kept)
    return kept


def _chosen_pictures(job: AtlasJob, live: int) -> int:
    """A batch's worth of whole blocks, yet so few that every worker gets a task. A batch that is measured is of up to
    `MOST_ON_GPU` on a GPU, and of less than a block elsewhere."""
    running, most = job.running, BLOCK
    if isinstance(job.batch, int):
        most = min(job.batch, MOST_ON_GPU)
    elif not running.deterministic and _on_gpu(running):
        most = MOST_ON_GPU
    workers = running.workers or (UNKNOWN_WORKERS if running.scheduler else 1)
    share = -(-live // workers)
    return BLOCK * max(1, min(most // BLOCK, -(-share // BLOCK)))


def pictures_of(made: Shaped[np.ndarray, "neuron"], blocks: Sequence[int]) -> int:
    """How many pictures the task of ``blocks`` has to make, of neurons whose targets are ``made``, given as truths or
    as numbers of facets."""
    return sum(int(made[neurons_of_block(block, BLOCK, len(made))].sum()) for block in blocks)


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
        """What the data set gives at each node."""
        return usual_of(self.statistics, self.targets)

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
        kind, layouts = variant_of(self.targets).relevance, self.loaded.survey.layouts()
        spectrum = self.statistics.spectrum() if settings.parametrisation == "phase" else None
        return target, optimise(
            self.loaded.model, target, settings, layouts, kind,
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
