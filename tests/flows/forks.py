"""Programs as processes of their own that need not import anything: forks of one process, which has done so once.

A run or a worker takes seconds of processor time until all is imported, which is most of what it does in a test. Each
has its own environment, session and streams, and ends as Python ends a program.
"""

from __future__ import annotations

import atexit
import io
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from typing import NoReturn
from unittest.mock import patch

import dask

from flows.running.workers.starting import script_left_alone

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.flows.loaded"])


class Fork:
    """A program that runs, with what tests use of ``subprocess.Popen``."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """``python -m`` of these words: a module's name and what the program is told. A script's file stands for
        itself."""
        _ensure_running(environment["PYTHONPATH"])
        readers, writers = zip(*(CONTEXT.Pipe(duplex=False) for _ in range(2)), strict=True)
        heard, begun = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(target=_run, args=(list(words), dict(environment), begun, *writers))
        with script_left_alone():
            self._process.start()
        for writer in (begun, *writers):
            writer.close()
        heard.poll(None)
        heard.close()
        # read at once: who has much to say is not to wait for a reader
        pool = ThreadPoolExecutor(len(readers), thread_name_prefix="read")
        self._said = [pool.submit(_read, reader) for reader in readers]
        pool.shutdown(wait=False)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code, less than 0 if a signal has ended it; none while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int:
        """Its exit code, when it has ended."""
        code = self._process.exitcode
        assert code is not None
        return code

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired where it goes on for longer."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)
        return self._process.exitcode

    def communicate(self) -> tuple[str, str]:
        """What it, and those that it has started, wrote to both streams until all had ended."""
        output, errors = (said.result() for said in self._said)
        self.wait()
        return output, errors

    def kill(self) -> None:
        """With -9."""
        self._process.kill()


@contextmanager
def forked_workers(path: str) -> Iterator[None]:
    """Workers that Dask starts for this process while the block lasts are forks, too, with its environment. ``path`` is
    where they import from."""
    _ensure_running(path)
    ours = {"distributed.worker.multiprocessing-method": "forkserver", "distributed.nanny.environ": dict(os.environ)}
    with dask.config.set(ours):
        yield


def _ensure_running(path: str) -> None:
    """The process whose forks they are: of what a test has set it knows nothing."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TINY_"))}
    with patch.dict(os.environ, {**ours, "PYTHONPATH": path}, clear=True):
        forkserver.ensure_running()


def _read(stream: Connection) -> str:
    with stream, os.fdopen(os.dup(stream.fileno()), encoding="utf-8") as text:
        return text.read()


def _run(
    words: list[str], environment: dict[str, str], begun: Connection, output: Connection, errors: Connection
) -> NoReturn:
    """In the fork: become the program."""
    from prefect.context import refresh_global_settings_context

    os.setsid()
    for number, stream in ((1, output), (2, errors)):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(number, "wb"), "utf-8") for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    dask.config.refresh()
    refresh_global_settings_context()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begun.send_bytes(b" ")
    begun.close()
    sys.argv = words
    try:
        if words[0].endswith(".py"):
            runpy.run_path(words[0], run_name="__main__")
        else:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
    sys.exit(0)
