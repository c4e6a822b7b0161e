"""The whole path from one job: references, then for every layer its targets and its pictures."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task

from flows.jobs import FullJob
from flows.pages.atlas import Showing, read_credits, write_gallery
from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.running.artifacts import link_pages
from flows.running.cluster import in_process
from flows.running.workers.workplaces import kept_workers
from stores import open_atlas
from stores.pages.folder import SiteFolder


@flow(name="full-run", task_runner=in_process(), persist_result=False)
def full_run(job: FullJob) -> str:
    """What is done already is left alone, so the same job may run on a schedule; returns the atlas's URL."""
    if job.pages is not None:
        SiteFolder(Path(job.pages))  # a folder that holds something else is refused before the work
    with kept_workers():
        select_references(job.references())
        for part in job.layers:
            if part.targets == "stored":
                measure_targets(job.targets(part))
            build_atlas(job.atlas(part))
    if job.pages is not None:
        write_pages(job, Path(job.pages).absolute())
    return job.out


@task(name="write-pages")
def write_pages(job: FullJob, folder: Path) -> None:
    """Bring the atlas's pages up to date, if it has a picture."""
    if not open_atlas(job.out).empty:
        showing = Showing(store=job.store, shards=job.shards, credits=read_credits(None))
        link_pages(job.out, write_gallery(job.out, folder, showing))
