"""A layer of an atlas, claimed for its statistics and settings and declared before any task makes a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import cast, get_args

import torch

from flows.jobs import BLOCK, AtlasJob, Running
from flows.running.cluster import workers_have_gpus
from flows.running.neurons import blocks_of
from flows.running.process import LoadedModel
from flows.running.workers.devices import device_name
from flows.steps.reading.labels import network_names
from flows.steps.targets import (
    declare_origin,
    declare_targets,
    planned_nodes,
    pushed,
    unmeasured,
    variant_of,
)
from stores import AtlasLayer, Statistics, Targets, open_atlas
from stores.atlas.layer import PictureArrays
from stores.atlas.origin import Origin
from stores.errors import MissingStore, SchemaMismatch
from vital.network.arithmetic import ON_GPU, resolved
from vital.network.layers import Layer, Survey
from vital.network.probe import CLASSES, INPUT
from vital.pictures.baselines import check_method
from vital.pictures.optimise import records_of
from vital.settings import PictureMethod, Precision

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


def check_side(larger: Survey, layer: Layer, nodes: Iterable[str]) -> None:
    """Refuse a side of pictures at which the network does not run as far as the layer and its nodes."""
    for name in (layer.reads.layer, *nodes):
        if name != INPUT:
            larger.layer(name)


def asked_targets(job: AtlasJob, statistics: Statistics, loaded: LoadedModel, neurons: Sequence[int]) -> Targets:
    """The targets of a run's pictures of ``neurons``: `targets_of`, where what they are pushed from was measured. On
    the fly that is asked before they are declared, since from then on the store keeps how they are measured.

    Raises:
        SchemaMismatch: as `targets_of` does; or a node has no statistics over the data set.
    """
    if job.targets == "fly":
        _refuse_unmeasured(job, statistics, planned_nodes(statistics, job.measuring(), loaded), neurons)
        return targets_of(statistics, job, loaded)
    targets = targets_of(statistics, job, loaded)
    _refuse_unmeasured(job, statistics, targets.nodes, neurons)
    return targets


def _refuse_unmeasured(job: AtlasJob, statistics: Statistics, nodes: Sequence[str], neurons: Sequence[int]) -> None:
    """Refuse pictures of ``neurons`` that are to be pushed from what is usual of ``nodes`` where no pass has measured
    this, before anything is written. Those that are made already need nothing more.

    Raises:
        SchemaMismatch: such a node has no statistics over the data set.
    """
    variant = job.variant.label(job.layer == CLASSES)
    todo = unmeasured(statistics, variant, nodes) if pushed(job.layer, variant, job.picture) else ""
    if not todo:
        return
    with suppress(MissingStore):
        layer = open_atlas(job.out).layer(job.layer)
        if layer.declared and not layer.unwritten(blocks_of(neurons, BLOCK)):
            return
    raise SchemaMismatch(todo)


def declare_pictures(job: AtlasJob, statistics: Statistics, targets: Targets, loaded: LoadedModel) -> AtlasLayer:
    """Claim the atlas for these statistics and settings, and create the layer's arrays."""
    check_method(loaded.model, job.picture)
    if job.picture.parametrisation == "phase":
        statistics.spectrum()  # refuses statistics without one
    atlas = open_atlas(job.out, "a")
    atlas.claim(statistics)
    levels, layer = targets.levels, atlas.layer(job.layer)
    version = ALGORITHMS[job.picture.method]
    precision = _precision(job, layer.settings.get("precision") if job.layer in atlas.layers else None)
    made_by = {**job.picture.model_dump(mode="json"), "precision": precision}
    # those of before lack it: they were made in the network's units
    far = {} if loaded.model.preprocessing.counts_as_published else {"unit": "published"}
    layer.claim({"variant": targets.variant, "algorithm": version, **made_by, **far})
    nodes = {node: len(levels[node]) for node in targets.nodes}
    colours = loaded.model.preprocessing.colours
    origin = Origin.of(layer)
    if not layer.declared and (job.targets == "fly" or origin):  # what is there of other targets stays as it is
        declare_origin(layer, targets, BLOCK)
    elif origin is not None:
        origin.require()
    records = records_of(job.picture.steps)
    layer.declare(PictureArrays(targets.count, BLOCK, records, nodes, targets.most_facets, colours))
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
        return ON_GPU if on_gpu(job.running) else "float32"
    return resolved(asked, torch.device(device_name(job.running.device)))


def on_gpu(running: Running) -> bool:
    """Whether tasks run on a GPU: with a scheduler as far as the run says so, or the workers that are there."""
    if running.scheduler:
        return running.on_gpu or workers_have_gpus(running)
    return device_name(running.device).startswith("cuda")
