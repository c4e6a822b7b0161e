"""How good an atlas's pictures are: metrics per neuron and per layer, written beside them."""

from __future__ import annotations

from prefect import flow, task

from flows.jobs import EvaluateJob, settled
from flows.running.artifacts import summarised
from flows.running.cluster import in_process, run_tasks
from flows.running.process import at_work
from flows.running.progress import bar
from flows.steps.judging.checking import check_evaluation
from flows.steps.judging.metrics import evaluate
from vital.judging.trust.steering import BEGINNINGS


@flow(name="evaluate-atlas", task_runner=in_process(), persist_result=False)
def evaluate_atlas(job: EvaluateJob) -> str:
    """Measure every finished picture of the asked layers; returns the atlas's URL."""
    job = settled(job)
    calls = [({"job": job, "layer": layer}, count) for layer, count in check_evaluation(job).items()]
    wanted = sum(count for _, count in calls)
    seen = wanted * (1 + len(BEGINNINGS) * job.steering)
    with summarised("metrics", job.atlas, "pictures", wanted), bar("pictures measured", seen):
        run_tasks(job.running, evaluate_layer, calls)
    return job.atlas


@task(name="evaluate-layer")
def evaluate_layer(job: EvaluateJob, layer: str) -> None:
    """Measure and write one layer's metrics."""
    with at_work(job.running):
        evaluate(job, layer)
