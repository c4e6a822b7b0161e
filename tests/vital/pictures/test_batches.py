import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vital.errors import DoesNotFit
from vital.pictures.device import in_batches, largest_power, measured_batch

ERRORS = [
    MemoryError("no room"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
]


def room_for(most: int, error: BaseException, tried: list[tuple[int, int]]) -> Callable[[slice], None]:
    def work(part: slice) -> None:
        tried.append((part.start, part.stop))
        if part.stop - part.start > most:
            raise error

    return work


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_and_the_later_ones_too(error: BaseException) -> None:
    tried: list[tuple[int, int]] = []
    done = list(in_batches(11, 8, room_for(3, error, tried)))
    assert [(part.start, part.stop) for part in done] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 11)]
    assert tried[:3] == [(0, 8), (0, 4), (0, 2)]
    assert all(stop - start <= 2 for start, stop in tried[2:])


@given(st.integers(0, 40), st.integers(1, 16), st.integers(1, 16))
def test_everything_is_done_once_and_in_order(count: int, size: int, most: int) -> None:
    done = list(in_batches(count, size, room_for(most, MemoryError(), [])))
    assert [index for part in done for index in range(part.start, part.stop)] == list(range(count))


def test_one_that_does_not_fit_is_an_error_with_the_way_out() -> None:
    with pytest.raises(DoesNotFit, match=r"one picture does not fit into memory \(no room\): take a smaller --side"):
        list(in_batches(3, 2, room_for(0, ERRORS[0], [])))


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        list(in_batches(3, 2, room_for(0, RuntimeError("shapes do not match"), [])))


@pytest.mark.parametrize(("room", "most", "size"), [(0.3, 8, 1), (1.0, 8, 1), (7.9, 8, 4), (8.0, 8, 8), (1e9, 8, 8)])
def test_the_batch_is_a_power_of_two(room: float, most: int, size: int) -> None:
    assert largest_power(room, most) == size


def test_the_batch_is_measured_by_what_the_graph_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_AVPHYS_PAGES": 10_000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)

    def step(megabytes: float) -> Callable[[], None]:
        values = torch.ones(int(megabytes * 2**18), requires_grad=True)
        return lambda: (values.exp() * 1.0).sum().backward()  # exp keeps its result, once

    assert measured_batch(step(0.1), torch.device("cpu")) == 8
    assert measured_batch(step(4), torch.device("cpu")) == 2  # 0.8 × 41 MB over 3 × 4.2 MB
    assert measured_batch(step(400), torch.device("cpu")) == 1


def test_a_real_lack_of_memory_halves_the_batch() -> None:
    """A process that may not have more than 3 GB of address space on top of what torch takes."""
    program = (
        "import resource, torch\n"
        "from vital.pictures.device import in_batches\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))\n"
        "done = list(in_batches(4, 4, lambda part: torch.empty((part.stop - part.start) * 2**29)))\n"
        "print([part.stop - part.start for part in done])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[1, 1, 1, 1]"
