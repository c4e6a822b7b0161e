"""How far a run is, in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_open: list[Bar] = []


class Bar:
    """One line: what is counted, how much of how much, time so far and time left."""

    def __init__(self, progress: Progress, name: str, total: float | None, whole: int | None) -> None:
        self._progress, self._task = progress, progress.add_task(name, total=total)
        self._whole, self._count, self._parts = whole, 0.0, 0.0

    def tick(self, amount: float = 1, part: float = 0) -> None:
        """Count ``amount`` more, which took ``part`` of the whole: where the total is unknown it is estimated so."""
        self._count, self._parts = self._count + amount, self._parts + part
        self._progress.advance(self._task, amount)
        if self._whole and self._parts:
            self._progress.update(self._task, total=round(self._count * self._whole / self._parts))

    def finish(self) -> None:
        """What was counted is the total, as a whole number."""
        count = round(self._count)
        self._progress.update(self._task, completed=count, total=count)

    def reach(self, done: int, total: int) -> None:
        """``done`` of ``total``."""
        self._count = done
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def bar(name: str, total: float | None, whole: int | None = None) -> Iterator[Bar]:
    """A progress bar on standard error while the block lasts; plain when that is no terminal: only its last state is
    printed."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr, force_jupyter=False)) as progress:
        current = Bar(progress, name, total, whole)
        _open.append(current)
        try:
            yield current
            current.finish()
        finally:
            _open.remove(current)


def tick(amount: float = 1, part: float = 0) -> None:
    """Count on the bar that is open in this process, if there is one."""
    if _open:
        _open[-1].tick(amount, part)
