"""What a neuron's references have in common: each block's references measured, summed and written as targets."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow, task

from flows.jobs import TargetsJob, settled
from flows.running.blocks import blocks_of, leased, parse_neurons, until_done
from flows.running.cluster import in_process, run_tasks
from flows.running.process import stored_worker
from flows.running.progress import bar, summarised
from flows.steps.dataset import live_neurons, references_of
from flows.steps.targets import declare_targets, measure_block, task_groups, undone
from stores.arrays.leases import Holder
from stores.arrays.schema import open_store
from stores.dataset.targets import target_path


@flow(name="measure-targets", task_runner=in_process())
def measure_targets(job: TargetsJob) -> str:
    """Targets of the asked neurons, whole blocks at a time; blocks that are there are left alone. Returns the
    variant's name."""
    job = settled(job)
    open_store(job.store, "statistics", "r")  # a misspelt store is refused, not made
    group = open_store(job.store, "statistics", "a")
    here = stored_worker(group, job.running.here)
    layer = here.found.layer(job.layer)
    references = references_of(group, job.layer, job.variant.references)
    neurons = parse_neurons(job.neurons, layer.channels, job.layer)
    declared = declare_targets(group, job, here)
    missing = undone(group, declared, blocks_of(neurons, declared.block))
    live = live_neurons(references, job.variant.fewest)
    tasks = [blocks for blocks in task_groups(group, job.layer, job.variant) if missing & set(blocks)]
    wanted = sum(declared.crops(references, live, blocks) for blocks in tasks)
    holder, path = Holder.new(), target_path(job.layer, declared.variant)

    def run(left: Sequence[tuple[int, ...]]) -> None:
        calls = [
            ({"job": job, "blocks": blocks, "path": path, "holder": holder}, declared.crops(references, live, blocks))
            for blocks in left
        ]
        run_tasks(job.running, measure_blocks, calls)

    with summarised("targets", job.store, "references", wanted), bar(f"{job.layer}: references measured", wanted):
        until_done(job.store, "statistics", path, tasks, holder, job.running, run)
    return declared.variant


@task(name="measure-blocks")
def measure_blocks(job: TargetsJob, blocks: tuple[int, ...], path: str, holder: Holder) -> None:
    """Measure and write some blocks' targets, unless another run does."""
    with leased(job.store, "statistics", path, blocks, holder, job.running) as mine:
        if mine:
            measure_block(job, blocks)
