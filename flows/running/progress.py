"""How far a run is: bars in the terminal, artifacts on Prefect's pages, and what a run leaves there."""

from __future__ import annotations

import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stores.files import safe_url

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


@contextmanager
def progress_artifact(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A progress artifact ``progress`` of the flow run while the block lasts; what it yields counts on it, out of
    ``total``. Outside a flow run nothing is made."""
    if FlowRunContext.get() is None:
        yield lambda amount: None
        return
    made, done = create_progress_artifact(0.0, key="progress", description=what), 0.0

    def count(amount: float) -> None:
        nonlocal done
        done += amount
        if isinstance(made, UUID):
            update_progress_artifact(made, progress=min(100.0, 100 * done / max(total, 1e-9)))

    yield count


@contextmanager
def summarised(key: str, url: str, what: str, count: int | Callable[[], int]) -> Iterator[None]:
    """When the block ends, a markdown artifact ``key``: what the store holds by now, its fingerprints, how many
    neurons there are and why others are not, and ``count`` of ``what`` (as in "pictures") per minute and second. Where
    the block fails: why, and what the store holds nevertheless."""
    begun = time.monotonic()
    try:
        yield
    except Exception as error:
        with suppress(Exception):  # what failed is told by the error itself, also where nothing can be left
            why = " ".join(str(error).split()) or type(error).__name__
            _leave(key, url, f"**Ended before it was done:** {why}")
        raise
    minutes = (time.monotonic() - begun) / 60
    done = count() if callable(count) else count
    speed = done / max(minutes, 1e-9)
    rate = f"{done} {what} in {minutes:.1f} minutes, {speed:.1f} a minute, {speed / 60:.2f} a second."
    _leave(key, url, rate if done else f"No {what} were missing.")


def _leave(key: str, url: str, said: str) -> None:
    from flows.cli.describe import store_summary

    first, *lines = (line.strip() for line in store_summary(url))
    listed = "\n".join(f"- {line}" for line in lines)
    pages = f"Pages: `vital pages {safe_url(url)} --out DIR`" if key == "atlas" else ""
    create_markdown_artifact(f"## {first}\n\n{said}\n\n{listed}\n\n{pages}\n", key=key)


def link_pages(url: str, index: Path) -> None:
    """A markdown artifact ``pages``: where the pages of the atlas are. A browser that shows Prefect's own pages may
    refuse to follow a link to a file, so the way to open them is said, too."""
    create_markdown_artifact(
        f"## Pages of {safe_url(url)}\n\n[{index.name}](<{index.as_uri()}>) on {socket.gethostname()}: "
        f"`vital view {shlex.quote(str(index.parent))}`\n",
        key="pages",
    )
