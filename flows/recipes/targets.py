"""What a neuron's references have in common: each block's references measured, summed and written as targets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow, task

from flows.jobs import TargetsJob, settled
from flows.running.blocks import TURNS_OF_TARGETS, BlockWork, made_in_turn, run_blocks, shares_of, tasks_of
from flows.running.cluster import in_process
from flows.running.neurons import parse_neurons
from flows.running.process import load_stored
from flows.steps.targets import crops_of, declare_targets, images_learnt, measured_blocks, moved_of_tasks, unmeasured
from stores import open_statistics
from stores.arrays.blocks import BlocksAt
from stores.arrays.leases import Holder


@flow(name="measure-targets", task_runner=in_process(), persist_result=False)
def measure_targets(job: TargetsJob) -> str:
    """Targets of the asked neurons, whole blocks at a time; blocks that are there are left alone. Returns the
    variant's name."""
    job = settled(job)
    statistics = open_statistics(job.store, "r+")
    loaded = load_stored(statistics, job.running.of_flow)
    references = statistics.references(job.layer, job.variant.references)
    neurons = parse_neurons(job.neurons, loaded.survey.layer(job.layer).channels, job.layer)
    targets = declare_targets(statistics, job, loaded)
    # No matter to targets, but pictures would be refused.
    if todo := unmeasured(statistics, targets.variant, targets.nodes):
        sys.stderr.write(f"{todo}\n")
    live = references.live(job.variant.fewest)
    counted = {blocks: crops_of(references, live, blocks) for blocks in tasks_of(targets, neurons, live)}
    moved = moved_of_tasks(
        statistics, job.shards, references, live, counted, lambda: images_learnt(statistics, targets)
    )
    own = {blocks: {"urls": urls} for blocks, urls in moved.items()}
    at = BlocksAt(job.store, "statistics", targets.path)
    title, shares = f"{job.layer}: references measured", shares_of(job.running)
    work = BlockWork(at, counted, "references", title, own, TURNS_OF_TARGETS, shares)
    run_blocks(measure, job.model_copy(update={"shards": ()}), work, "targets")
    return targets.variant


@task(name="measure-blocks")
def measure(job: TargetsJob, at: BlocksAt, groups: Sequence[Mapping[str, Any]], holder: Holder) -> None:
    """Measure some blocks' targets, unless another run does, group by group; each is written while the next is
    measured."""
    made_in_turn(job, at, groups, holder, measured_blocks)
