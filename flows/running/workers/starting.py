"""How processes of this machine are started: they hear no Ctrl-C, and run no script again."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path


@contextmanager
def deaf_processes() -> Iterator[None]:
    """Threads and processes started while the block lasts do not hear Ctrl-C, which a terminal sends to all of them:
    this process ends its workers, and each would print where it was."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # where it starts by itself, with the first process, Python lets the thread hear again that started it
    resource_tracker.ensure_running()
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
