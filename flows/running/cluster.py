"""A task run for many parameters: in this process, by workers of this machine, or on an existing Dask cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from distributed.client import Client, FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.jobs import Running
from flows.running.artifacts import progress_artifact
from flows.running.progress import tick
from flows.running.server import give_it_time
from flows.running.workers.workplaces import SchedulerWorkers, Workplace, quiet, started, workplace_of
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
    # What a task has done stands in the store alone: where Prefect keeps results, it would take one that found another
    # run's lease for done when it is asked for again.
    task = task.with_options(cache_policy=NO_CACHE, persist_result=False)
    results: list[Any] = []
    showing = progress_artifact(task.name, sum(weight for _, weight in calls))
    with _lost_in_one_sentence(running), showing as show, _outcomes(task, calls, workplace_of(running)) as outcomes:
        for outcome, (_, weight) in zip(outcomes, calls, strict=True):
            results.append(outcome)
            if running.elsewhere:  # tasks of this process tick themselves
                tick(weight)
            show(weight)
    return results


@contextmanager
def _outcomes(task: Task[..., Any], calls: Calls, workplace: Workplace) -> Iterator[Iterator[Any]]:
    """What the tasks return, in order. In this process they are run by the thread that asks for them, so that Ctrl-C
    ends them where they are."""
    told = [_told(parameters, workplace) for parameters, _ in calls]
    if workplace.start is None:
        yield (task(**parameters) for parameters in told)
        return
    with started(workplace) as runner:
        futures = [runner.submit(task, parameters) for parameters in told]
        yield (future.result() for future in futures)


def _told(parameters: Mapping[str, Any], workplace: Workplace) -> dict[str, Any]:
    """A task's parameters, whose job says where it runs."""
    job = parameters.get("job")
    settled = {} if job is None else {"job": job.model_copy(update={"running": workplace.running})}
    return {**parameters, **settled}


@contextmanager
def _lost_in_one_sentence(running: Running) -> Iterator[None]:
    """Dask's ways to say that it is gone, as an error that says what to do."""
    where = f"the Dask scheduler at {running.scheduler}" if running.scheduler else "the Dask scheduler of this run"
    again = "what is written stays; run the same command again, which makes what is missing"
    if running.elsewhere and quiet():
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
def unwatched() -> Iterator[None]:
    """No heartbeats of flows while the block lasts: they tell a server of runs that died, and ending them takes a
    second a flow. For many flows in one process that somebody watches anyway."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def workers_have_gpus(running: Running) -> bool:
    """Whether tasks run on GPUs, as far as the workers tell that the scheduler has now which ``running`` names.

    Raises:
        ClusterLost: no scheduler answers.
    """
    if not running.scheduler or running.device == "cpu":
        return False
    with _lost_in_one_sentence(running), Client(running.scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        return SchedulerWorkers.of(client, running).on_gpu


def workers_of(running: Running) -> int:
    """How many workers tasks are given to; of a scheduler those that it has now.

    Raises:
        ClusterLost: no scheduler answers.
    """
    if not running.scheduler:
        return running.workers or 1
    with _lost_in_one_sentence(running), Client(running.scheduler, set_as_default=False) as client:  # type: ignore[no-untyped-call]
        return len(SchedulerWorkers.of(client, running).rooms) or UNKNOWN_WORKERS
