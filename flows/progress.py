"""Progress bars: tasks that run in this process tick the bar that their flow has opened; elsewhere ticks go nowhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_open: list[Bar] = []


class Bar:
    """One line: what is counted, how much of how much, time so far and time left."""

    def __init__(self, progress: Progress, name: str, total: float | None) -> None:
        self._progress, self._task = progress, progress.add_task(name, total=total)

    def tick(self, amount: float = 1) -> None:
        """Count ``amount`` more."""
        self._progress.advance(self._task, amount)

    def reach(self, done: int, total: int) -> None:
        """``done`` of ``total``."""
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def bar(name: str, total: float | None) -> Iterator[Bar]:
    """A progress bar on standard error while the block lasts; plain when that is no terminal: only its last state is printed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        current = Bar(progress, name, total)
        _open.append(current)
        try:
            yield current
        finally:
            _open.remove(current)


def tick(amount: float = 1) -> None:
    """Count on the bar that is open in this process, if there is one."""
    if _open:
        _open[-1].tick(amount)
