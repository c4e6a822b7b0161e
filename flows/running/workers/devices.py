"""Which GPU a task has, and how many cores: every worker gets a GPU of its own, or is refused in one sentence."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from distributed import LocalCluster
from distributed.system import MEMORY_LIMIT
from distributed.worker import get_worker
from filelock import FileLock, Timeout

from flows.jobs import Running, cores
from vital.errors import UnsuitableInput

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA reads when a process first uses it: numbers or UUIDs of the GPUs that this process is to see."""

THREADS, DASKS_THREADS = "OMP_NUM_THREADS", "1"
"""What torch reads of its threads, and what Dask sets it to for workers where their operator has not."""

_mine: list[FileLock] = []
"""The lock on this worker's GPU. The system takes it off when the process ends, however that happens."""


def visible_gpus() -> list[str]:
    """Names, as `VISIBLE` has them, of the GPUs that this process sees and may hand out to others."""
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen and os.environ.get(VISIBLE):
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        # CUDA shows a process one MIG instance, the first of those named; other processes may have the others.
        return names if names[0].startswith("MIG-") else names[:seen]
    return [str(number) for number in range(seen)]


def gpus_of_workers(running: Running) -> list[str]:
    """The GPU of each worker that is to be started here; none where tasks are to run on the processor.

    Raises:
        UnsuitableInput: there are fewer than ``running.workers``, or none although one was asked for.
    """
    wanted = running.workers or 0
    gpus = visible_gpus() if running.on_gpu or running.device == "auto" else []
    if not gpus:
        device_name(running.device)  # refuses a GPU that is not there
        return []
    if number := re.fullmatch(r"cuda:(\d+)", running.device):
        _existing(running.device, len(gpus))
        gpus = gpus[int(number[1]) :][:1]
    if wanted > len(gpus):
        raise UnsuitableInput(
            f"{wanted} workers were asked for, and each has a GPU of its own, but of device {running.device!r} there "
            f"are {len(gpus)} ({', '.join(gpus) or 'none'}): give --workers {max(1, len(gpus))} or --device cpu, or "
            f"name more GPUs or MIG instances in {VISIBLE}"
        )
    return gpus[:wanted]


class Room(NamedTuple):
    """Where a Dask worker is, and what it has there."""

    host: str
    cores: int
    """That the process may use."""
    of_host: int
    """Cores of the whole machine, whose workers may each be allowed all of them."""
    sees_gpus: bool
    threads: str | None
    """What its operator says of torch's threads."""


def room() -> Room:
    """Where this process is, and what it has there; asked of each worker of a scheduler."""
    of_host, gpus = os.cpu_count() or 1, torch.cuda.is_available()
    return Room(socket.gethostname(), cores(), of_host, gpus, os.environ.get(THREADS))


def sharing_rooms(running: Running, rooms: Sequence[Room], on_gpu: bool) -> Running:
    """What tasks are told on workers that somebody else started: the cores of a machine are shared by its workers. As
    they are where there are no workers yet, or where their operator has set torch's threads."""
    if not rooms or any(one.threads not in (None, DASKS_THREADS) for one in rooms):
        return running
    beside = Counter(one.host for one in rooms)
    least = min(max(1, min(one.cores, one.of_host // beside[one.host])) for one in rooms)
    return running.sharing(least, on_gpu)


class OneGpuEach(LocalCluster):
    """Worker processes of this machine, each of which sees one GPU and no other."""

    def __init__(self, gpus: Sequence[str], **options: Any) -> None:
        self._gpus = gpus
        super().__init__(n_workers=0, memory_limit=MEMORY_LIMIT // len(gpus), **options)  # type: ignore[no-untyped-call]
        self.scale(len(gpus))  # type: ignore[no-untyped-call]
        self.sync(self._correct_state)  # type: ignore[no-untyped-call]

    def new_worker_spec(self) -> dict[int, dict[str, Any]]:
        """As Dask asks for it: the next worker's number, and how it is started."""
        [(number, spec)] = super().new_worker_spec().items()  # type: ignore[no-untyped-call]
        own = {"env": {VISIBLE: self._gpus[number]}}
        return {number: {**spec, "options": {**spec["options"], **own}}}


def device_name(asked: str) -> str:
    """The device that ``auto`` or ``cuda`` means in this process, or the one asked for; refused when it is not there.

    A Dask worker that sees several GPUs takes one that no other worker of this machine has, for as long as it lives:
    workers started by the same line all see the same ones.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto" and not seen:
        return "cpu"
    if asked in ("auto", "cuda") and seen:
        return _own_gpu() if seen > 1 and _is_worker() else "cuda"
    if asked.startswith("cuda") and not seen:
        raise UnsuitableInput(f"device {asked!r} was asked for but torch sees no CUDA device: use --device cpu or auto")
    return _existing(asked, seen)


def _existing(asked: str, seen: int) -> str:
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = None
    if device is None or (device.type == "cuda" and (device.index or 0) >= seen):
        gpus = f", cuda, cuda:0 to cuda:{seen - 1}" if seen else ""
        raise UnsuitableInput(f"device {asked!r} was asked for: auto, cpu{gpus} was expected on this machine")
    return asked


def _is_worker() -> bool:
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _identities(names: Sequence[str]) -> list[str]:
    """What tells apart the GPUs that this process sees by ``names``, also from those of another job on this machine:
    a batch system may show each job GPUs of its own, and have all of them count from 0."""
    try:
        return [str(torch.cuda.get_device_properties(number).uuid) for number in range(len(names))]
    except (AssertionError, AttributeError, RuntimeError):  # torch tells none
        return list(names)


@cache
def _own_gpu() -> str:
    # of this machine: a site may have the temporary folder of all machines on one disk
    folder = Path(tempfile.gettempdir()) / f"vital-gpus-{os.getuid()}-{socket.gethostname()}"
    folder.mkdir(exist_ok=True)
    names = visible_gpus()
    for number, name in enumerate(_identities(names)):
        file = re.sub(r"[^\w-]", "_", name) + ".lock"
        lock = FileLock(folder / file, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _mine.append(lock)
        return f"cuda:{number}"
    raise UnsuitableInput(
        f"all GPUs that this worker sees ({', '.join(names)}) have a worker already: start one worker for each GPU, as "
        f"`dask cuda worker` does, or give each a {VISIBLE} of its own"
    )
