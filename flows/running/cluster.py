"""Where tasks run: in this process, on worker processes of this machine, or on an existing Dask cluster."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from dask.base import annotate
from distributed import LocalCluster
from distributed.client import Client, FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from flows.jobs import Running, cores
from flows.running.artifacts import progress_artifact
from flows.running.devices import OneGpuEach, Room, gpus_of_workers, room, sharing_rooms
from flows.running.progress import tick
from flows.running.server import give_it_time
from vital.errors import VitalError

give_it_time()  # once, where every flow and every process that runs tasks comes by

UNKNOWN_WORKERS = 32
"""Workers that a scheduler is taken to have where it has none yet, or where later runs may find others."""

Calls = Sequence[tuple[Mapping[str, Any], float]]
"""Parameters of every task, and what each counts for on the progress bar."""


class ClusterLost(VitalError):
    """The Dask cluster went away, or a task's workers died one after the other."""


def in_process() -> TaskRunner[Any]:
    """The runner of a flow itself. It has one thread, in case that somebody submits a task: a model's hooks and torch's
    threads belong to one task."""
    return ThreadPoolTaskRunner(max_workers=1)


def run_tasks(running: Running, task: Task[..., Any], calls: Calls) -> list[Any]:
    """Run ``task`` for all ``calls`` where ``running`` says, and return their results in order.

    The first error ends the run; what other tasks have written stays. A task whose worker dies is run again by Dask,
    so tasks must give the same bytes twice.

    Raises:
        ClusterLost: no scheduler answers, it went away, or several workers died of the same task.
    """
    if not calls:
        return []
    results: list[Any] = []
    showing = progress_artifact(task.name, sum(weight for _, weight in calls))
    with _lost_in_one_sentence(running), showing as show, _outcomes(task, calls, place_of(running)) as outcomes:
        for outcome, (_, weight) in zip(outcomes, calls, strict=True):
            results.append(outcome)
            if running.elsewhere:  # tasks of this process tick themselves
                tick(weight)
            show(weight)
    return results


@contextmanager
def _outcomes(task: Task[..., Any], calls: Calls, place: Place) -> Iterator[Iterator[Any]]:
    """What the tasks return, in order. In this process they are run by the thread that asks for them, so that Ctrl-C
    ends them where they are."""
    told = [_told(parameters, place) for parameters, _ in calls]
    if place.start is None:
        yield (task(**parameters) for parameters in told)
        return
    with started(place, place.start) as runner:
        futures = [runner.submit(task, parameters) for parameters in told]
        yield (future.result() for future in futures)


@contextmanager
def unwatched() -> Iterator[None]:
    """No heartbeats of flows while the block lasts: they tell a server of runs that died, and ending them takes a
    second a flow. For many flows in one process that somebody watches anyway."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def _lost_in_one_sentence(running: Running) -> Iterator[None]:
    """Dask's ways to say that it is gone, as an error that says what to do."""
    where = f"the Dask scheduler at {running.scheduler}" if running.scheduler else "the Dask scheduler of this run"
    again = "what is written stays; run the same command again, which makes what is missing"
    if running.elsewhere and _quiet():
        for name in ("distributed", "distributed.client"):  # the second has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except KilledWorker as error:
        raise ClusterLost(
            f"{error.allowed_failures + 1} workers died one after the other at the same task, most often because "
            "they ran out of memory: give each more memory, or a smaller --batch or --side, then run the same command "
            "again, which makes what is missing"
        ) from error
    except (FutureCancelledError, CommClosedError) as error:
        raise ClusterLost(f"{where} went away while tasks were running: start it anew; {again}") from error
    except OSError as error:
        if running.scheduler and running.scheduler in str(error):
            raise ClusterLost(
                f"{where} does not answer: start `dask scheduler` there or correct the address"
            ) from error
        raise


def _quiet() -> bool:
    return os.environ.get("PREFECT_LOGGING_LEVEL") == "CRITICAL"


Start = Callable[[], TaskRunner[Any]]
"""Gives a runner of tasks; its workers are there by then, or are started when it is entered."""


@dataclass(frozen=True)
class Place:
    """Where tasks run, as it is found when they are to begin."""

    running: Running
    """What tasks are told: ``auto`` is settled on workers of this machine, and so are threads on workers."""
    start: Start | None = None
    """Gives what hands tasks to Dask's workers; none where they run in this process."""
    here: bool = False
    """Whether there are workers and all are on this machine."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """What Dask is to see at a worker before it gives it a task."""


def place_of(running: Running) -> Place:
    """Where ``running`` says, with a GPU for each worker if there are GPUs.

    Raises:
        UnsuitableInput: there are more workers than GPUs.
    """
    if running.scheduler:
        return _on_scheduler(running, running.scheduler)
    if not running.workers:
        return Place(running)
    gpus = gpus_of_workers(running)
    told = running.sharing(max(1, cores() // running.workers), bool(gpus))
    shared: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0"}
    shared["silence_logs"] = logging.CRITICAL if _quiet() else logging.WARNING
    if not gpus:
        at_cpu = told.model_copy(update={"device": "cpu"}) if running.device == "auto" else told
        start = partial(_runner, "distributed.LocalCluster", n_workers=running.workers, **shared)
        return Place(at_cpu, start, here=True)
    alike = len({name.isdigit() for name in gpus}) == 1  # dask-cuda does not take numbers beside UUIDs
    if alike and importlib.util.find_spec("dask_cuda") is not None:  # it also binds workers to cores beside their GPU
        start = partial(_runner, "dask_cuda.LocalCUDACluster", n_workers=len(gpus), CUDA_VISIBLE_DEVICES=gpus, **shared)
    else:
        start = partial(_runner, OneGpuEach, gpus=gpus, **shared)
    return Place(told.model_copy(update={"device": "cuda"}), start, here=True)


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

    A run has several lots of tasks, and a worker takes seconds to start and to load its network.
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


def workers_have_gpus(running: Running) -> bool:
    """Whether tasks run on GPUs, as far as the workers tell that the scheduler has now which ``running`` names.

    Raises:
        ClusterLost: no scheduler answers.
    """
    if not running.scheduler or running.device == "cpu":
        return False
    with _lost_in_one_sentence(running), Client(running.scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        return _Workers.of(client, running).on_gpu


def workers_of(running: Running) -> int:
    """How many workers tasks are given to; of a scheduler those that it has now.

    Raises:
        ClusterLost: no scheduler answers.
    """
    if not running.scheduler:
        return running.workers or 1
    with _lost_in_one_sentence(running), Client(running.scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        return len(_Workers.of(client, running).rooms) or UNKNOWN_WORKERS


@dataclass(frozen=True)
class _Workers:
    """Of a scheduler, those that tasks are given to: all, or where some declare GPUs these alone."""

    declare: bool
    """Whether some declare GPUs, and a GPU is not unwanted."""
    rooms: Sequence[Room]
    on_gpu: bool
    """Whether tasks find a GPU at any of them, or one was asked for."""

    @classmethod
    def of(cls, client: Client, running: Running) -> _Workers:
        """The workers that the scheduler has now; others may come and go while a run lasts."""
        workers = client.scheduler_info(n_workers=-1)["workers"]
        declaring = [address for address, info in workers.items() if info["resources"].get("GPU")]
        declare = bool(declaring) and running.device != "cpu"
        rooms = list(client.run(room, workers=declaring if declare else list(workers)).values())
        all_see = running.device == "auto" and bool(rooms) and all(one.sees_gpus for one in rooms)
        return cls(declare, rooms, declare or running.on_gpu or all_see)


def _on_scheduler(running: Running, scheduler: str) -> Place:
    """Where workers declare GPUs (``--resources GPU=1``) only these get tasks, and each of them one at a time; workers
    of which none declares any are taken as they are."""
    with Client(scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        workers = _Workers.of(client, running)
    if not workers.rooms:  # they may come later, as those of a batch system do
        sys.stderr.write(f"the Dask scheduler at {scheduler} has no workers yet: tasks wait for the first one\n")
    told = sharing_rooms(running, workers.rooms, workers.on_gpu)
    told = told.model_copy(update={"device": "cuda"}) if workers.declare and running.device == "auto" else told
    start = partial(DaskTaskRunner, address=scheduler)
    on_this_host = {one.host for one in workers.rooms} == {socket.gethostname()}
    return Place(told, start, on_this_host, {"GPU": 1} if workers.declare else {})


def _told(parameters: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """A task's parameters, whose job says where it runs."""
    job = parameters.get("job")
    settled = {} if job is None else {"job": job.model_copy(update={"running": place.running})}
    return {**parameters, **settled}


@contextmanager
def started(place: Place, start: Start) -> Iterator[TaskRunner[Any]]:
    """Workers that take tasks while the block lasts."""
    with deaf_processes():
        runner = start()  # first: what stays longer than the block is to outlast what surrounds it
    asked = annotate(resources=place.resources) if place.resources else nullcontext()
    with ExitStack() as stack:
        stack.enter_context(script_left_alone())
        stack.enter_context(_one_server(place))
        with deaf_processes():
            started = stack.enter_context(runner)
        stack.enter_context(asked)
        yield started


@contextmanager
def deaf_processes() -> Iterator[None]:
    """Threads and processes started while the block lasts do not hear Ctrl-C, which a terminal sends to all of them:
    this process ends its workers, and each would print where it was."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def script_left_alone() -> Iterator[None]:
    """Processes started while the block lasts do not run this program's script once more, as Python has them do so that
    they know what it defines, unless it says what it does under another name than ``__main__``.

    A script that says nothing would start its own workers in each worker, and from standard input it is not there.
    """
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if file is None or _has_guard(Path(file)):
        yield
        return
    main.__file__, main.__spec__ = None, None
    try:
        yield
    finally:
        main.__file__, main.__spec__ = file, spec


def _has_guard(script: Path) -> bool:
    try:
        return "__name__" in script.read_text("utf-8", "replace")
    except OSError:
        return False


@contextmanager
def _one_server(place: Place) -> Iterator[None]:
    """Workers of this machine report to the server that Prefect has started for this process, where none is set: each
    would start one of its own, which takes seconds of all cores. Workers elsewhere cannot reach it, and do start
    one."""
    if PREFECT_API_URL.value() or not place.here:
        yield
        return
    with get_client(sync_client=True) as client:
        server = str(client.api_url)
    with temporary_settings({PREFECT_API_URL: server}):
        yield
