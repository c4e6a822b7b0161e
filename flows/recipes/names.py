"""Words for an atlas's neurons: labels or a judge say how much a word is in an image, peaks say what a neuron sees."""

from __future__ import annotations

from prefect import flow, task

from flows.jobs import NamesJob, settled
from flows.running.artifacts import summarised
from flows.running.cluster import in_process, run_tasks
from flows.running.process import at_work
from flows.running.progress import bar
from flows.steps.naming import check_names, find_names


@flow(name="name-atlas", task_runner=in_process(), persist_result=False)
def name_atlas(job: NamesJob) -> str:
    """Find words for the neurons of the asked layers, in place of earlier ones; returns the atlas's URL."""
    job = settled(job)
    calls = [({"job": job, "layer": layer}, count) for layer, count in check_names(job).items()]
    wanted = sum(count for _, count in calls)
    with summarised("names", job.atlas, "neurons", wanted), bar("neurons named", wanted):
        run_tasks(job.running, name_layer, calls)
    return job.atlas


@task(name="name-layer")
def name_layer(job: NamesJob, layer: str) -> None:
    """Find and write the words of one layer's neurons."""
    with at_work(job.running):
        find_names(job, layer)
