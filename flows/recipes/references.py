"""Which images excite which neuron: one pass over the shards, each streamed once, joined as a tree of tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext

from prefect import flow, task

from flows.jobs import ReferencesJob, Running, settled
from flows.running.artifacts import summarised
from flows.running.cluster import in_process, run_tasks
from flows.running.process import Kept, LoadedModel, at_work, load, with_directions
from flows.running.progress import bar, tick
from flows.running.workers.workplaces import kept_workers
from flows.steps.dataset import (
    claim_statistics,
    given_directions,
    missing_of,
    plan_for,
    refuse_short,
    refuse_unusable,
)
from flows.steps.reading.darkness import doubts
from flows.steps.reading.extension import (
    check_plan,
    check_shards,
    extend,
    finish_extension,
    kept_plan,
    known_digests,
    pending,
)
from flows.steps.reading.feeding import Feed
from flows.steps.reading.fitting import fits
from flows.steps.reading.labels import Labels, refuse_foreign, refuse_unlabelled, settle_labels
from flows.steps.reading.merging import (
    Branch,
    Leaf,
    Tree,
    join_partials,
    merge_partials,
    remove_all,
    write_partial,
    written_partials,
)
from flows.steps.reading.shards import bytes_of, scan_shards
from flows.steps.reading.turns import turn_at
from stores import Statistics, open_statistics
from stores.arrays.provenance import fingerprint
from stores.shards.beside import stated
from stores.shards.finding import ShardFile, expand
from vital.measuring.gathering import Plan


@flow(name="select-references", task_runner=in_process(), persist_result=False)
def select_references(job: ReferencesJob) -> str:
    """Stream every shard through the model and keep, per neuron, its best images; returns the store.

    What a killed run has read or joined is not read again; what the store already has for these shards is not computed
    again.
    """
    job = settled(job)
    shards = stated(expand(job.shards), job.manifest)
    loaded = with_directions(load(job.model, job.running.of_flow), given_directions(job.directions, job.dictionaries))
    plan = plan_for(job, loaded.survey, loaded.model.name)
    if not job.running.elsewhere:
        Feed.of(job, loaded.device)  # refuses what does not do before anything is written
    labels = settle_labels(job, shards, loaded)
    begun = open_statistics(job.store, "a")
    with nullcontext() if begun.base else turn_at(begun, job.running):  # what it is made from is written piece by piece
        statistics = claim_statistics(job, loaded)
        labels.keep(statistics)
    if pending(statistics):  # of a run that was killed
        with turn_at(statistics, job.running) as now:
            finish_extension(now, with_directions(loaded, Kept(now)), job.running)
        statistics = statistics.again("r+")
    check_shards(statistics, shards)
    shards = known_digests(statistics, shards)
    before = statistics.shard_count()
    if job.extend and before and shards[before:]:
        known, images = kept_plan(statistics), statistics.image_count()
        with summarised("references", job.store, "images", lambda: _images(job) - images):
            add(job, known, gathered(job, known, shards[before:]), before)
        statistics = statistics.again("r+")
    plan = missing_of(statistics, plan, shards)
    if plan.ranked or plan.measured:
        said = [*doubts(shards[0], loaded.model.preprocessing), *fits(statistics, loaded, job.layers, shards)]
        sys.stderr.writelines(f"{line}\n" for line in said)
        with summarised("references", job.store, "images", lambda: _images(job)):
            merge(job, plan, gathered(job, plan, shards))
    refuse_short(statistics, job.allow_rejected)
    refuse_unusable(statistics, job.allow_rejected)
    refuse_foreign(statistics, job, loaded)
    refuse_unlabelled(statistics, job)
    return job.store


def _images(job: ReferencesJob) -> int:
    return open_statistics(job.store).image_count()


def gathered(job: ReferencesJob, plan: Plan, shards: Sequence[ShardFile]) -> Tree:
    """The tree of the shards' partials, when all are written and joined as far as tasks do it; what is there of an
    earlier run is not made again."""
    tree = Tree.of(plan, shards, labels=fingerprint(open_statistics(job.store).labels))
    missing = tree.missing(written_partials(job.store))
    calls = [({"job": job, "plan": plan, "leaf": leaf}, bytes_of(leaf.shards)) for leaf in missing.leaves]
    size = sum(size for _, size in calls)
    # Tasks here tick images, and how far in the shards they are; of tasks elsewhere bytes are known.
    with kept_workers():
        with bar("bytes read", size) if job.running.elsewhere else bar("images seen", None, size):
            run_tasks(job.running, scan, calls)
        join_levels(job.running, job.store, missing)
    return tree


def join_levels(running: Running, store: str, tree: Tree) -> None:
    """Have tasks join the partials of a store, level by level."""
    for level in filter(None, tree.levels):
        calls = [({"store": store, "branch": branch}, len(branch.parts)) for branch in level]
        with bar("partials joined", sum(count for _, count in calls)):
            run_tasks(running, join, calls)


def _loaded(job: ReferencesJob, running: Running, statistics: Statistics) -> LoadedModel:
    return with_directions(load(job.model, running), Kept(statistics))


@task(name="scan-shards")
def scan(job: ReferencesJob, plan: Plan, leaf: Leaf) -> None:
    """Read a leaf's shards and write what they add, unless it is there."""
    if leaf.name in written_partials(job.store):
        return
    statistics = open_statistics(job.store)
    with at_work(job.running):
        loaded, labels = _loaded(job, job.running, statistics), Labels.kept(statistics)
        statistics.check(loaded.model.identity)  # a worker's machine may have other weights under the same name
        assert labels is not None  # claimed before the pass
        whole = scan_shards(leaf.shards, loaded, plan, labels, Feed.of(job, loaded.device))
    write_partial(job.store, leaf.name, whole)


@task(name="join-partials")
def join(store: str, branch: Branch) -> None:
    """Join a branch's partials into one, which takes their place."""
    join_partials(store, branch)
    tick(len(branch.parts))


@task(name="merge-shards")
def merge(job: ReferencesJob, plan: Plan, tree: Tree) -> None:
    """All that the shards add into the store, as far as another run has not brought it meanwhile; afterwards the
    partials are removed."""
    with turn_at(open_statistics(job.store, "r+"), job.running) as statistics:
        check_shards(statistics, tree.shards)
        left = missing_of(statistics, plan, tree.shards)
        if left.ranked or left.measured:
            loaded = _loaded(job, job.running.of_flow, statistics)
            merge_partials(statistics, loaded.survey, loaded.model.preprocessing, plan, tree)
        else:
            remove_all(statistics, tree)


@task(name="add-shards")
def add(job: ReferencesJob, plan: Plan, tree: Tree, before: int) -> None:
    """What new shards add onto what the store keeps of the ``before`` first ones, unless another run has added them
    meanwhile; afterwards the partials are removed."""
    with turn_at(open_statistics(job.store, "r+"), job.running) as statistics:
        loaded = _loaded(job, job.running.of_flow, statistics)
        finish_extension(statistics, loaded, job.running)
        if statistics.shard_count() == before:
            check_plan(statistics, plan)
            extend(statistics, loaded, plan, tree, job.running)
        else:
            remove_all(statistics, tree)
