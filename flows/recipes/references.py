"""Which images excite which neuron: one pass over the shards, each streamed once, merged in shard order."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow, task

from flows.jobs import ReferencesJob, settled
from flows.running.artifacts import summarised
from flows.running.cluster import in_process, run_tasks
from flows.running.process import LoadedModel, load, with_directions
from flows.running.progress import bar
from flows.steps.dataset import (
    claim_statistics,
    given_directions,
    missing_of,
    plan_for,
    refuse_short,
    write_gathered,
)
from flows.steps.extension import check_shards, extend, finish_extension, kept_plan, known_digests
from flows.steps.shards import Partial, bytes_of, joined, scan_shard, shards_of_tasks
from stores import open_statistics
from stores.arrays.provenance import fingerprint
from stores.files import read_arrays, remove_arrays, write_arrays
from stores.shards.beside import stated
from stores.shards.finding import ShardFile, expand
from vital.measuring.gathering import Gathered, Plan


@flow(name="select-references", task_runner=in_process())
def select_references(job: ReferencesJob) -> str:
    """Stream every shard through the model and keep, per neuron, its best images; returns the store.

    A shard whose partial is already there is not read again; what the store already has for these shards is not
    computed again.
    """
    job = settled(job)
    shards = stated(expand(job.shards), job.manifest)
    loaded = with_directions(load(job.model, job.running.of_flow), given_directions(job.directions))
    plan = plan_for(job, loaded.survey, loaded.model.name)
    statistics = claim_statistics(job, loaded)
    finish_extension(statistics, loaded)  # of a run that was killed
    check_shards(statistics, shards)
    shards = known_digests(statistics, shards)
    before = len(statistics.shards())
    if job.extend and before and shards[before:]:
        known, images = kept_plan(statistics), len(statistics.index())
        with summarised("references", job.store, "images", lambda: _images(job) - images):
            add(job, known, scan_all(job, known, shards[before:]))
        statistics = statistics.again("r+")
    plan = missing_of(statistics, plan, shards)
    if plan.ranked or plan.measured:
        with summarised("references", job.store, "images", lambda: _images(job)):
            merge(job, plan, scan_all(job, plan, shards))
    refuse_short(statistics, job.allow_rejected)
    return job.store


def _images(job: ReferencesJob) -> int:
    return len(open_statistics(job.store).index())


def scan_all(job: ReferencesJob, plan: Plan, shards: Sequence[ShardFile]) -> list[str]:
    """The names of the shards' partials, in order, when all are written."""
    calls = [({"job": job, "plan": plan, "shards": part}, bytes_of(part)) for part in shards_of_tasks(shards)]
    size = bytes_of(shards)
    # Tasks here tick images, and how far in the shards they are; of tasks elsewhere bytes are known.
    with bar("bytes read", size) if job.running.elsewhere else bar("images seen", None, size):
        return [name for part in run_tasks(job.running, scan, calls) for name in part]


def _loaded(job: ReferencesJob) -> LoadedModel:
    return with_directions(load(job.model, job.running), open_statistics(job.store).directions())


@task(name="scan-shards")
def scan(job: ReferencesJob, plan: Plan, shards: Sequence[ShardFile]) -> list[str]:
    """The partials of some shards, each written to the store's run folder unless it is there; returns their names."""
    names = []
    for shard in shards:
        known: dict[str, str | int] = {
            "plan": repr(plan), "shard": shard.name, "size": shard.size, "digest": shard.digest,
            "version": shard.version, "stated": shard.stated,
        }  # fmt: skip
        names.append(f"partials/{fingerprint(known)}")
        if read_arrays(job.store, names[-1]) is None:
            write_arrays(job.store, names[-1], scan_shard(shard, _loaded(job), plan).arrays())
    return names


@task(name="merge-shards")
def merge(job: ReferencesJob, plan: Plan, names: Sequence[str]) -> None:
    """All partials in shard order into the store; afterwards they are removed."""
    loaded = _loaded(job.model_copy(update={"running": job.running.of_flow}))
    statistics = open_statistics(job.store, "r+")
    preprocessing = loaded.model.preprocessing
    total = Partial.none(Gathered.none(plan, loaded.survey, preprocessing.side))
    whole = joined(total, (Partial.from_arrays(read_arrays(job.store, name) or {}) for name in names))
    if not len(statistics.shards()):
        statistics.append(whole.samples, whole.shards)
    write_gathered(statistics, whole.gathered, loaded.survey, preprocessing, plan.levels)
    for name in names:
        remove_arrays(job.store, name)


@task(name="add-shards")
def add(job: ReferencesJob, plan: Plan, names: Sequence[str]) -> None:
    """The partials of new shards onto what the store keeps; afterwards they are removed."""
    loaded = _loaded(job.model_copy(update={"running": job.running.of_flow}))
    parts = (Partial.from_arrays(read_arrays(job.store, name) or {}) for name in names)
    extend(open_statistics(job.store, "r+"), loaded, plan, parts)
    for name in names:
        remove_arrays(job.store, name)
