"""A picture of every neuron: targets in, batched optimisation, pictures out, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow, task

from flows.jobs import AtlasJob, settled
from flows.running.blocks import TURNS_OF_PICTURES, BlockWork, made_in_turn, run_blocks, shares_of, tasks_of
from flows.running.cluster import in_process
from flows.running.neurons import parse_neurons
from flows.running.process import load_at_side, load_stored, stored_model
from flows.steps.pictures import (
    asked_targets,
    check_side,
    declare_pictures,
    made_blocks,
    planned_tasks,
    task_pictures,
)
from flows.steps.targets import live_neurons
from stores import open_statistics
from stores.arrays.blocks import BlocksAt
from stores.arrays.leases import Holder


@flow(name="build-atlas", task_runner=in_process(), persist_result=False)
def build_atlas(job: AtlasJob) -> str:
    """Pictures of the asked neurons, whole blocks at a time; blocks that are there are left alone. Returns the
    atlas's URL."""
    job = settled(job)
    statistics = open_statistics(job.store, "r+" if job.targets == "fly" else "r")
    loaded = load_stored(statistics, job.running.of_flow)
    neurons = parse_neurons(job.neurons, loaded.survey.layer(job.layer).channels, job.layer)
    targets = asked_targets(job, statistics, loaded, neurons)
    larger = load_at_side(stored_model(statistics), job.running.of_flow, job.picture.side)
    check_side(larger.survey, loaded.survey.layer(job.layer), targets.nodes)
    pictures = declare_pictures(job, statistics, targets, loaded)
    live = live_neurons(statistics, targets)
    tasks = tasks_of(pictures, neurons, live, task_pictures(job, pictures, neurons, live))
    counted, told = planned_tasks(job, statistics, targets, live, tasks)
    at, title, shares = BlocksAt(job.out, "atlas", pictures.path), f"{job.layer}: neurons done", shares_of(job.running)
    work = BlockWork(at, counted, "pictures", title, told, TURNS_OF_PICTURES, shares)
    run_blocks(picture, job.model_copy(update={"shards": ()}), work, "atlas")
    return job.out


@task(name="picture-blocks")
def picture(job: AtlasJob, at: BlocksAt, groups: Sequence[Mapping[str, Any]], holder: Holder) -> None:
    """Optimise some blocks' pictures, unless another run does, group by group; each is written while the next is
    optimised."""
    made_in_turn(job, at, groups, holder, made_blocks)
