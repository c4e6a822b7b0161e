"""How far a run is, on standard error: a bar in a terminal, else, as in a log, a line every so often."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Event, Lock, Thread
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from vital.errors import in_line

EVERY = 60.0
"""Seconds between two lines of a log."""
SHORTEST = 12
"""Characters that are left of a name in the narrowest terminal."""

_open: list[Bar] = []


Show: TypeAlias = Callable[[float, float | None], None]
"""Shows how much is done of a total, which may not be known."""


class Bar:
    """What is counted, and how much of how much."""

    def __init__(self, show: Show, total: float | None, whole: int | None) -> None:
        self._show, self._total, self._whole = show, total, whole
        self._count, self._parts = 0.0, 0.0

    def tick(self, amount: float = 1, part: float = 0) -> None:
        """Count ``amount`` more, which took ``part`` of the whole: where the total is unknown it is estimated so."""
        self._count, self._parts = self._count + amount, self._parts + part
        if self._whole and self._parts:
            self._total = round(self._count * self._whole / self._parts)
        self._show(self._count, self._total)

    def finish(self) -> None:
        """What was counted is the total, as a whole number."""
        count = round(self._count)
        self.reach(count, count)

    def reach(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done, both of which may have changed."""
        self._count, self._total = done, total
        self._show(done, total)


class _Drawn:
    """A bar in a terminal. Its numbers are whole however narrow that is: the bar shrinks, and the name is shortened."""

    def __init__(self, console: Console, name: str, total: float | None, whole: int | None) -> None:
        whole_numbers = Column(no_wrap=True)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(table_column=whole_numbers),
            TimeElapsedColumn(table_column=whole_numbers),
            TextColumn("left"),
            TimeRemainingColumn(table_column=whole_numbers),
            console=console,
        )
        digits = len(str(round(total or whole or 0)))
        room = console.width - 2 * digits - len("/ 0:00:00 left 0:00:00  ") - SHORTEST
        self._task = self.progress.add_task(shortened(name, max(room, SHORTEST)), total=total)

    def show(self, done: float, total: float | None) -> None:
        self.progress.update(self._task, completed=done, total=total)


class _Written:
    """Lines of a log: one at the end, and before it one every `EVERY` seconds, also while nothing can be counted, as
    where workers make a task of minutes."""

    def __init__(self, name: str, total: float | None) -> None:
        self._name, self._done, self._total = name, 0.0, total
        self._begun = self._last = time.monotonic()
        self._line = ""
        self._ended, self._writes = Event(), Lock()

    @contextmanager
    def shown(self) -> Iterator[Show]:
        """Lines are written while the block lasts, and one at its end."""
        watching = Thread(target=self._watch, daemon=True)
        watching.start()
        try:
            yield self._show
        finally:
            self._ended.set()
            watching.join()
            self._write()

    def _show(self, done: float, total: float | None) -> None:
        self._done, self._total = done, total
        self._write_if_due()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self._write_if_due()

    def _write_if_due(self) -> None:
        with self._writes:
            if time.monotonic() - self._last >= EVERY:
                self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        taken, total = self._last - self._begun, self._total
        of = "" if total is None else f" of {round(total)}"
        left = taken * (total - self._done) / self._done if total and self._done else 0
        more = f", about {_clock(left)} left" if round(left) else ""
        line = f"{self._name}: {round(self._done)}{of} in {_clock(taken)}{more}"
        if line != self._line:  # the last one may have been just now
            with suppress(OSError):  # a log that nobody reads any more, or whose disk is full, ends no run
                print(line, file=sys.stderr, flush=True)  # noqa: T201
        self._line = line


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def shortened(name: str, room: int) -> str:
    """The name in ``room`` characters: what stands in its middle tells least.

    >>> shortened("backbone.features.denseblock4.denselayer16.conv2: neurons done", 32)
    'backbone.....conv2: neurons done'
    """
    if len(name) <= room:
        return name
    head = (room - 3) // 3
    return f"{name[:head]}...{name[len(name) - (room - 3 - head) :]}"


@contextmanager
def bar(name: str, total: float | None, whole: int | None = None) -> Iterator[Bar]:
    """A progress bar on standard error while the block lasts, or lines where that is no terminal."""
    console, name = Console(file=sys.stderr, force_jupyter=False), in_line(name)
    with _drawn(console, name, total, whole) if console.is_terminal else _Written(name, total).shown() as show:
        current = Bar(show, total, whole)
        _open.append(current)
        try:
            yield current
            current.finish()
        finally:
            _open.remove(current)


@contextmanager
def _drawn(console: Console, name: str, total: float | None, whole: int | None) -> Iterator[Show]:
    drawn = _Drawn(console, name, total, whole)
    with drawn.progress:
        yield drawn.show


def tick(amount: float = 1, part: float = 0) -> None:
    """Count on the bar that is open in this process, if there is one."""
    if _open:
        _open[-1].tick(amount, part)


@contextmanager
def aside() -> Iterator[None]:
    """What is counted while the block lasts is none of what the open bar counts, and is not shown."""
    unseen = Bar(lambda done, total: None, None, None)
    _open.append(unseen)
    try:
        yield
    finally:
        _open.remove(unseen)
