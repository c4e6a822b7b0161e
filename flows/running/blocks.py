"""Blocks of neurons as tasks: which neurons lie in which block, and two runs on one store that share the blocks."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Literal

import numpy as np
from jaxtyping import Bool

from flows.jobs import Running
from stores.arrays.blocks import done_flags
from stores.arrays.leases import Holder, read_lease, release, renew, take
from stores.arrays.schema import open_store
from stores.errors import UnreachableStore
from stores.files import safe_url
from vital.errors import UnknownNeuron


def parse_neurons(text: str, count: int, layer: str) -> list[int]:
    """Sorted neuron numbers of a comma-separated list of numbers and half-open ranges; all for an empty text.

    >>> parse_neurons("0:3,7", 8, "layer4")
    [0, 1, 2, 7]
    """
    if not text.strip():
        return list(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        start, colon, stop = part.strip().partition(":")
        try:
            first = int(start or 0)
            last = (int(stop) if stop else count) if colon else first + 1
        except ValueError:
            raise UnknownNeuron(
                f"{part.strip()!r} is no neuron and no range: write numbers and ranges like 0:64,70"
            ) from None
        if first < 0 or last > count or first >= last:
            raise UnknownNeuron(f"{part.strip()!r} is not within layer {layer!r}, which has neurons 0 to {count - 1}")
        chosen.update(range(first, last))
    return sorted(chosen)


def blocks_of(neurons: Sequence[int], block: int) -> list[int]:
    """Numbers of the blocks that hold ``neurons``."""
    return sorted({neuron // block for neuron in neurons})


def rows_of(block_number: int, block: int, count: int) -> range:
    """The neurons of a block; the last one may be shorter."""
    return range(block_number * block, min((block_number + 1) * block, count))


def grouped(live: Bool[np.ndarray, "neuron"], block: int) -> list[tuple[int, ...]]:
    """Consecutive blocks joined until each group has about a block's worth of live neurons: the work of one task.

    Where few neurons live, e.g. in a data set with few labels, batches would else be small. It depends on the whole
    layer alone, never on what is done or asked for: a task repeated has the same batches, hence the same bytes.
    """
    groups: list[tuple[int, ...]] = []
    current: list[int] = []
    alive = 0
    for number in range(-(-len(live) // block)):
        here = int(live[number * block : (number + 1) * block].sum())
        if current and alive + here > block:
            groups.append(tuple(current))
            current, alive = [], 0
        current.append(number)
        alive += here
    return [*groups, tuple(current)] if current else groups


RENEWALS = 4
"""How often a lease is renewed within its term: a late one must not lose it."""

Kind = Literal["statistics", "atlas"]


@contextmanager
def leased(url: str, kind: Kind, path: str, blocks: Sequence[int], holder: Holder, running: Running) -> Iterator[bool]:
    """Whether a task is to make its blocks: they are not all done, and no other run that lives has their lease.

    The lease is of the whole task, which writes its blocks together; it is renewed by a thread while the block lasts.
    """
    group, first = open_store(url, kind, "a"), blocks[0]
    if done_flags(group, path)[list(blocks)].all() or take(group, path, first, holder, running.lease) is not None:
        yield False
        return
    ended = Event()

    def keep() -> None:
        while not ended.wait(running.lease / RENEWALS):
            with suppress(Exception):  # a store that answers errors for a while costs the lease, not the work
                renew(group, path, first, holder)

    keeper = Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield True
    finally:
        ended.set()
        keeper.join()
        release(group, path, first)


def until_done(
    url: str,
    kind: Kind,
    path: str,
    tasks: Sequence[tuple[int, ...]],
    holder: Holder,
    running: Running,
    run: Callable[[Sequence[tuple[int, ...]]], object],
) -> None:
    """``run`` the tasks, then those that another run had begun and left, until every block is done.

    What another run works on is waited for: its lease ends when the work is done, or when it is not renewed.
    """
    waiting = list(tasks)
    while waiting:
        with _failing_in_one_sentence(url):
            run(waiting)
        group = open_store(url, kind, "r")
        waiting = _undone(done_flags(group, path).tolist(), waiting)
        while waiting and all(_held(url, kind, path, blocks, holder, running) for blocks in waiting):
            time.sleep(min(1.0, running.lease / RENEWALS))
            waiting = _undone(done_flags(group, path).tolist(), waiting)


@contextmanager
def _failing_in_one_sentence(url: str) -> Iterator[None]:
    """What a disk or a service answers, with its URL and the way out. A service's own retries are over by then."""
    try:
        yield
    except Exception as error:
        # botocore's errors are no OSErrors, and it is there only with s3fs
        if not isinstance(error, OSError) and not type(error).__module__.startswith("botocore"):
            raise
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        after = "there is room" if full else "it can be read and written"
        raise UnreachableStore(
            f"{safe_url(url)} failed while tasks were running ({(str(error).splitlines() or [''])[0]}): what is "
            f"written stays; run the same command again when {after}, which makes what is missing"
        ) from error


def _undone(done: Sequence[bool], tasks: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return [blocks for blocks in tasks if not all(done[block] for block in blocks)]


def _held(url: str, kind: Kind, path: str, blocks: Sequence[int], holder: Holder, running: Running) -> bool:
    lease = read_lease(open_store(url, kind, "r"), path, blocks[0])
    return lease is not None and lease.holder.run != holder.run and lease.alive(running.lease)
