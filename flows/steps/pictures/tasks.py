"""How a layer's pictures are shared out among tasks, and what each of these is told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped

from flows.jobs import BLOCK, AtlasJob
from flows.running.cluster import UNKNOWN_WORKERS
from flows.running.neurons import blocks_of
from flows.steps.pictures.declaring import on_gpu
from flows.steps.targets import OnTheFly
from stores import AtlasLayer, Statistics, Targets
from stores.arrays.blocks import neurons_of_block
from vital.pictures.device import ON_GPU as MOST_ON_GPU


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
        asked = OnTheFly.of_tasks(job.measuring(), statistics, targets, live, tasks)
        return {blocks: pictures_of(live, blocks) for blocks in tasks}, {
            blocks: {"fly": of_task} for blocks, of_task in asked.items()
        }
    targets.require_blocks([block for blocks in tasks for block in blocks])
    facets = targets.facets() * targets.made()
    return {blocks: pictures_of(facets, blocks) for blocks in tasks}, {}


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
    elif not running.deterministic and on_gpu(running):
        most = MOST_ON_GPU
    workers = running.workers or (UNKNOWN_WORKERS if running.scheduler else 1)
    share = -(-live // workers)
    return BLOCK * max(1, min(most // BLOCK, -(-share // BLOCK)))


def pictures_of(made: Shaped[np.ndarray, "neuron"], blocks: Sequence[int]) -> int:
    """How many pictures the task of ``blocks`` has to make, of neurons whose targets are ``made``, given as truths or
    as numbers of facets."""
    return sum(int(made[neurons_of_block(block, BLOCK, len(made))].sum()) for block in blocks)
