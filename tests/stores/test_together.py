"""Requests under way together: results in order, so many at a time, and nothing goes on after an error."""

from __future__ import annotations

from threading import Barrier, Event

import pytest

from stores.together import TOGETHER, ahead, together

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
