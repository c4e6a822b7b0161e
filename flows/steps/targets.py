"""Targets in the statistics store: declared before any task, measured and written by blocks, read for pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from flows.jobs import BLOCK, TargetsJob
from flows.running.neurons import joined_blocks
from flows.running.process import LoadedModel, load_stored
from flows.running.progress import aside
from flows.steps.images import moved_urls
from flows.steps.measuring import TaskReferences, add_facets, block_arrays
from stores import References, Statistics, Targets, open_statistics
from stores.arrays.blocks import neurons_of_block
from stores.arrays.names import placed
from stores.dataset.index import ShardRows
from stores.errors import MissingShard, SchemaMismatch
from stores.files import safe_url
from stores.shards.reading import absent
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

ROW_STEPS = 256
"""Steps from the least to the greatest value of a stored row, at least: benchmarks/dictionary.py has what they cost."""
HALF_LIMIT = 6e4
"""Activations beyond this do not fit float16."""
FACET_RULE = 1
"""Version of how a neuron's facets are found; targets of another version are not added to."""


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


def declare_targets(statistics: Statistics, job: TargetsJob, loaded: LoadedModel, fly: bool = False) -> Targets:
    """Claim the variant, then create its arrays and write their levels: once, before any task. Other settings under
    the same name are refused by the field that differs. On the ``fly`` the arrays are in this process's memory, and the
    statistics keep of them what they are measured with."""
    nodes, classes, levels = planned_nodes(statistics, job, loaded), job.layer == CLASSES, statistics.levels
    side, survey = loaded.model.preprocessing.side, loaded.survey
    sites = {node: side**2 if node == INPUT else survey.layer(node).sites for node in nodes}
    channels = {
        node: loaded.model.preprocessing.colours if node == INPUT else survey.layer(node).channels for node in nodes
    }
    at = {node: stored_levels(sites[node], levels) for node in nodes}
    at["own"] = stored_levels(survey.layer(job.layer).sites, levels)
    targets = statistics.targets(job.layer, job.variant.label(classes))
    # What was chosen first stays: the greatest activation may grow with the data set.
    half = all(_largest(statistics, node) < HALF_LIMIT for node in nodes)
    dtype = (targets.claimed or {}).get("type") or ("float16" if half else "float32")
    # So do rows as they are, of a version that did not round them.
    steps = {"row_steps": ROW_STEPS} if targets.claimed is None or "row_steps" in targets.claimed else {}
    _check_precision(job, targets, "--target-precision" if fly else "--precision")
    targets.claim({**_identity(job, nodes), "type": dtype, **steps})
    targets = targets.in_memory() if fly else targets
    dtypes = dict.fromkeys(("quantiles", "relevant"), str(dtype))
    neurons, most = survey.layer(job.layer).channels, job.variant.most_facets
    ranks = job.variant.references or statistics.ranked()[job.layer]
    facets = (most, ranks) if most > 1 else None
    targets.declare(at, channels, neurons, BLOCK, () if classes else nodes[1:], dtypes, facets)
    return targets


def _check_precision(job: TargetsJob, targets: Targets, option: str) -> None:
    """Refuse another precision than the one that these targets were begun in."""
    begun = (targets.claimed or {"precision": job.precision}).get("precision", "float32")
    if begun != job.precision:
        raise SchemaMismatch(
            f"targets {targets.variant} of layer {job.layer!r} were begun in {begun} but now it is {job.precision}: "
            f"repeat {option} {begun}, or write to another store"
        )


def _identity(job: TargetsJob, nodes: Sequence[str]) -> dict[str, Any]:
    left_out = {"nodes", "crop", "relevance"} if job.layer == CLASSES else {"nodes"}
    # Left out where there are none, and named with the rule that finds them where there are: see precision.
    several = job.variant.most_facets > 1
    left_out |= set() if several else {"facets"}
    left_out |= set() if several and job.variant.split == "always" else {"split"}
    fields = job.variant.model_dump(mode="json", exclude=left_out)
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
    read = {blocks: shards.name[_holding(shards, _images_of(references, live, blocks))] for blocks in tasks}
    return {blocks: {str(name): moved[name] for name in of_task if name in moved} for blocks, of_task in read.items()}


def _holding(shards: ShardRows, images: Int64[np.ndarray, "image"]) -> Int64[np.ndarray, "shard"]:
    """The shards that hold some images, each once."""
    ends = np.cumsum(shards.images)  # an image id is a row of the index, where shards follow each other
    return np.unique(np.searchsorted(ends, images, "right"))


def measure_blocks(job: TargetsJob, blocks: Sequence[int], urls: Mapping[str, str]) -> None:
    """Measure the references of all live neurons of ``blocks`` together, then write each block. ``urls`` are as in
    `moved_of_tasks`."""
    statistics = open_statistics(job.store, "r+")
    loaded = load_stored(statistics, job.running)
    targets = statistics.targets(job.layer, job.variant.label(job.layer == CLASSES))
    _measure_into(targets, statistics, job, loaded, blocks, urls)


@dataclass(frozen=True)
class OnTheFly:
    """What a task measures before it makes pictures of its blocks."""

    together: tuple[tuple[int, ...], ...]
    """Blocks that are measured together: as `measure_blocks` is given them, so that targets have the same bytes."""
    urls: Mapping[str, str]
    """As in `moved_of_tasks`."""

    @classmethod
    def of_tasks(
        cls, job: TargetsJob, statistics: Statistics, live: Bool[np.ndarray, "neuron"], tasks: Sequence[tuple[int, ...]]
    ) -> dict[tuple[int, ...], OnTheFly]:
        """That of each task of pictures.

        Raises:
            MissingShard: one that holds references of a task is not where it should be.
        """
        references, shards = statistics.references(job.layer, job.variant.references), statistics.shards()
        group_of = {block: group for group in joined_blocks(live, BLOCK) for block in group}
        together = {blocks: tuple(dict.fromkeys(group_of[block] for block in blocks)) for blocks in tasks}
        every = {blocks: tuple(block for group in groups for block in group) for blocks, groups in together.items()}
        moved = moved_of_tasks(statistics, job.shards, references, live, every.values())
        now = {name: url for urls in moved.values() for name, url in urls.items()}
        read = _images_of(references, live, sorted({block for blocks in every.values() for block in blocks}))
        urls = [now.get(str(shards.name[one]), str(shards.url[one])) for one in _holding(shards, read)]
        if (gone := absent(urls)) is not None:
            raise MissingShard(
                f"there is no shard at {safe_url(gone)}, whose images targets on the fly are measured on: say with "
                "--shards (shards=) where it is now, or run `vital targets` where it is"
            )
        return {blocks: cls(groups, moved[every[blocks]]) for blocks, groups in together.items()}


def measured_targets(statistics: Statistics, job: TargetsJob, loaded: LoadedModel, asked: OnTheFly) -> Targets:
    """Targets in memory, with the bytes that `measure_blocks` would write."""
    targets = declare_targets(statistics, job, loaded, fly=True)
    with aside():
        for blocks in asked.together:
            _measure_into(targets, statistics, job, loaded, blocks, asked.urls)
    return targets


def _measure_into(
    targets: Targets,
    statistics: Statistics,
    job: TargetsJob,
    loaded: LoadedModel,
    blocks: Sequence[int],
    urls: Mapping[str, str],
) -> None:
    nodes = planned_nodes(statistics, job, loaded)
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
    steps = targets.settings.get("row_steps")
    for block in blocks:
        arrays = block_arrays(targets, target, block, dead, steps)
        if facets:
            add_facets(arrays, targets.neurons_of(block), neurons, facets)
        targets.write(block, arrays)


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
