"""What a neuron's references have in common: each block's references measured, summed and written as targets."""

from __future__ import annotations

from prefect import flow, task

from flows.artifacts import summarised
from flows.cluster import in_process, run_tasks
from flows.jobs import MomentsJob, settled
from flows.neuron_ranges import blocks_of, parse_neurons
from flows.progress import bar
from flows.statistics_store import live_neurons, references_of, stored_worker
from flows.target_store import declare_targets, measure_block, task_groups, undone
from stores.schema import open_store


@flow(name="measure-references", task_runner=in_process())
def measure_references(job: MomentsJob) -> str:
    """Targets of the asked neurons, whole blocks at a time; blocks that are there are left alone. Returns the
    variant's name."""
    job = settled(job)
    open_store(job.store, "statistics", "r")  # a misspelt store is refused, not made
    group = open_store(job.store, "statistics", "a")
    here = stored_worker(group, job.place.here)
    layer = here.found.layer(job.layer)
    references = references_of(group, job.layer, job.variant.references)
    neurons = parse_neurons(job.neurons, layer.channels, job.layer)
    declared = declare_targets(group, job, here)
    missing = undone(group, declared, blocks_of(neurons, declared.block))
    live = live_neurons(references, job.variant.fewest)
    tasks = [blocks for blocks in task_groups(group, job.layer, job.variant) if missing & set(blocks)]
    calls = [({"job": job, "blocks": blocks}, declared.crops(references, live, blocks)) for blocks in tasks]
    wanted = sum(count for _, count in calls)
    with summarised("targets", job.store, "references", wanted), bar(f"{job.layer}: references measured", wanted):
        run_tasks(job.place, measure_blocks, calls)
    return declared.variant


@task(name="measure-blocks")
def measure_blocks(job: MomentsJob, blocks: tuple[int, ...]) -> None:
    """Measure and write some blocks' targets."""
    measure_block(job, blocks)
