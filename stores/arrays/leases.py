"""Who is working on which blocks, so that two runs on one store do not do the same work.

A lease only saves work. Object storage has no lock, and two runs that look at the same moment may both take one:
then both write the same bytes. It lies under ``runs/``, outside what is compared, as attributes of a group of its own.
"""

import hashlib
import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import zarr
from zarr.errors import ContainsGroupError

from stores.arrays.names import MOST_BYTES

RUNS = "runs"


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
    """Whose it is, and when it was last renewed, in seconds since 1970 by the holder's clock."""

    holder: Holder
    renewed: float

    def alive(self, term: float) -> bool:
        """Whether it still counts: renewed within ``term`` seconds, by a process that is not seen to have ended."""
        if self.holder.host == socket.gethostname() and not _running(self.holder.pid):
            return False
        return time.time() - self.renewed < term


def take(group: zarr.Group, path: str, block: int, holder: Holder, term: float) -> Lease | None:
    """Take the lease of the blocks from ``block`` on of the group at ``path``; where another run has one that counts,
    that is returned and nothing changed. A run's own lease is renewed."""
    lease = read_lease(group, path, block)
    if lease is not None and lease.holder.run != holder.run and lease.alive(term):
        return lease
    location = _lease_path(path, block)
    try:
        group.create_group(location, attributes={"lease": asdict(holder) | {"renewed": time.time()}}, overwrite=True)
    except (ContainsGroupError, FileNotFoundError):  # another run was here at the same moment: see who it is
        return read_lease(group, path, block)
    return None


def renew(group: zarr.Group, path: str, block: int, holder: Holder) -> None:
    """Say that the holder still works on it."""
    group.create_group(
        _lease_path(path, block), attributes={"lease": asdict(holder) | {"renewed": time.time()}}, overwrite=True
    )


def release(group: zarr.Group, path: str, block: int) -> None:
    """Give it back; nothing happens where there is none."""
    with suppress(KeyError, FileNotFoundError):
        del group[_lease_path(path, block)]


def read_lease(group: zarr.Group, path: str, block: int) -> Lease | None:
    """The lease as it stands, None where nobody has one."""
    try:
        lease: Any = group[_lease_path(path, block)].attrs["lease"]
        return Lease(Holder(str(lease["run"]), str(lease["host"]), int(lease["pid"])), float(lease["renewed"]))
    except (KeyError, FileNotFoundError, ValueError):  # gone, or half written by a store without whole writes
        return None


def _lease_path(path: str, block: int) -> str:
    name = path.replace("/", "+")
    if len(name) > MOST_BYTES:  # several parts of a path, each of which may be as long as file systems take
        name = hashlib.sha256(path.encode()).hexdigest()
    return f"{RUNS}/lease-{name}-{block}"


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
