"""What a run leaves in Prefect's pages: a summary of the store it filled, and how fast it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from flows.description import store_summary
from stores.locations import safe_url


@contextmanager
def summarised(
    key: str, url: str, what: str, count: int | Callable[[], int], pages: str | None = None
) -> Iterator[None]:
    """When the block ends, a markdown artifact ``key``: what the store holds by now, its fingerprints, how many
    neurons there are and why others are not, ``count`` of ``what`` (as in "pictures") per minute and second of the
    whole block, and a link to the ``pages`` if they were written. Where the block fails: why, and what the store holds
    nevertheless."""
    begun = time.monotonic()
    try:
        yield
    except Exception as error:
        with suppress(Exception):  # what failed is told by the error itself, also where nothing can be left
            why = " ".join(str(error).split()) or type(error).__name__
            _leave(key, url, f"**Ended before it was done:** {why}", _link(url, key, None))
        raise
    minutes = (time.monotonic() - begun) / 60
    done = count() if callable(count) else count
    speed = done / max(minutes, 1e-9)
    rate = f"{done} {what} in {minutes:.1f} minutes, {speed:.1f} a minute, {speed / 60:.2f} a second."
    _leave(key, url, rate if done else f"No {what} were missing.", _link(url, key, pages))


def _leave(key: str, url: str, said: str, link: str) -> None:
    try:
        first, *lines = (line.strip() for line in store_summary(url))
    except Exception:  # the store itself may be what failed
        first, lines = safe_url(url), ["The store cannot be read."]
    listed = "\n".join(f"- {line}" for line in lines)
    create_markdown_artifact(f"## {first}\n\n{said}\n\n{listed}\n\n{link}\n", key=key)


def _link(url: str, key: str, pages: str | None) -> str:
    index = Path(pages or "") / "index.html"
    if pages is not None and index.is_file():
        return f"Pages: [{pages}]({index.as_uri()})"
    return f"Pages: `vital pages {safe_url(url)} --out DIR`" if key == "atlas" else ""
