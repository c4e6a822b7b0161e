"""What changes a store as a whole waits for its turn, and for tasks that go by what the store said before."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.jobs import Running
from flows.running.blocks import RENEWALS, renewed
from stores import Statistics
from stores.arrays.leases import Holder, Watch
from stores.arrays.turns import Turn, at_work
from stores.files import safe_url


@contextmanager
def turn_at(statistics: Statistics, running: Running) -> Iterator[Statistics]:
    """The store as it is when it is this run's turn, until the block ends: no other run merges shards into it or
    extends it meanwhile. One that does is waited for."""
    group, turn = statistics.root, Turn(statistics.url, Holder.new(), running.lease)
    try:
        _wait_for(lambda: turn.ask(group), f"writes into {safe_url(statistics.url)}", running)
        with renewed(lambda: turn.renew(group), running.lease):
            yield statistics.again("r+")
    finally:
        turn.end(group)


def await_tasks(statistics: Statistics, running: Running) -> None:
    """Wait for tasks of other runs that measure targets: they have read references that are about to change."""
    watch = Watch(statistics.url, "", Holder.new())
    _wait_for(lambda: at_work(watch, statistics.root), f"measures targets in {safe_url(statistics.url)}", running)


def _wait_for(other: Callable[[], Holder | None], does: str, running: Running) -> None:
    """Ask who else is there until nobody is, and say once who it was."""
    told = False
    while (who := other()) is not None:
        if not told:
            told = True
            sys.stderr.write(f"another run (process {who.pid} of {who.host}) {does}: waiting until it has ended\n")
        time.sleep(min(1.0, running.lease / RENEWALS))
