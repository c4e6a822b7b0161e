"""Work shared between threads whose results come in order, and the size of a JPEG before it is decoded."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stores.errors import Status, UnreadableImage
from stores.shards.decoding import in_order, jpeg_size


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4), st.integers(1, 9))
def test_results_are_in_the_order_of_the_items(items: list[int], threads: int, ahead: int) -> None:
    assert list(in_order(items, lambda item: -item, threads, ahead)) == [(item, -item) for item in items]


def test_as_many_threads_work_as_are_asked_for() -> None:
    meeting = threading.Barrier(3, timeout=60)
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
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def jpeg(rows: int, columns: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((rows, columns, 3), np.uint8)).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_size_of_a_jpeg_is_known_before_it_is_decoded() -> None:
    assert jpeg_size(jpeg(8, 24)) == (8, 24)
    assert jpeg_size(jpeg(8, 24, "L")) == (8, 24)
    assert jpeg_size(jpeg(8, 24, "CMYK")) is None
    assert jpeg_size(b"\xff\xd8\xff and no more") is None
    assert jpeg_size(b"no image") is None
    with pytest.raises(UnreadableImage) as error:
        jpeg_size(jpeg(8, 24), max_pixels=191)
    assert error.value.status == Status.TOO_LARGE
