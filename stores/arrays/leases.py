"""Who is working on which blocks, so that two runs on one store do not do the same work.

A lease only saves work. Object storage has no lock, and two runs that look at the same moment may both take one:
then both write the same bytes. It lies under ``runs/``, outside what is compared, as attributes of a group of its own.

Whether a run still lives is never asked of two clocks: those of two machines may differ by any amount. A lease counts
for as long as somebody who watches sees it renewed within its term, by the watcher's own clock.
"""

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import zarr
from zarr.errors import ContainsGroupError

from stores.arrays.names import MOST_BYTES
from stores.files import list_runs

RUNS = "runs"
LEASE = "lease-"
"""Begins the name of a lease."""
Block = int | str
"""The first of some blocks; or a run, where each has a lease of its own."""
TERM = 60.0
"""Seconds that a lease counts which does not say so: it was written by an earlier version."""


@dataclass(frozen=True)
class Holder:
    """A run: its number, and the machine and process that began it."""

    run: str
    host: str
    pid: int

    @staticmethod
    def new() -> "Holder":
        """A run of this process."""
        return Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid())


@dataclass(frozen=True)
class Lease:
    """Whose it is, when it was last renewed, in seconds since 1970 by the holder's clock, and for how many seconds that
    counts. The time is for people to read, and tells one renewal from the next."""

    holder: Holder
    renewed: float
    term: float

    def is_of(self, holder: Holder) -> bool:
        """Whether it is this run's, whichever process took it."""
        return self.holder.run == holder.run

    def left_behind(self) -> bool:
        """Whether its run was a process of this machine that is seen to have ended."""
        return self.holder.host == socket.gethostname() and not _running(self.holder.pid)


@dataclass
class Watch:
    """What a run has seen of others' leases, those of the blocks at ``path`` of the store at ``url`` before all."""

    url: str
    path: str
    holder: Holder
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[Lease, float]] = field(default_factory=dict)
    """Each lease by its name, and since when it has been as it is."""

    def begin(self, group: zarr.Group) -> None:
        """See what is held now, so that a term runs while the run does other work. One listing, and a request for each
        lease."""
        self.others(group, lambda path: path == _in_name(self.path))

    def held(self, group: zarr.Group, block: Block) -> bool:
        """Whether the blocks from ``block`` on are to be waited for, since another run works on them. A lease that does
        not count any more is removed, since the tasks that are to do the work have not watched it."""
        return self._held(group, _lease_name(self.path, block)) is not None

    def others(self, group: zarr.Group, at: Callable[[str], bool]) -> list[Lease]:
        """The leases of other runs that count, at those paths of the store that ``at`` chooses, as names spell them."""
        names = [name for name in sorted(list_runs(self.url)) if name.startswith(LEASE) and at(_path_of(name))]
        return [lease for name in names if (lease := self._held(group, name)) is not None]

    def _held(self, group: zarr.Group, name: str) -> Lease | None:
        lease = _read(group, name)
        if lease is None or lease.is_of(self.holder):
            return None
        seen, since = self._seen.get(name, (None, 0.0))
        if lease != seen:
            since = self.clock()
            self._seen[name] = lease, since
        if not lease.left_behind() and self.clock() - since < lease.term:
            return lease
        _remove(group, name)
        return None


def take(group: zarr.Group, path: str, block: Block, holder: Holder, term: float) -> bool:
    """Take the lease of the blocks from ``block`` on of the group at ``path``; whether it is the holder's now. Where
    another run has one nothing is changed, unless it is left behind. A run's own lease is renewed."""
    lease = read_lease(group, path, block)
    if lease is not None and not lease.is_of(holder) and not lease.left_behind():
        return False
    try:
        _write(group, _lease_name(path, block), Lease(holder, time.time(), term), lease is not None)
    except (ContainsGroupError, FileNotFoundError):  # another run was here at the same moment: see who it is
        lease = read_lease(group, path, block)
        return lease is not None and lease.is_of(holder)
    return True


def renew(group: zarr.Group, path: str, block: Block, holder: Holder, term: float) -> None:
    """Write that the holder works on it still; nothing happens where another run has taken it over meanwhile."""
    lease = read_lease(group, path, block)
    if lease is None or lease.is_of(holder):
        _write(group, _lease_name(path, block), Lease(holder, time.time(), term), lease is not None)


def release(group: zarr.Group, path: str, block: Block, holder: Holder) -> None:
    """Give it back; nothing happens where the holder has none."""
    lease = read_lease(group, path, block)
    if lease is not None and lease.is_of(holder):
        _remove(group, _lease_name(path, block))


def read_lease(group: zarr.Group, path: str, block: Block) -> Lease | None:
    """The lease as it stands, None where nobody has one."""
    return _read(group, _lease_name(path, block))


def _read(group: zarr.Group, name: str) -> Lease | None:
    try:
        lease: Any = group[f"{RUNS}/{name}"].attrs["lease"]
        holder = Holder(str(lease["run"]), str(lease["host"]), int(lease["pid"]))
        return Lease(holder, float(lease["renewed"]), float(lease.get("term", TERM)))
    except (KeyError, FileNotFoundError, ValueError):  # gone, or half written by a store without whole writes
        return None


def _write(group: zarr.Group, name: str, lease: Lease, there: bool) -> None:
    said = asdict(lease.holder) | {"renewed": lease.renewed, "term": lease.term}
    if there:
        # in its place: who looks meanwhile finds the one before, where a group made anew is removed first
        with suppress(KeyError, FileNotFoundError, ValueError):  # it has just gone
            group[f"{RUNS}/{name}"].attrs["lease"] = said
            return
    group.create_group(f"{RUNS}/{name}", attributes={"lease": said}, overwrite=True)


def _remove(group: zarr.Group, name: str) -> None:
    with suppress(KeyError, FileNotFoundError):
        del group[f"{RUNS}/{name}"]


def _lease_name(path: str, block: Block) -> str:
    return f"{LEASE}{_in_name(path)}-{block}"


def _in_name(path: str) -> str:
    name = path.replace("/", "+")
    if len(name) > MOST_BYTES:  # several parts of a path, each of which may be as long as file systems take
        name = hashlib.sha256(path.encode()).hexdigest()
    return name


def _path_of(name: str) -> str:
    return name.removeprefix(LEASE).rpartition("-")[0]


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
