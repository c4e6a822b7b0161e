"""The whole path from one job: references, then for every layer its targets and its pictures."""

from __future__ import annotations

from prefect import flow

from flows.atlas import build_atlas
from flows.cluster import in_process
from flows.jobs import FullJob
from flows.moments import measure_references
from flows.references import select_references


@flow(name="full-run", task_runner=in_process())
def full_run(job: FullJob) -> str:
    """What is done already is left alone, so the same job may run on a schedule; returns the atlas's URL."""
    select_references(job.references())
    for part in job.layers:
        measure_references(job.moments(part))
        build_atlas(job.atlas(part))
    return job.out
