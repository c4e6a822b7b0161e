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

    def is_of(self, holder: Holder) -> bool:
        """Whether it is this run's, whichever process took it."""
        return self.holder.run == holder.run

    def alive(self, term: float) -> bool:
        """Whether it still counts: renewed within ``term`` seconds, by a process that is not seen to have ended."""
        if self.holder.host == socket.gethostname() and not _running(self.holder.pid):
            return False
        return time.time() - self.renewed < term


def take(group: zarr.Group, path: str, block: int, holder: Holder, term: float) -> bool:
    """Take the lease of the blocks from ``block`` on of the group at ``path``; whether it is the holder's now. Where
    another run has one that counts nothing is changed. A run's own lease is renewed."""
    lease = read_lease(group, path, block)
    if lease is not None and not lease.is_of(holder) and lease.alive(term):
        return False
    try:
        renew(group, path, block, holder)
    except (ContainsGroupError, FileNotFoundError):  # another run was here at the same moment: see who it is
        lease = read_lease(group, path, block)
        return lease is not None and lease.is_of(holder)
    return True


def renew(group: zarr.Group, path: str, block: int, holder: Holder) -> None:
    """Write that the holder works on it."""
    group.create_group(
        _lease_path(path, block), attributes={"lease": asdict(holder) | {"renewed": time.time()}}, overwrite=True
    )


def release(group: zarr.Group, path: str, block: int, holder: Holder) -> None:
    """Give it back; nothing happens where the holder has none."""
    lease = read_lease(group, path, block)
    if lease is not None and lease.is_of(holder):
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
