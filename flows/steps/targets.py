"""Targets in the statistics store: declared before any task, measured and written by blocks, read for pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from flows.jobs import BLOCK, TargetsJob
from flows.running.process import LoadedModel, load_stored
from flows.running.progress import tick
from flows.steps.images import AHEAD, moved_urls, reference_crops
from stores import References, Statistics, Targets, open_statistics
from stores.arrays.blocks import neurons_of_block
from stores.arrays.names import placed
from stores.errors import PictureStatus, SchemaMismatch
from vital.measuring.ranking import NOBODY
from vital.measuring.rows import stored_levels
from vital.measuring.targets import Crop, NodeTarget, Target, measure
from vital.network.neurons import Readout
from vital.network.nodes import matched_nodes
from vital.network.probe import CLASSES, INPUT
from vital.pictures.device import FIXED, fitting, measured_batch
from vital.settings import VariantSettings

HALF_LIMIT = 6e4
"""Activations beyond this do not fit float16."""
COLOURS = 3


def planned_nodes(statistics: Statistics, job: TargetsJob, loaded: LoadedModel) -> tuple[str, ...]:
    """The nodes that are matched, in the order in which they run; nothing is written. Refuses another model than the
    store's, and nodes that come too late."""
    statistics.check(loaded.model.identity)
    return matched_nodes(loaded.survey, job.layer, job.variant.nodes, loaded.model.name)


def declare_targets(statistics: Statistics, job: TargetsJob, loaded: LoadedModel) -> Targets:
    """Claim the variant, then create its arrays and write their levels: once, before any task. Other settings under
    the same name are refused by the field that differs."""
    nodes, classes, levels = planned_nodes(statistics, job, loaded), job.layer == CLASSES, statistics.levels
    side, survey = loaded.model.preprocessing.side, loaded.survey
    sites = {node: side**2 if node == INPUT else survey.layer(node).sites for node in nodes}
    channels = {node: COLOURS if node == INPUT else survey.layer(node).channels for node in nodes}
    at = {node: stored_levels(sites[node], levels) for node in nodes}
    at["own"] = stored_levels(survey.layer(job.layer).sites, levels)
    targets = statistics.targets(job.layer, job.variant.label(classes))
    # What was chosen first stays: the greatest activation may grow with the data set.
    half = all(_largest(statistics, node) < HALF_LIMIT for node in nodes)
    dtype = (targets.claimed or {}).get("type") or ("float16" if half else "float32")
    _check_precision(job, targets)
    targets.claim({**_identity(job, nodes), "type": dtype})
    dtypes = dict.fromkeys(("quantiles", "relevant"), str(dtype))
    targets.declare(at, channels, survey.layer(job.layer).channels, BLOCK, () if classes else nodes[1:], dtypes)
    return targets


def _check_precision(job: TargetsJob, targets: Targets) -> None:
    """Refuse another precision than the one that these targets were begun in."""
    begun = (targets.claimed or {"precision": job.precision}).get("precision", "float32")
    if begun != job.precision:
        raise SchemaMismatch(
            f"targets {targets.variant} of layer {job.layer!r} were begun in {begun} but now it is {job.precision}: "
            f"repeat --precision {begun}, or write to another store"
        )


def _identity(job: TargetsJob, nodes: Sequence[str]) -> dict[str, Any]:
    left_out = {"nodes", "crop", "relevance"} if job.layer == CLASSES else {"nodes"}
    fields = job.variant.model_dump(mode="json", exclude=left_out)
    # Left out where it is exact: targets that were measured before there was a choice are of the same variant.
    rough = {} if job.precision == "float32" else {"precision": job.precision}
    return {**fields, **rough, "nodes": list(nodes), "block": BLOCK}


def _largest(statistics: Statistics, node: str) -> float:
    if node == INPUT:
        return 0.0
    try:
        ends = [statistics.statistic(node, name) for name in ("minimum", "maximum")]
    except SchemaMismatch:
        return np.inf  # a node that the pass over the shards did not measure
    return float(max(np.abs(end).max() for end in ends))


def variant_of(targets: Targets) -> VariantSettings:
    """The settings that targets were measured with."""
    fields = targets.settings
    return VariantSettings(**{name: value for name, value in fields.items() if name in VariantSettings.model_fields})


def live_neurons(statistics: Statistics, targets: Targets) -> Bool[np.ndarray, "neuron"]:
    """Neurons with enough references to be measured: what the blocks of a task depend on, for targets and pictures
    alike."""
    variant = variant_of(targets)
    return statistics.references(targets.layer, variant.references).live(variant.fewest)


def crops_of(references: References, live: Bool[np.ndarray, "neuron"], blocks: Sequence[int]) -> int:
    """How many references the task of ``blocks`` has to measure."""
    return len(_images_of(references, live, blocks))


def _images_of(
    references: References, live: Bool[np.ndarray, "neuron"], blocks: Sequence[int]
) -> Int64[np.ndarray, "reference"]:
    rows = [row for block in blocks for row in neurons_of_block(block, BLOCK, len(live)) if live[row]]
    images = references.image[rows]
    taken: np.ndarray = images[images != NOBODY]
    return taken


def moved_of_tasks(
    statistics: Statistics,
    patterns: Sequence[str],
    references: References,
    live: Bool[np.ndarray, "neuron"],
    tasks: Collection[tuple[int, ...]],
) -> dict[tuple[int, ...], dict[str, str]]:
    """Of each task the shards it reads that are not where they were: base name to where they are now. Patterns are
    expanded here, once a run, and a task is told of its own shards alone."""
    moved = moved_urls(statistics, patterns)
    if not moved:
        return {blocks: {} for blocks in tasks}
    shards = statistics.shards()
    ends = np.cumsum(shards.images)  # an image id is a row of the index, where shards follow each other
    names = {
        blocks: shards.name[np.unique(np.searchsorted(ends, _images_of(references, live, blocks), "right"))]
        for blocks in tasks
    }
    return {blocks: {str(name): moved[name] for name in of_task if name in moved} for blocks, of_task in names.items()}


def measure_blocks(job: TargetsJob, blocks: Sequence[int], urls: Mapping[str, str]) -> None:
    """Measure the references of all live neurons of ``blocks`` together, then write each block. ``urls`` are as in
    `moved_of_tasks`."""
    statistics = open_statistics(job.store, "r+")
    loaded = load_stored(statistics, job.running)
    nodes = planned_nodes(statistics, job, loaded)
    targets = statistics.targets(job.layer, job.variant.label(job.layer == CLASSES))
    every = [row for block in blocks for row in targets.neurons_of(block)]
    references = statistics.references(job.layer, job.variant.references, every)
    live = references.live(job.variant.fewest)
    neurons = [row for row, alive in zip(every, live, strict=True) if alive]
    target = _measured(statistics, job, loaded, nodes, neurons, urls) if neurons else None
    dead = {row for row, seen in zip(every, references.live(), strict=True) if not seen and job.layer != CLASSES}
    for block in blocks:
        targets.write(block, _block_arrays(targets, target, block, dead))


def _measured(
    statistics: Statistics,
    job: TargetsJob,
    loaded: LoadedModel,
    nodes: Sequence[str],
    neurons: Sequence[int],
    urls: Mapping[str, str],
) -> Target:
    """The targets of some neurons."""
    whole = job.layer == CLASSES or job.variant.crop == "image"
    preprocessing, layer = loaded.model.preprocessing, loaded.survey.layer(job.layer)
    references = statistics.references(job.layer, job.variant.references, neurons)
    places = statistics.reference_places(job.layer, neurons, job.variant.references)

    def of(neurons: Sequence[int], crops: Iterable[Crop], batch: int, progress: Callable[[int], None]) -> Target:
        layouts, kind = loaded.survey.layouts(), job.variant.relevance
        return measure(
            loaded.model, job.layer, neurons, crops, nodes, layouts, kind, statistics.levels, batch, progress,
            layer.readout, job.precision,
        )  # fmt: skip

    def whole_task(batch: int) -> Target:
        ahead, decoders = max(AHEAD, 2 * batch), job.running.decoders
        crops = reference_crops(statistics, preprocessing, references, places, whole, urls, ahead, decoders)
        counted: list[int] = []

        def count(references: int) -> None:
            counted.append(references)
            tick(references)

        try:
            return of(neurons, (Crop(pixels, rows) for pixels, rows in crops), batch, count)
        except BaseException:
            tick(-sum(counted))
            raise

    def alone() -> Target:
        blank = torch.zeros(3, preprocessing.side, preprocessing.side, dtype=torch.uint8)
        return of(neurons[:1], [Crop(blank, (0,))], 1, lambda references: None)

    return fitting(_batch(job, loaded, alone), whole_task, "reference", job.running.deterministic)


def _batch(job: TargetsJob, loaded: LoadedModel, alone: Callable[[], object]) -> int:
    """References in one pass: as asked; one size where the arithmetic may depend on it; or what fits on a GPU, by what
    one ``alone`` takes."""
    device = loaded.device
    if isinstance(job.batch, int):
        return job.batch
    if device.type != "cuda" or job.running.deterministic:
        return FIXED[device.type]
    return measured_batch(alone, device)


def _block_arrays(
    targets: Targets, target: Target | None, block: int, none: Collection[int] = ()
) -> dict[str, np.ndarray]:
    """A block's rows of every declared array: the target's where there is one, zero elsewhere, and the status that
    says which. Neurons in ``none`` are zero on every image, such as features of a dictionary that are never active."""
    neurons, arrays = targets.neurons_of(block), targets.empty(block)
    few = PictureStatus.TOO_FEW_REFERENCES
    arrays["status"][:] = [PictureStatus.DEAD if neuron in none else few for neuron in neurons]
    if target is None:
        return arrays
    for position, neuron in enumerate(int(one) for one in target.neurons):
        if neuron not in neurons:
            continue
        row = neuron - neurons.start
        arrays["own"][row], arrays["count"][row] = target.own[position], target.count[position]
        dead = targets.layer != CLASSES and not target.own[position].any()
        arrays["status"][row] = PictureStatus.DEAD if dead else PictureStatus.MADE
        for name, node in target.nodes.items():
            parts = {"quantiles": node.quantiles, "relevant": node.relevant, "importance": node.importance}
            for part, values in parts.items():
                if values is not None:
                    arrays[f"{placed(name)}/{part}"][row] = values[position]
    if not all(np.isfinite(values).all() for values in arrays.values()):
        finite = np.all([np.isfinite(values).reshape(len(neurons), -1).all(1) for values in arrays.values()], axis=0)
        arrays["status"][~finite] = PictureStatus.NON_FINITE
    return arrays


def read_targets(
    statistics: Statistics, targets: Targets, neurons: Sequence[int], readout: Readout | None = None
) -> Target:
    """Targets of some neurons, in full precision; ``readout`` says how they read their layer."""
    rows, levels = targets.rows(neurons), targets.levels()

    def part(node: str, name: str) -> np.ndarray | None:
        values = rows.get(f"{placed(node)}/{name}")
        return None if values is None else np.asarray(values, np.float32)

    nodes = {}
    for node in targets.nodes:
        quantiles = part(node, "quantiles")
        assert quantiles is not None  # declared for every node
        # Patches are enlarged: they differ from whole images in much that is not particular to the neuron.
        usual = _usual(statistics, node, quantiles.shape[1:]) if targets.variant.startswith("image") else None
        nodes[node] = NodeTarget(levels[node], quantiles, part(node, "relevant"), part(node, "importance"), usual)
    own = np.asarray(rows["own"], np.float32)
    return Target(targets.layer, np.asarray(neurons, np.int64), nodes, levels["own"], own, rows["count"], readout)


def _usual(statistics: Statistics, node: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The node's mean sorted row over the data set, where the pass over the shards measured it."""
    try:
        rows = statistics.statistic(node, "quantiles")
    except SchemaMismatch:
        return None
    return rows if rows.shape == shape else None
