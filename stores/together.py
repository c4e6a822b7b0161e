"""Requests that wait for a disk or a service, under way together: one after the other they take the sum of their
times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

TOGETHER = 8
"""Requests of a process that are under way together. What they do must not itself ask for some."""


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Kept: fsspec makes a client of its own for every thread."""
    return ThreadPoolExecutor(TOGETHER, thread_name_prefix="store")


def together(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``work`` done for all ``items``, its results in their order. The first error is raised when nothing is under way
    any more; what has not begun by then is left."""
    under_way: list[Future[R]] = []
    try:
        under_way = [_threads().submit(work, item) for item in items]
        return [one.result() for one in under_way]
    finally:
        _end(under_way)


def ahead(work: Callable[[T], R], items: Iterable[T], most: int) -> Iterator[R]:
    """The same one after the other: while one result is used, up to ``most`` others are made or wait in memory."""
    under_way: deque[Future[R]] = deque()
    waiting = iter(items)
    try:
        for item in waiting:
            under_way.append(_threads().submit(work, item))
            if len(under_way) > most:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        _end(under_way)


def _end(under_way: Iterable[Future[R]]) -> None:
    wait([one for one in under_way if not one.cancel()])
