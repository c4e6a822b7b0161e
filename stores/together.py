"""Work of threads whose results come in the order of what was asked: requests that wait for a disk or a service, which
one after the other take the sum of their times, and images decoded ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any, TypeVar

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
    """The same one after the other: while one result is used, up to ``most`` others are made or wait in memory. Errors
    come as from `in_order`."""
    yield from (result for _, result in _ordered(_threads(), items, work, most + 1))


def in_order(items: Iterable[T], work: Callable[[T], R], threads: int, ahead: int) -> Generator[tuple[T, R]]:
    """``work`` on every item by some ``threads`` of its own, each result beside its item, in the order of the items; at
    most ``ahead`` of them are in memory.

    Everything is as if one thread did it: an error of ``work`` is raised at its item's turn, and one of ``items`` after
    the results of what came before it.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="in-order") as pool:
        yield from _ordered(pool, items, work, ahead)


def _ordered(pool: ThreadPoolExecutor, items: Iterable[T], work: Callable[[T], R], most: int) -> Generator[tuple[T, R]]:
    source, waiting = iter(items), deque[tuple[T, Future[R]]]()
    failed: Exception | None = None
    more = True
    try:
        while more or waiting:
            while more and len(waiting) < most:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                except Exception as error:  # whatever the items come from
                    failed, more = error, False
                else:
                    waiting.append((item, pool.submit(work, item)))
            if waiting:
                item, future = waiting.popleft()
                yield item, future.result()
        if failed is not None:
            raise failed
    finally:
        _end(future for _, future in waiting)


def _end(under_way: Iterable[Future[Any]]) -> None:
    """Until then nothing that has begun is left running, so that an error finds everything at rest."""
    wait([one for one in under_way if not one.cancel()])
