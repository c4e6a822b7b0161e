"""How far a run is, as a progress artifact on Prefect's pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext


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
