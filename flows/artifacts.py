"""What a run leaves in Prefect's pages: a summary of the store it filled, and how fast it went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact

from flows.description import store_summary
from stores.locations import safe_url


@contextmanager
def summarised(key: str, url: str, what: str, count: int | Callable[[], int]) -> Iterator[None]:
    """When the block ends well, a markdown artifact ``key``: what the store holds by now, its fingerprints, how many
    neurons there are and why others are not, and ``count`` of ``what`` (as in "pictures") per minute and second."""
    begun = time.monotonic()
    yield
    minutes = (time.monotonic() - begun) / 60
    first, *lines = (line.strip() for line in store_summary(url))
    done = count() if callable(count) else count
    speed = done / max(minutes, 1e-9)
    rate = f"{done} {what} in {minutes:.1f} minutes, {speed:.1f} a minute, {speed / 60:.2f} a second." if done else ""
    pages = f"Pages: `vital pages {safe_url(url)} --out DIR`" if key == "atlas" else ""
    listed = "\n".join(f"- {line}" for line in lines)
    create_markdown_artifact(f"## {first}\n\n{rate or f'No {what} were missing.'}\n\n{listed}\n\n{pages}\n", key=key)
