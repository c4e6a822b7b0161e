"""What a task has made is written while it makes the next: one piece at a time, and none is left unwritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

Behind: TypeAlias = Callable[[Callable[[], object], ExitStack], None]
"""Has something written, and then leaves what is held for it, which it takes over."""


@contextmanager
def written_behind() -> Iterator[Behind]:
    """Something that does writes in a thread of its own. Each waits for the one before, so that never more than one is
    in memory beside what is being made; at the end of the block the last one is waited for.

    The error of a write is raised where the next is handed over, or at the end. An error of the block itself is raised
    when the write that goes on has ended, whose own error is then its context.
    """
    under_way: Future[None] | None = None

    def wait() -> None:
        nonlocal under_way
        waited, under_way = under_way, None
        if waited is not None:
            waited.result()

    def behind(write: Callable[[], object], held: ExitStack) -> None:
        nonlocal under_way
        wait()
        taken = held.pop_all()
        try:
            under_way = pool.submit(_written, write, taken)
        except BaseException:
            taken.close()
            raise

    with ThreadPoolExecutor(1, thread_name_prefix="behind") as pool:
        try:
            yield behind
        except BaseException as error:
            if (late := under_way and under_way.exception()) is not None:
                error.add_note(f"what was made before could not be written: {late}")
            raise
        wait()


def _written(write: Callable[[], object], held: ExitStack) -> None:
    with held:
        write()
