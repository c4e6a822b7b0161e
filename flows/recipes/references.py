"""Which images excite which neuron: one pass over the shards, each streamed once, merged in shard order."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow, task

from flows.jobs import ReferencesJob, settled
from flows.running.cluster import in_process, run_tasks
from flows.running.process import Worker, knowing, worker
from flows.running.progress import bar, summarised
from flows.steps.dataset import claim_statistics, given_directions, missing_of, plan_for, refuse_short, write_gathered
from flows.steps.extension import check_shards, extend, finish_extension, kept_plan, known_digests
from flows.steps.shards import Partial, bytes_of, grouped, joined, scan_shard
from stores.arrays.provenance import fingerprint
from stores.arrays.schema import open_store
from stores.dataset.index import append_index, read_index, read_shards
from stores.dataset.references import read_directions
from stores.files import read_arrays, remove_arrays, write_arrays
from stores.shards.beside import stated
from stores.shards.reading import ShardFile, expand
from vital.measuring.gathering import Gathered, Plan


@flow(name="select-references", task_runner=in_process())
def select_references(job: ReferencesJob) -> str:
    """Stream every shard through the model and keep, per neuron, its best images; returns the store.

    A shard whose partial is already there is not read again; what the store already has for these shards is not
    computed again.
    """
    job = settled(job)
    shards = stated(expand(job.shards), job.manifest)
    here = knowing(worker(job.model, job.running.here), given_directions(job))
    plan = plan_for(job, here.found, here.model.name)
    group = claim_statistics(job, here)
    finish_extension(job.store, group, here)  # of a run that was killed
    check_shards(group, shards)
    shards = known_digests(group, shards)
    kept, new = len(read_shards(group)), shards[len(read_shards(group)) :]
    if job.extend and kept and new:
        known, before = kept_plan(group), len(read_index(group))
        with summarised("references", job.store, "images", lambda: _images(job) - before):
            add(job, known, scan_all(job, known, new))
        group = open_store(job.store, "statistics", "a")  # attributes are read when a group is opened
    plan = missing_of(group, plan, shards)
    if plan.ranked or plan.measured:
        with summarised("references", job.store, "images", lambda: _images(job)):
            merge(job, plan, scan_all(job, plan, shards))
    refuse_short(group, job.allow_rejected)
    return job.store


def _images(job: ReferencesJob) -> int:
    return len(read_index(open_store(job.store, "statistics", "r")))


def scan_all(job: ReferencesJob, plan: Plan, shards: Sequence[ShardFile]) -> list[str]:
    """The names of the shards' partials, in order, when all are written."""
    calls = [({"job": job, "plan": plan, "shards": part}, bytes_of(part)) for part in grouped(shards)]
    size = bytes_of(shards)
    # Tasks here tick images, and how far in the shards they are; of tasks elsewhere bytes are known.
    with bar("bytes read", size) if job.running.elsewhere else bar("images seen", None, size):
        return [name for part in run_tasks(job.running, scan, calls) for name in part]


def _here(job: ReferencesJob) -> Worker:
    return knowing(worker(job.model, job.running), read_directions(open_store(job.store, "statistics", "r")))


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
            write_arrays(job.store, names[-1], scan_shard(shard, _here(job), plan).arrays())
    return names


@task(name="merge-shards")
def merge(job: ReferencesJob, plan: Plan, names: Sequence[str]) -> None:
    """All partials in shard order into the store; afterwards they are removed."""
    here = _here(job.model_copy(update={"running": job.running.here}))
    group = open_store(job.store, "statistics", "a")
    total = Partial.none(Gathered.none(plan, here.found, here.model.preprocessing.side))
    whole = joined(total, (Partial.from_arrays(read_arrays(job.store, name) or {}) for name in names))
    if not len(read_shards(group)):
        append_index(group, whole.samples, whole.shards)
    write_gathered(group, whole.gathered, here.found, here.model.preprocessing, plan)
    for name in names:
        remove_arrays(job.store, name)


@task(name="add-shards")
def add(job: ReferencesJob, plan: Plan, names: Sequence[str]) -> None:
    """The partials of new shards onto what the store keeps; afterwards they are removed."""
    here = _here(job.model_copy(update={"running": job.running.here}))
    parts = (Partial.from_arrays(read_arrays(job.store, name) or {}) for name in names)
    extend(job.store, open_store(job.store, "statistics", "a"), here, plan, parts)
    for name in names:
        remove_arrays(job.store, name)
