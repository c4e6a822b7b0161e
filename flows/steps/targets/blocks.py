"""Targets measured block by block: written into the statistics store, or on the fly into memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from flows.jobs import BLOCK, TargetsJob
from flows.running.neurons import joined_blocks
from flows.running.process import LoadedModel, load_stored
from flows.running.progress import aside
from flows.steps.images import moved_urls
from flows.steps.targets.declaring import declare_targets, planned_nodes
from flows.steps.targets.graded import chosen_images
from flows.steps.targets.measuring import TaskReferences, add_facets, block_arrays
from stores import References, Statistics, Targets, open_statistics
from stores.arrays.blocks import neurons_of_block
from stores.arrays.names import placed
from stores.dataset.index import ShardRows
from stores.dataset.targets import TREND
from stores.errors import MissingShard
from stores.files import safe_url
from stores.shards.reading import absent
from vital.measuring.kept.ranking import NOBODY
from vital.measuring.targets import Facets, graded_bytes
from vital.network.probe import CLASSES


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


def images_learnt(statistics: Statistics, targets: Targets) -> Int64[np.ndarray, "image"]:
    """The images that every task of these targets, which are declared, learns a trend from, whatever its neurons; none
    where they learn none."""
    if TREND not in targets.settings:
        return np.empty(0, np.int64)
    shapes = [targets.array(f"{placed(node)}/{TREND}").shape[1:] for node in targets.nodes]
    return chosen_images(statistics, targets.layer, graded_bytes(shapes))


def moved_of_tasks(
    statistics: Statistics,
    patterns: Sequence[str],
    references: References,
    live: Bool[np.ndarray, "neuron"],
    tasks: Collection[tuple[int, ...]],
    learnt: Callable[[], Int64[np.ndarray, "image"]],
) -> dict[tuple[int, ...], dict[str, str]]:
    """Of each task the shards it reads that are not where they were: base name to where they are now. Patterns are
    expanded here, once a run, and a task is told of its own shards alone. Which images are ``learnt`` from is asked
    where a shard moved: it costs the keys of a sample."""
    moved = moved_urls(statistics, patterns)
    if not moved:
        return {blocks: {} for blocks in tasks}
    shards, graded = statistics.shards(), learnt()
    read = {
        blocks: shards.name[_holding(shards, np.append(_images_of(references, live, blocks), graded))]
        for blocks in tasks
    }
    return {blocks: {str(name): moved[name] for name in of_task if name in moved} for blocks, of_task in read.items()}


def _holding(shards: ShardRows, images: Int64[np.ndarray, "image"]) -> Int64[np.ndarray, "shard"]:
    """The shards that hold some images, each once."""
    ends = np.cumsum(shards.images)  # an image id is a row of the index, where shards follow each other
    return np.unique(np.searchsorted(ends, images, "right"))


def measured_blocks(job: TargetsJob, blocks: Sequence[int], urls: Mapping[str, str]) -> Callable[[], None]:
    """Measure the references of all live neurons of ``blocks`` together, and give what then writes each block: a thread
    may do that while others are measured, since it asks nothing of the network. ``urls`` are as in `moved_of_tasks`."""
    statistics = open_statistics(job.store, "r+")
    loaded = load_stored(statistics, job.running)
    targets = statistics.targets(job.layer, job.variant.label(job.layer == CLASSES))
    return _measured_for(targets, statistics, job, loaded, blocks, urls)


@dataclass(frozen=True)
class OnTheFly:
    """What a task measures before it makes pictures of its blocks."""

    together: tuple[tuple[int, ...], ...]
    """Blocks that are measured together: as `measured_blocks` is given them, so that targets have the same bytes."""
    urls: Mapping[str, str]
    """As in `moved_of_tasks`."""

    @classmethod
    def of_tasks(
        cls,
        job: TargetsJob,
        statistics: Statistics,
        targets: Targets,
        live: Bool[np.ndarray, "neuron"],
        tasks: Sequence[tuple[int, ...]],
    ) -> dict[tuple[int, ...], OnTheFly]:
        """That of each task of pictures, whose ``targets`` are declared.

        Raises:
            MissingShard: one that holds references of a task is not where it should be.
        """
        if not tasks:
            return {}
        references, shards = statistics.references(job.layer, job.variant.references), statistics.shards()
        group_of = {block: group for group in joined_blocks(live, BLOCK) for block in group}
        together = {blocks: tuple(dict.fromkeys(group_of[block] for block in blocks)) for blocks in tasks}
        every = {blocks: tuple(block for group in groups for block in group) for blocks, groups in together.items()}
        learnt = images_learnt(statistics, targets)
        moved = moved_of_tasks(statistics, job.shards, references, live, every.values(), lambda: learnt)
        now = {name: url for urls in moved.values() for name, url in urls.items()}
        asked = sorted({block for blocks in every.values() for block in blocks})
        read = np.append(_images_of(references, live, asked), learnt)
        urls = [now.get(str(shards.name[one]), str(shards.url[one])) for one in _holding(shards, read)]
        if (gone := absent(urls)) is not None:
            raise MissingShard(
                f"there is no shard at {safe_url(gone)}, whose images targets on the fly are measured on: say with "
                "--shards (shards=) where it is now, or run `vital targets` where it is"
            )
        return {blocks: cls(groups, moved[every[blocks]]) for blocks, groups in together.items()}


def measured_targets(statistics: Statistics, job: TargetsJob, loaded: LoadedModel, asked: OnTheFly) -> Targets:
    """Targets in memory, with the bytes that `measured_blocks` would have written."""
    targets = declare_targets(statistics, job, loaded, fly=True)
    with aside():
        for blocks in asked.together:
            _measured_for(targets, statistics, job, loaded, blocks, asked.urls)()
    return targets


def _measured_for(
    targets: Targets,
    statistics: Statistics,
    job: TargetsJob,
    loaded: LoadedModel,
    blocks: Sequence[int],
    urls: Mapping[str, str],
) -> Callable[[], None]:
    """What writes the blocks into ``targets``, when their references are measured."""
    nodes = planned_nodes(statistics, job, loaded)
    every = [row for block in blocks for row in targets.neurons_of(block)]
    references = statistics.references(job.layer, job.variant.references, every)
    live = references.live(job.variant.fewest)
    neurons = [row for row, alive in zip(every, live, strict=True) if alive]
    target, facets = None, list[Facets]()
    if neurons:
        measured = TaskReferences.of(statistics, job, loaded, nodes, neurons, urls)
        facets = measured.facets() if job.variant.most_facets > 1 else []
        target = measured.target(facets)
        if TREND in targets.settings:
            target = measured.with_trend(target)
    dead = {row for row, seen in zip(every, references.live(), strict=True) if not seen and job.layer != CLASSES}

    def write() -> None:
        steps = targets.settings.get("row_steps")
        for block in blocks:
            arrays = block_arrays(targets, target, block, dead, steps)
            if facets:
                add_facets(arrays, targets.neurons_of(block), neurons, facets)
            targets.write(block, arrays)

    return write
