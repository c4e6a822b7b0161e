"""A picture of every neuron: targets in, batched optimisation, pictures out, block by block."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow, task

from flows.jobs import AtlasJob, settled
from flows.running.blocks import blocks_of, leased, parse_neurons, until_done
from flows.running.cluster import in_process, run_tasks
from flows.running.process import check_model, stored_model, stored_worker, worker_at
from flows.running.progress import bar, summarised
from flows.steps.pictures import declare_atlas, make_blocks, require_targets, unmade
from flows.steps.targets import recorded_variant, target_status, task_groups
from stores.arrays.leases import Holder
from stores.arrays.schema import open_store
from stores.errors import PictureStatus


@flow(name="build-atlas", task_runner=in_process())
def build_atlas(job: AtlasJob) -> str:
    """Pictures of the asked neurons, whole blocks at a time; blocks that are there are left alone. Returns the
    atlas's URL."""
    job = settled(job)
    statistics = open_store(job.store, "statistics", "r")
    here = stored_worker(statistics, job.running.here)
    layer = here.found.layer(job.layer)
    check_model(statistics, here.model)
    worker_at(
        stored_model(statistics), job.running.here, job.picture.side
    )  # refuses a side that the network cannot take
    neurons = parse_neurons(job.neurons, layer.channels, job.layer)
    declared = declare_atlas(job, statistics, here)
    live = target_status(statistics, job.layer, declared.variant) == PictureStatus.MADE
    missing = unmade(job, declared, blocks_of(neurons, declared.block))
    settings = recorded_variant(statistics, job.layer, declared.variant)
    tasks = [blocks for blocks in task_groups(statistics, job.layer, settings) if missing & set(blocks)]
    require_targets(statistics, job, declared, [block for blocks in tasks for block in blocks])
    wanted = sum(declared.live_in(live, blocks) for blocks in tasks)
    holder = Holder.new()

    def run(left: Sequence[tuple[int, ...]]) -> None:
        calls = [({"job": job, "blocks": blocks, "holder": holder}, declared.live_in(live, blocks)) for blocks in left]
        run_tasks(job.running, picture_blocks, calls)

    with summarised("atlas", job.out, "pictures", wanted), bar(f"{job.layer}: neurons done", wanted):
        until_done(job.out, "atlas", job.layer, tasks, holder, job.running, run)
    return job.out


@task(name="picture-blocks")
def picture_blocks(job: AtlasJob, blocks: tuple[int, ...], holder: Holder) -> None:
    """Optimise and write some blocks' pictures, unless another run does."""
    with leased(job.out, "atlas", job.layer, blocks, holder, job.running) as mine:
        if mine:
            make_blocks(job, blocks)
