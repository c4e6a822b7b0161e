"""Two runs on one store share the work: each takes what the other has not begun, and what a dead one left behind."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Literal

from flows.jobs import Place
from stores.blocks import done_flags
from stores.errors import UnreachableStore
from stores.leases import Holder, read_lease, release, renew, take
from stores.locations import safe_url
from stores.schema import open_store

RENEWALS = 4
"""How often a lease is renewed within its term: a late one must not lose it."""

Kind = Literal["statistics", "atlas"]


@contextmanager
def leased(url: str, kind: Kind, path: str, blocks: Sequence[int], holder: Holder, place: Place) -> Iterator[bool]:
    """Whether a task is to make its blocks: they are not all done, and no other run that lives has their lease.

    The lease is of the whole task, which writes its blocks together; it is renewed by a thread while the block lasts.
    """
    group, first = open_store(url, kind, "a"), blocks[0]
    if done_flags(group, path)[list(blocks)].all() or take(group, path, first, holder, place.lease) is not None:
        yield False
        return
    ended = Event()

    def keep() -> None:
        while not ended.wait(place.lease / RENEWALS):
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
    place: Place,
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
        while waiting and all(_held(url, kind, path, blocks, holder, place) for blocks in waiting):
            time.sleep(min(1.0, place.lease / RENEWALS))
            waiting = _undone(done_flags(group, path).tolist(), waiting)


@contextmanager
def _failing_in_one_sentence(url: str) -> Iterator[None]:
    """What a disk or a service answers, with the place and the way out. A service's own retries are over by then."""
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


def _held(url: str, kind: Kind, path: str, blocks: Sequence[int], holder: Holder, place: Place) -> bool:
    lease = read_lease(open_store(url, kind, "r"), path, blocks[0])
    return lease is not None and lease.holder.run != holder.run and lease.alive(place.lease)
