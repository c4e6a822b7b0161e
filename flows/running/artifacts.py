"""What a run leaves on Prefect's pages: how far it is, a summary of the store it filled, and how fast it went."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext

from stores import open_any
from stores.files import safe_url


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


def _leave(key: str, url: str, outcome: str) -> None:
    first, *lines = (line.strip() for line in open_any(url).summary())
    listed = "\n".join(f"- {line}" for line in lines)
    pages = f"Pages: `vital pages {safe_url(url)} --out DIR`" if key == "atlas" else ""
    create_markdown_artifact(f"## {first}\n\n{outcome}\n\n{listed}\n\n{pages}\n", key=key)


def link_pages(url: str, index: Path) -> None:
    """A markdown artifact ``pages``: where the pages of the atlas are. A browser that shows Prefect's own pages may
    refuse to follow a link to a file, so the command that opens them stands there, too."""
    create_markdown_artifact(
        f"## Pages of {safe_url(url)}\n\n[{index.name}](<{index.as_uri()}>) on {socket.gethostname()}: "
        f"`vital view {shlex.quote(str(index.parent))}`\n",
        key="pages",
    )
