"""The runner of everything that is written block by block, targets and pictures alike.

Two runs on one store share the work: each takes what the other has not begun, and what a dead one left behind.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import numpy as np
from jaxtyping import Bool
from prefect import Task

from flows.jobs import BLOCK, AtlasJob, Running, TargetsJob
from flows.running.artifacts import summarised
from flows.running.behind import written_behind
from flows.running.cluster import Calls, run_tasks, workers_of
from flows.running.neurons import blocks_of, joined_blocks
from flows.running.process import at_work
from flows.running.progress import bar
from flows.running.workers.workplaces import wanted
from stores.arrays.blocks import Blocks, BlocksAt
from stores.arrays.leases import Holder, Watch, release, renew, take
from stores.errors import UnreachableStore, of_disk_or_service
from stores.files import first_line, safe_url

TURNS_OF_TARGETS, TURNS_OF_PICTURES = 16, 4
"""Tasks that a worker is given together, at most: only the last one's write is waited for. A worker that dies has lost
one that was written and one that was worked on. Pictures take minutes, and so does what is said of them."""
RENEWALS = 4
"""How often a lease is renewed within its term: a late one must not lose it."""


@dataclass(frozen=True)
class BlockWork:
    """Blocks that are to be written, as tasks."""

    at: BlocksAt
    tasks: Mapping[tuple[int, ...], float]
    """The blocks of each task, which are written together, and what it counts for."""
    what: str
    """What is counted, e.g. ``pictures``."""
    title: str
    """Of the progress bar."""
    own: Mapping[tuple[int, ...], Mapping[str, Any]] = field(default_factory=dict)
    """What a task is told beside its blocks, by these."""
    in_turn: int = 1
    """How many of ``tasks`` one worker is given together, at most, as ``groups`` that it works on in turn, each leased
    and written by itself."""
    shares: int = 1
    """How many such parts are made of what is left, each time that a worker is given one: the last are the smallest,
    so that workers end together."""

    def calls(self, left: Sequence[tuple[int, ...]], shared: Mapping[str, Any]) -> Calls:
        """What workers are given where these tasks are ``left``, each with what they ``shared``."""
        calls, start = list[tuple[Mapping[str, Any], float]](), 0
        while start < len(left):
            some = left[start : start + max(1, min(self.in_turn, -(-(len(left) - start) // self.shares)))]
            groups = [{**self.own.get(blocks, {}), "blocks": blocks} for blocks in some]
            calls.append(({**shared, "groups": groups}, sum(self.tasks[blocks] for blocks in some)))
            start += len(some)
        return calls


def tasks_of(
    blocks: Blocks, neurons: Sequence[int], live: Bool[np.ndarray, "neuron"], most: int = BLOCK
) -> list[tuple[int, ...]]:
    """The tasks that write the unwritten blocks of ``neurons``, of up to ``most`` live ones; how blocks make a task
    depends on ``live`` and ``most`` alone."""
    missing = set(blocks.unwritten(blocks_of(neurons, BLOCK)))
    return [task for task in joined_blocks(live, BLOCK, most) if missing & set(task)]


def shares_of(running: Running) -> int:
    """How many parts are made of what is left, so that a worker works on one thing while it writes another, and yet
    those that are slower, or come later, take less."""
    return 2 * workers_of(running) if running.elsewhere else 1


def run_blocks(task: Task[..., Any], job: TargetsJob | AtlasJob, work: BlockWork, artifact: str) -> None:
    """Run ``task`` for all of ``work`` where the job says, until every block is written, by this run or another.

    A task gets ``job``, ``at``, ``holder``, and ``groups`` of blocks, which it makes by `made_in_turn`. What the run
    did is left as the artifact of this key.
    """
    holder, total = Holder.new(), round(sum(work.tasks.values()))

    def run(left: Sequence[tuple[int, ...]]) -> None:
        run_tasks(job.running, task, work.calls(left, {"job": job, "at": work.at, "holder": holder}))

    with summarised(artifact, work.at.url, work.what, total), bar(work.title, total):
        _until_written(work.at, list(work.tasks), holder, job.running, run)


def made_in_turn(
    job: TargetsJob | AtlasJob,
    at: BlocksAt,
    groups: Sequence[Mapping[str, Any]],
    holder: Holder,
    made: Callable[..., Callable[[], object]],
) -> None:
    """What a task does: each group that no other run makes is ``made`` of the job and what it says, and written while
    the next is made. Where nobody waits for the task any more it ends with the group that it is at."""
    with at_work(job.running), written_behind() as behind:
        for group in groups:
            with ExitStack() as held:
                if wanted() and held.enter_context(leased(at, group["blocks"], holder, job.running)):
                    behind(made(job, **group), held)


@contextmanager
def leased(at: BlocksAt, blocks: Sequence[int], holder: Holder, running: Running) -> Iterator[bool]:
    """Whether a task is to make its blocks: they are not all written, and no other run that lives has their lease.

    The lease is of the whole task, which writes its blocks together; it is renewed by a thread while the block lasts.
    """
    group, first, term = at.open("r+").root, blocks[0], running.lease
    unwritten = bool(Blocks(group, at.path).unwritten(blocks))
    try:
        mine = unwritten and take(group, at.path, first, holder, term)
        with renewed(lambda: renew(group, at.path, first, holder, term), term) if mine else nullcontext():
            yield mine
    finally:
        if unwritten:  # whether it is ours or not: an interrupt may come as soon as the lease is written
            release(group, at.path, first, holder)


@contextmanager
def renewed(renewal: Callable[[], object], term: float) -> Iterator[None]:
    """A thread renews a lease of so many seconds while the block lasts."""
    ended = Event()

    def keep() -> None:
        while not ended.wait(term / RENEWALS):
            with suppress(Exception):  # a store that answers errors for a while costs the lease, not the work
                renewal()

    keeper = Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


def _until_written(
    at: BlocksAt,
    tasks: Sequence[tuple[int, ...]],
    holder: Holder,
    running: Running,
    run: Callable[[Sequence[tuple[int, ...]]], object],
) -> None:
    """``run`` the tasks, then those that another run had begun and left, until every block is written.

    What another run works on is waited for: its lease ends when the work is done, or when it is seen not to be renewed.
    It is waited for as well where nothing was done: two runs that look at the same moment may both find the other.
    """
    waiting, watch = list(tasks), Watch(at.url, at.path, holder)
    with _failing_in_one_sentence(at.url):
        watch.begin(at.open("r+").root)
    while waiting:
        with _failing_in_one_sentence(at.url):
            run(waiting)
        blocks, asked = at.open("r+"), waiting
        waiting = _unwritten(blocks, asked)
        refused = waiting == asked
        while waiting:
            held = [watch.held(blocks.root, task[0]) for task in waiting]  # every one is looked at
            if not (refused or all(held)):
                break
            time.sleep(min(1.0, running.lease / RENEWALS))
            waiting, refused = _unwritten(blocks, waiting), False


@contextmanager
def _failing_in_one_sentence(url: str) -> Iterator[None]:
    """What a disk or a service answers, with its URL and the way out. A service's own retries are over by then."""
    try:
        yield
    except Exception as error:
        if not of_disk_or_service(error):
            raise
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        after = "there is room" if full else "it can be read and written"
        raise UnreachableStore(
            f"{safe_url(url)} failed while tasks were running ({first_line(error)}): what is "
            f"written stays; run the same command again when {after}, which makes what is missing"
        ) from error


def _unwritten(blocks: Blocks, tasks: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    missing = set(blocks.unwritten(sorted({block for task in tasks for block in task})))
    return [task for task in tasks if missing & set(task)]
