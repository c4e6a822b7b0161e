"""Targets in the statistics store: declared before any task, measured and written by blocks, read for pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from flows.jobs import BLOCK, TargetsJob
from flows.running.process import LoadedModel, load_stored
from flows.steps.images import moved_urls
from flows.steps.measuring import TaskReferences
from stores import References, Statistics, Targets, open_statistics
from stores.arrays.blocks import neurons_of_block
from stores.arrays.names import placed
from stores.dataset.targets import P_VALUE, REFERENCE_FACET
from stores.errors import PictureStatus, SchemaMismatch
from vital.errors import UnsuitableInput
from vital.measuring.image_sums import LEVELS
from vital.measuring.ranking import NOBODY
from vital.measuring.rows import resample, stored_levels
from vital.measuring.targets import Facets, NodeTarget, Target
from vital.network.neurons import Readout
from vital.network.nodes import matched_nodes
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES, INPUT
from vital.settings import VariantSettings

HALF_LIMIT = 6e4
"""Activations beyond this do not fit float16."""
COLOURS = 3
FACET_RULE = 1
"""Version of how a neuron's facets are found; targets of another version are not added to."""

NO_FACETS = {REFERENCE_FACET: -1, P_VALUE: 1.0}
"""What neurons without references have."""


def planned_nodes(statistics: Statistics, job: TargetsJob, loaded: LoadedModel) -> tuple[str, ...]:
    """The nodes that are matched, in the order in which they run; nothing is written. Refuses another model than the
    store's, and nodes that come too late."""
    statistics.check(loaded.model.identity)
    nodes = matched_nodes(loaded.survey, job.layer, job.variant.nodes, loaded.model.name)
    if job.variant.most_facets > 1 and nodes[-1] == INPUT:
        raise UnsuitableInput(
            f"facets of layer {job.layer!r} were asked for, which no layer comes before that could tell its references "
            "apart: leave out --facets"
        )
    return nodes


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
    neurons, most = survey.layer(job.layer).channels, job.variant.most_facets
    ranks = job.variant.references or statistics.ranked()[job.layer]
    facets = (most, ranks) if most > 1 else None
    targets.declare(at, channels, neurons, BLOCK, () if classes else nodes[1:], dtypes, facets)
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
    # Left out where there are none, and named with the rule that finds them where there are: see precision.
    several = job.variant.most_facets > 1
    fields = job.variant.model_dump(mode="json", exclude=left_out if several else left_out | {"facets"})
    fields |= {"facet_rule": FACET_RULE} if several else {}
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
    target, facets = None, list[Facets]()
    if neurons:
        found = TaskReferences.of(statistics, job, loaded, nodes, neurons, urls)
        facets = found.facets() if job.variant.most_facets > 1 else []
        target = found.target(facets)
    dead = {row for row, seen in zip(every, references.live(), strict=True) if not seen and job.layer != CLASSES}
    for block in blocks:
        arrays = _block_arrays(targets, target, block, dead)
        if facets:
            _add_facets(arrays, targets.neurons_of(block), neurons, facets)
        targets.write(block, arrays)


def _add_facets(arrays: dict[str, np.ndarray], block: range, neurons: Sequence[int], facets: Sequence[Facets]) -> None:
    """The facets of a block's neurons, of which there are references."""
    for neuron, found in zip(neurons, facets, strict=True):
        if neuron in block:
            arrays[REFERENCE_FACET][neuron - block.start, : len(found.of)] = found.of
            arrays[P_VALUE][neuron - block.start] = found.p


def _block_arrays(
    targets: Targets, target: Target | None, block: int, none: Collection[int] = ()
) -> dict[str, np.ndarray]:
    """A block's rows of every declared array: the target's where there is one, zero elsewhere, and the status that
    says which. Neurons in ``none`` are zero on every image, such as features of a dictionary that are never active. A
    target has a neuron's facets one after the other."""
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
            parts = {"quantiles": node.quantiles, "relevant": node.relevant, "importance": node.importance}
            for part, values in parts.items():
                if values is not None:
                    arrays[f"{placed(name)}/{part}"][at] = values[position]
    if not all(np.isfinite(values).all() for values in arrays.values()):
        finite = np.all([np.isfinite(values).reshape(len(neurons), -1).all(1) for values in arrays.values()], axis=0)
        arrays["status"][~finite] = PictureStatus.NON_FINITE
    return arrays


@dataclass(frozen=True, eq=False)
class Usual:
    """What the images of the data set give at a node, as far as it is known: what is particular to a neuron differs
    from it."""

    rows: Float[np.ndarray, "channel level"] | None = None
    """The mean of their sorted rows."""
    deviation: Float[np.ndarray, "channel"] | None = None
    """Standard deviation of each channel's mean."""


def usual_of(statistics: Statistics, targets: Targets) -> dict[str, Usual]:
    """What is usual of each node that is matched, whatever the neuron: for all batches of a task."""
    levels = targets.levels()
    return {node: _usual_at(statistics, targets, node, levels[node]) for node in targets.nodes}


def _usual_at(statistics: Statistics, targets: Targets, node: str, levels: np.ndarray) -> Usual:
    if not targets.variant.startswith("image"):
        # Patches are enlarged: they differ from whole images in much that is not particular to the neuron.
        return Usual()
    classes, shape = targets.layer == CLASSES, targets.array(f"{placed(node)}/quantiles").shape[-2:]
    if node == INPUT:
        return Usual() if classes else Usual(_usual_colours(statistics, levels, shape))
    rows = _known(statistics, node, "quantiles", shape)
    if rows is None or classes:
        return Usual(rows)
    return Usual(rows, _known(statistics, node, "mean_deviation", shape[:1]))


def read_targets(
    targets: Targets,
    neurons: Sequence[int],
    usual: Mapping[str, Usual],
    readout: Readout | None = None,
    facets: Sequence[int] | None = None,
) -> Target:
    """Targets of some neurons, in full precision, of the first facet of each unless ``facets`` says which. ``usual`` is
    that of every node, and ``readout`` says how the neurons read their layer."""
    rows, levels = targets.rows(neurons, facets=facets), targets.levels()

    def part(node: str, name: str) -> np.ndarray | None:
        values = rows.get(f"{placed(node)}/{name}")
        return None if values is None else np.asarray(values, np.float32)

    nodes = {}
    for node in targets.nodes:
        quantiles = part(node, "quantiles")
        assert quantiles is not None  # declared for every node
        nodes[node] = NodeTarget(
            levels[node], quantiles, part(node, "relevant"), part(node, "importance"),
            usual[node].rows, usual[node].deviation,
        )  # fmt: skip
    own = np.asarray(rows["own"], np.float32)
    return Target(targets.layer, np.asarray(neurons, np.int64), nodes, levels["own"], own, rows["count"], readout)


def _known(statistics: Statistics, node: str, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """A statistic of a node over the data set, where the pass over the shards measured it."""
    try:
        values = statistics.statistic(node, name)
    except SchemaMismatch:
        return None
    return values if values.shape == shape else None


def _usual_colours(statistics: Statistics, levels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The data set's mean sorted colours, as the network sees them."""
    shown = Preprocessing.of(statistics.base)
    try:
        rows = statistics.colour_rows()
    except SchemaMismatch:
        return None
    mean, std = (np.asarray(part)[:, None] for part in (shown.mean, shown.std))
    seen = torch.from_numpy((rows / 255 - mean) / std)
    usual = resample(seen, stored_levels(shown.side**2, LEVELS), levels).numpy().astype(np.float32)
    return usual if usual.shape == shape else None
