"""Where tasks run: in this process, on worker processes of this machine, or on an existing Dask cluster."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import dask
from dask.base import annotate
from distributed.client import Client, FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from flows.jobs import Running
from flows.running.artifacts import progress_artifact
from flows.running.progress import tick
from flows.running.server import give_it_time
from vital.errors import VitalError

give_it_time()  # once, where every flow and every process that runs tasks comes by

Calls = Sequence[tuple[Mapping[str, Any], float]]
"""Parameters of every task, and what each counts for on the progress bar."""


NURSED = "distributed.nanny.pre-spawn-environ"
"""Dask's name for what it puts into the environment of the workers that it starts."""


class ClusterLost(VitalError):
    """The Dask cluster went away, or a task's workers died one after the other."""


def in_process() -> TaskRunner[Any]:
    """One task at a time, which itself uses all of torch's threads: a model's hooks and torch's threads belong to one
    task."""
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
    showing = progress_artifact(task.name, sum(weight for _, weight in calls))
    with _lost_in_one_sentence(running), showing as show, _runner(running) as runner, _annotated(running):
        futures = [runner.submit(task, dict(parameters)) for parameters, _ in calls]
        results = []
        for future, (_, weight) in zip(futures, calls, strict=True):
            results.append(future.result())
            if running.elsewhere:  # tasks of this process tick themselves
                tick(weight)
            show(weight)
    return results


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
    if running.elsewhere and os.environ.get("PREFECT_LOGGING_LEVEL") == "CRITICAL":
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


@contextmanager
def unhurried_memory() -> Iterator[None]:
    """Workers started while the block lasts keep freed memory as processes usually do.

    Dask has them give every freed 64 kB back to the system. A network frees its activations in each step and asks for
    as many in the next: that costs it half as much processor time again. What other clusters of this process left of
    it in the environment, which Dask sets for good, goes as well. A value other than Dask's own stays.
    """
    usual = dask.config.get(NURSED, config=dask.config.merge(*dask.config.defaults))
    hurried = {name: str(value) for name, value in usual.items() if name.startswith("MALLOC")}
    for name, value in hurried.items():
        if os.environ.get(name) == value:
            os.environ.pop(name, None)
    known = dask.config.get(NURSED)
    with dask.config.set({NURSED: {name: value for name, value in known.items() if str(value) != hurried.get(name)}}):
        yield


@contextmanager
def _runner(running: Running) -> Iterator[TaskRunner[Any]]:
    if running.scheduler:
        runner: TaskRunner[Any] = DaskTaskRunner(address=running.scheduler)
    elif running.workers:
        runner = DaskTaskRunner(cluster_class=_cluster_class(running), cluster_kwargs=_cluster_arguments(running))
    else:
        runner = in_process()
    with unhurried_memory(), _one_server(running), runner as started:
        yield started


@contextmanager
def _one_server(running: Running) -> Iterator[None]:
    """Workers of this machine report to the server that Prefect has started for this process, where none is set: each
    would start one of its own, which takes seconds of all cores. Workers elsewhere cannot reach it, and do start
    one."""
    if PREFECT_API_URL.value() or not _workers_are_here(running):
        yield
        return
    with get_client(sync_client=True) as client:
        server = str(client.api_url)
    with temporary_settings({PREFECT_API_URL: server}):
        yield


def _workers_are_here(running: Running) -> bool:
    if not running.scheduler:
        return running.workers is not None
    with Client(running.scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        hosts = set(client.run(_host).values())
    return hosts == {_host()}


def _host() -> str:
    return socket.gethostname()


def _cluster_class(running: Running) -> str:
    """dask-cuda gives every worker a GPU of its own."""
    cuda = running.on_gpu and importlib.util.find_spec("dask_cuda") is not None
    return "dask_cuda.LocalCUDACluster" if cuda else "distributed.LocalCluster"


def _cluster_arguments(running: Running) -> dict[str, Any]:
    shared: dict[str, Any] = {"n_workers": running.workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    return shared | ({"resources": {"GPU": 1}} if running.on_gpu else {"processes": True})


def _annotated(running: Running) -> Any:
    """On a cluster a task on a GPU asks for one: workers declare it with ``--resources GPU=1``."""
    return annotate(resources={"GPU": 1}) if running.elsewhere and running.on_gpu else nullcontext()
