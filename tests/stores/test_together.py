"""Requests under way together: results in order, so many at a time, and nothing goes on after an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from threading import Barrier, Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.together import TOGETHER, ahead, in_order, together

WAIT = 60.0


def test_so_many_are_under_way_at_once_and_results_come_in_order() -> None:
    meeting = Barrier(TOGETHER, timeout=WAIT)  # broken, if fewer come

    def work(item: int) -> int:
        meeting.wait()
        return item * item

    assert together(work, range(2 * TOGETHER)) == [item * item for item in range(2 * TOGETHER)]
    assert list(ahead(work, range(TOGETHER), TOGETHER)) == [item * item for item in range(TOGETHER)]
    assert together(work, []) == list(ahead(work, [], 2)) == []


def test_no_more_is_made_ahead_than_may_wait() -> None:
    begun: list[int] = []
    results = ahead(lambda item: begun.append(item) or item, range(10), 3)  # type: ignore[func-returns-value]
    assert next(results) == 0
    assert len(begun) <= 4
    assert list(results) == list(range(1, 10))
    assert begun == sorted(begun)


@pytest.mark.parametrize("all_of", [together, lambda work, items: list(ahead(work, items, 4))])
def test_an_error_is_raised_when_nothing_is_under_way_any_more(all_of: object) -> None:
    failed, ended = Event(), []

    def work(item: int) -> None:
        if item == 0:
            failed.set()
            raise OSError("no answer")
        assert failed.wait(WAIT)
        ended.append(item)

    with pytest.raises(OSError, match="no answer"):
        all_of(work, range(100))  # type: ignore[operator]
    before = list(ended)
    assert len(before) <= (99 if all_of is together else 4)
    assert together(lambda item: item, [1]) == [1]  # the threads are free again
    assert ended == before


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4), st.integers(1, 9))
def test_results_are_in_the_order_of_the_items(items: list[int], threads: int, ahead: int) -> None:
    assert list(in_order(items, lambda item: -item, threads, ahead)) == [(item, -item) for item in items]


def test_as_many_threads_work_as_are_asked_for() -> None:
    meeting = Barrier(3, timeout=WAIT)
    found = in_order(range(6), lambda item: meeting.wait() >= 0, threads=3, ahead=6)
    assert [met for _, met in found] == [True] * 6  # with two threads nobody would ever pass


def test_no_more_than_so_many_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    for place, (item, _) in enumerate(in_order(items(), str, threads=2, ahead=4)):
        assert item == place
        assert len(taken) <= place + 4


def test_an_error_comes_at_the_turn_of_its_item_and_one_of_the_items_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield from (3, 2, 1, 0)
        raise OSError("the stream broke")

    seen: list[int] = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(item for item, _ in in_order(items(), lambda item: 6 // item, threads=2, ahead=9))
    assert seen == [3, 2, 1]
    seen.clear()
    with pytest.raises(OSError, match="the stream broke"):
        seen.extend(item for item, _ in in_order(items(), str, threads=2, ahead=9))
    assert seen == [3, 2, 1, 0]


def test_what_is_given_up_leaves_no_thread() -> None:
    found = in_order(range(100), str, threads=2, ahead=50)
    assert next(found) == (0, "0")
    found.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("in-order")]
