"""What a run leaves in Prefect's pages: a summary of the store it filled, and how fast it went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact

from flows.description import store_summary


@contextmanager
def summarised(key: str, url: str, what: str, count: int) -> Iterator[None]:
    """When the block ends well, a markdown artifact ``key``: what the store holds by now, and ``count`` of ``what`` (as
    in "pictures") per minute."""
    begun = time.monotonic()
    yield
    minutes = (time.monotonic() - begun) / 60
    first, *lines = (line.strip() for line in store_summary(url))
    rate = f"{count} {what} in {minutes:.1f} minutes, {count / max(minutes, 1e-9):.1f} a minute." if count else ""
    listed = "\n".join(f"- {line}" for line in lines)
    create_markdown_artifact(f"## {first}\n\n{rate or f'No {what} were missing.'}\n\n{listed}\n", key=key)
