"""The command, and Dask's scheduler and workers, as processes of their own that a test may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prefect.settings import PREFECT_API_URL

from flows.jobs import AtlasJob, FullJob
from tests.flows.forks import Fork

ROOT = Path(__file__).parents[2]
Run = subprocess.Popen[str] | Fork


def environment(**more: str) -> dict[str, str]:
    """This process's, with the session's Prefect server and the project's code."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    server = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    return {**ours, **server, "PYTHONPATH": str(ROOT), **more}


def program(*words: str, **more: str) -> Run:
    """``python -m`` of these words, or ``python`` of a script, as a process in a group of its own: a fork, unless the
    coverage of programs is asked for, which begins with them."""
    own = environment(**more)
    if not any(name.startswith("COVERAGE_") for name in own):
        return Fork(words, own)
    module = [] if words[0].endswith(".py") else ["-m"]
    return subprocess.Popen(
        [sys.executable, *module, *words], env=own, start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def goes_on(process: subprocess.Popen[Any] | Fork, seconds: float = 0.005) -> bool:
    """Whether the process has not ended. It has the processor meanwhile: who asks again and again would take it one."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


class Gate:
    """Holds a run of `tests.flows.tiny.network` in the middle of its work, whoever has the processor meanwhile."""

    def __init__(self, folder: Path, after: Path) -> None:
        """From the moment on when ``after`` is there."""
        self._pipe = folder / "gate"
        os.mkfifo(self._pipe)
        self.environment = {"TINY_GATE": str(self._pipe), "TINY_GATE_AFTER": str(after)}

    def open(self) -> None:
        """Let the run go on, whether it waits already or not."""
        both = os.open(self._pipe, os.O_RDWR)  # waits for nobody
        self._pipe.unlink()
        os.close(both)


def vital_run(job: AtlasJob | FullJob, folder: Path, **more: str) -> Run:
    """``vital run`` of the job."""
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump({_flow(job): job.model_dump(mode="json")}))
    return program("flows.cli.main", "run", str(file), **more)


def ended(run: Run) -> tuple[int, str]:
    """Exit code, and what the command said when it failed: its error without the progress bars."""
    with killed(run):  # in case that the test's own time limit ends this
        _, said = run.communicate()
    return run.returncode, said[said.find("Error: ") :].strip() if "Error: " in said else said


@contextmanager
def killed(run: Run) -> Iterator[Run]:
    """The run, which is killed with -9 when the block ends, with all that it has started."""
    try:
        yield run
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


def one_sentence(said: str) -> bool:
    """An error as the user is to see it: one line, no traceback."""
    return said.startswith("Error: ") and "\n" not in said and "Traceback" not in said


@contextmanager
def scheduler(folder: Path, **more: str) -> Iterator[tuple[Run, str]]:
    """``dask scheduler``, and its address."""
    file = folder / "scheduler.json"
    words = ["--port", "0", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    with killed(program("distributed.cli.dask_scheduler", *words, **more)) as process:
        while not file.exists() or not file.read_text():
            assert goes_on(process), "the scheduler ended"
        yield process, str(yaml.safe_load(file.read_text())["address"])


@contextmanager
def worker(folder: Path, address: str, *arguments: str, **more: str) -> Iterator[Run]:
    """``dask worker`` of one thread."""
    words = [address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder), *arguments]
    with killed(program("distributed.cli.dask_worker", *words, **more)) as process:
        yield process


def _flow(job: AtlasJob | FullJob) -> str:
    return "atlas" if isinstance(job, AtlasJob) else "full-run"
