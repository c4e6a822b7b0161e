"""Workers that tasks are given to: of this machine, started with a GPU each if there are GPUs, or of a scheduler that
somebody else started."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pkgutil import resolve_name
from typing import Any

from dask.base import annotate
from distributed import LocalCluster
from distributed.client import Client
from distributed.worker import get_worker
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from flows.jobs import Running, cores
from flows.running.workers.devices import OneGpuEach, Room, gpus_of_workers, room, sharing_rooms
from flows.running.workers.starting import deaf_processes, script_left_alone

Start = Callable[[], TaskRunner[Any]]
"""Gives a runner of tasks; its workers are there by then, or are started when it is entered."""


@dataclass(frozen=True)
class Workplace:
    """Where tasks run, as it is found when they are to begin."""

    running: Running
    """What tasks are told: ``auto`` is settled on workers of this machine, and so are threads on workers."""
    start: Start | None = None
    """Gives what hands tasks to Dask's workers; none where they run in this process."""
    on_this_machine: bool = False
    """Whether there are workers and all are on this machine."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """What Dask is to see at a worker before it gives it a task."""


def workplace_of(running: Running) -> Workplace:
    """Where ``running`` says, with a GPU for each worker if there are GPUs.

    Raises:
        UnsuitableInput: there are more workers than GPUs.
    """
    if running.scheduler:
        return _on_scheduler(running, running.scheduler)
    if not running.workers:
        return Workplace(running)
    gpus = gpus_of_workers(running)
    told = running.sharing(max(1, cores() // running.workers), bool(gpus))
    shared: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0"}
    shared["silence_logs"] = logging.CRITICAL if quiet() else logging.WARNING
    if not gpus:
        at_cpu = told.model_copy(update={"device": "cpu"}) if running.device == "auto" else told
        start = partial(_runner, "distributed.LocalCluster", n_workers=running.workers, **shared)
        return Workplace(at_cpu, start, on_this_machine=True)
    alike = len({name.isdigit() for name in gpus}) == 1  # dask-cuda does not take numbers beside UUIDs
    if alike and importlib.util.find_spec("dask_cuda") is not None:  # it also binds workers to cores beside their GPU
        start = partial(_runner, "dask_cuda.LocalCUDACluster", n_workers=len(gpus), CUDA_VISIBLE_DEVICES=gpus, **shared)
    else:
        start = partial(_runner, OneGpuEach, gpus=gpus, **shared)
    return Workplace(told.model_copy(update={"device": "cuda"}), start, on_this_machine=True)


def _on_scheduler(running: Running, scheduler: str) -> Workplace:
    """Where workers declare GPUs (``--resources GPU=1``) only these get tasks, and each of them one at a time; workers
    of which none declares any are taken as they are."""
    with Client(scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        workers = SchedulerWorkers.of(client, running)
    if not workers.rooms:  # they may come later, as those of a batch system do
        sys.stderr.write(f"the Dask scheduler at {scheduler} has no workers yet: tasks wait for the first one\n")
    told = sharing_rooms(running, workers.rooms, workers.on_gpu)
    told = told.model_copy(update={"device": "cuda"}) if workers.declare and running.device == "auto" else told
    start = partial(DaskTaskRunner, address=scheduler)
    on_this_host = {one.host for one in workers.rooms} == {socket.gethostname()}
    return Workplace(told, start, on_this_host, {"GPU": 1} if workers.declare else {})


@dataclass(frozen=True)
class SchedulerWorkers:
    """Of a scheduler, those that tasks are given to: all, or where some declare GPUs these alone."""

    declare: bool
    """Whether some declare GPUs, and a GPU is not unwanted."""
    rooms: Sequence[Room]
    on_gpu: bool
    """Whether tasks find a GPU at any of them, or one was asked for."""

    @classmethod
    def of(cls, client: Client, running: Running) -> SchedulerWorkers:
        """The workers that the scheduler has now; others may come and go while a run lasts."""
        workers = client.scheduler_info(n_workers=-1)["workers"]
        declaring = [address for address, info in workers.items() if info["resources"].get("GPU")]
        declare = bool(declaring) and running.device != "cpu"
        rooms = list(client.run(room, workers=declaring if declare else list(workers)).values())
        all_see = running.device == "auto" and bool(rooms) and all(one.sees_gpus for one in rooms)
        return cls(declare, rooms, declare or running.on_gpu or all_see)


def wanted() -> bool:
    """Whether somebody still waits for the task that this thread runs. Dask lets one run to its end that nobody waits
    for any more, such as one of a run that was interrupted."""
    try:
        worker = get_worker()
    except ValueError:
        return True
    task = worker.state.tasks.get(worker.get_current_task())
    return task is None or task.state != "cancelled"


def quiet() -> bool:
    """Whether logs are wanted of nobody, Prefect's being as few as there can be: then Dask's are not shown either."""
    return os.environ.get("PREFECT_LOGGING_LEVEL") == "CRITICAL"


def _runner(cluster: str | type[LocalCluster], **options: Any) -> TaskRunner[Any]:
    """On workers of this machine: those that are `kept_workers`, or its own, which go with it."""
    kept = _kept.get()
    if kept is not None:
        return DaskTaskRunner(address=kept.address(cluster, options))
    runner: TaskRunner[Any] = DaskTaskRunner(cluster_class=cluster, cluster_kwargs=options)
    return runner


class _Kept:
    """Clusters of this machine that were started, by how; the stack ends them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._started = stack, dict[str, LocalCluster]()

    def address(self, cluster: str | type[LocalCluster], options: Mapping[str, Any]) -> str:
        """Of the scheduler, whose workers are started unless they are there."""
        name = f"{cluster} {sorted(options.items())}"
        if name not in self._started:
            start: Any = resolve_name(cluster) if isinstance(cluster, str) else cluster
            self._stack.enter_context(script_left_alone())  # a worker that dies is replaced at any time
            self._started[name] = self._stack.enter_context(start(**options))
        return str(self._started[name].scheduler_address)


_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def kept_workers() -> Iterator[None]:
    """Workers of this machine that tasks in the block have started stay for those that follow, until the block ends.

    A run has tasks of several kinds one after the other, and a worker takes seconds to start and to load its network.
    """
    if _kept.get() is not None:
        yield
        return
    with ExitStack() as stack:
        token = _kept.set(_Kept(stack))
        try:
            yield
        finally:
            _kept.reset(token)


@contextmanager
def started(workplace: Workplace) -> Iterator[TaskRunner[Any]]:
    """Workers that take tasks while the block lasts, of a workplace that has a ``start``."""
    assert workplace.start is not None
    with deaf_processes():
        runner = workplace.start()  # first: what stays longer than the block is to outlast what surrounds it
    asked = annotate(resources=workplace.resources) if workplace.resources else nullcontext()
    with ExitStack() as stack:
        stack.enter_context(script_left_alone())
        stack.enter_context(_one_server(workplace))
        with deaf_processes():
            started: Any = stack.enter_context(runner)
            _ = started.client  # asked for, since Dask's workers start with it, and not before
        stack.enter_context(asked)
        yield started


@contextmanager
def _one_server(workplace: Workplace) -> Iterator[None]:
    """Workers of this machine report to the server that Prefect has started for this process, where none is set: each
    would start one of its own, which takes seconds of all cores. Workers elsewhere cannot reach it, and do start
    one."""
    if PREFECT_API_URL.value() or not workplace.on_this_machine:
        yield
        return
    with get_client(sync_client=True) as client:
        server = str(client.api_url)
    with temporary_settings({PREFECT_API_URL: server}):
        yield
