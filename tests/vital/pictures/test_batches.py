from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.adam import adam

from tests.reference.networks import SIDE
from vital.errors import DoesNotFit
from vital.measuring.targets import Attribution, Crop, measure
from vital.memory import RanOut, in_batches
from vital.network.models import Model
from vital.network.probe import CLASSES
from vital.pictures.device import batch_of, dearest, kept_bytes, largest_power, needed_bytes
from vital.pictures.objective import Objective
from vital.pictures.optimise import Pictures, optimise
from vital.pictures.step import Begun
from vital.settings import PictureSettings

LAYER = "2"
ERRORS = [
    MemoryError("no room"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`"),
]


def room_for(most: int, error: BaseException, tried: list[tuple[int, int]]) -> Callable[[slice], None]:
    def work(part: slice) -> None:
        tried.append((part.start, part.stop))
        if part.stop - part.start > most:
            raise error

    return work


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_batch_that_does_not_fit_is_halved_and_the_later_ones_too(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[tuple[int, int]] = []
    done = list(in_batches(11, 8, room_for(3, error, tried)))
    assert [(part.start, part.stop) for part in done] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 11)]
    assert tried[:3] == [(0, 8), (0, 4), (0, 2)]
    assert all(stop - start <= 2 for start, stop in tried[2:])
    said = [record.getMessage() for record in caplog.records]
    assert [said[0].startswith("8 pictures together did not fit"), said[1].endswith("begun anew by 2")] == [
        True,
        True,
    ]
    assert len(said) == 2


@given(st.integers(0, 40), st.integers(1, 16), st.integers(1, 16))
def test_everything_is_done_once_and_in_order(count: int, size: int, most: int) -> None:
    done = list(in_batches(count, size, room_for(most, MemoryError(), [])))
    assert [index for part in done for index in range(part.start, part.stop)] == list(range(count))


def test_one_that_does_not_fit_is_an_error_with_the_way_out() -> None:
    with pytest.raises(DoesNotFit, match=r"one picture does not fit into memory \(no room\): take a smaller --side"):
        list(in_batches(3, 2, room_for(0, ERRORS[0], [])))


def test_of_torch_s_account_of_a_gpu_s_memory_what_was_asked_for_is_told() -> None:
    """As torch 2.11 has it, in one line."""
    told = (
        "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 79.18 GiB of which 76.68 GiB is "
        "free. Including non-PyTorch memory, this process has 2.49 GiB memory in use. Of the allocated memory 1.70 GiB "
        "is allocated by PyTorch, and 18.18 MiB is reserved by PyTorch but unallocated. If reserved but unallocated "
        "memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
    )
    with pytest.raises(DoesNotFit, match=r"fit into memory \(CUDA out of memory. Tried to allocate 2.00 MiB\): take a"):
        list(in_batches(3, 2, room_for(0, torch.OutOfMemoryError(told), [])))


OTHERS = [
    RuntimeError("shapes do not match"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("cuFFT error: CUFFT_INVALID_SIZE"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_another_error_is_not_taken_for_a_lack_of_memory(error: Exception) -> None:
    tried: list[tuple[int, int]] = []
    with pytest.raises(type(error), match=str(error).split("`")[0]):
        list(in_batches(3, 2, room_for(0, error, tried)))
    assert tried == [(0, 2)]


def test_a_batch_of_fixed_size_is_not_halved() -> None:
    tried: list[tuple[int, int]] = []
    with pytest.raises(DoesNotFit, match=r"4 pictures together do not fit .* give --batch 2"):
        list(in_batches(8, 4, room_for(2, ERRORS[0], tried), fixed=True))
    assert tried == [(0, 4)]
    assert list(in_batches(8, 4, room_for(4, ERRORS[0], tried), fixed=True)) == [slice(0, 4), slice(4, 8)]


@pytest.mark.parametrize(("room", "most", "size"), [(0.3, 8, 1), (1.0, 8, 1), (7.9, 8, 4), (8.0, 8, 8), (1e9, 8, 8)])
def test_the_batch_is_a_power_of_two(room: float, most: int, size: int) -> None:
    assert largest_power(room, most) == size


@pytest.mark.slow
def test_the_batch_is_measured_by_what_the_graph_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"SC_AVPHYS_PAGES": 10_000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)

    def step(megabytes: float) -> Callable[[], None]:
        values = torch.ones(int(megabytes * 2**18), requires_grad=True)
        return lambda: (values.exp() * 1.0).sum().backward()  # exp keeps its result, once

    assert measured_batch(step(0.1), "cpu") == 8
    assert measured_batch(step(4), "cpu") == 2  # 0.8 × 41 MB over 3 × 4.2 MB
    assert measured_batch(step(400), "cpu") == 1


def measured_batch(one_picture: Callable[[], object], device: str) -> int:
    return batch_of(needed_bytes(one_picture, torch.device(device)), torch.device(device))


class Counted:
    """How many steps some things are done, each told by its number."""

    def __init__(self, done: int, things: list[int]) -> None:
        self.done, self.things = done, things

    def take(self, rows: slice) -> Counted:
        return Counted(self.done, self.things[rows])


@given(st.integers(1, 20), st.integers(2, 16), st.integers(1, 15))
def test_what_was_begun_is_gone_on_with_thing_by_thing(count: int, size: int, most: int) -> None:
    steps: list[int] = [0] * count

    def work(part: slice, begun: Counted | None = None) -> None:
        things = list(range(count))[part]
        assert begun is None or (begun.things == things and all(steps[thing] == begun.done for thing in things))
        done = begun.done if begun else 0
        for thing in things:
            steps[thing] = done + 1
        if len(things) > most:
            raise RanOut("no room", Counted(done + 1, things))
        for thing in things:
            steps[thing] = 10

    done = list(in_batches(count, size, work))
    assert [index for part in done for index in range(part.start, part.stop)] == list(range(count))
    assert steps == [10] * count


def run_out(monkeypatch: pytest.MonkeyPatch, after: int, most: int, left_half_way: bool = False) -> None:
    """The matching of more than ``most`` pictures has no memory left from that step on; or the optimiser has not."""
    real, count = Objective.__call__, Counter[str]()

    def full(self: Objective, activations: Any, random_crop: bool = False) -> torch.Tensor:
        together = len(activations[LAYER])
        count["asked"] += 1
        if together > most and count["asked"] > after and not left_half_way:
            raise RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED")
        return real(self, activations, random_crop)

    monkeypatch.setattr(Objective, "__call__", full)
    if left_half_way:

        def half(parameters: list[torch.Tensor], *args: Any, **kwargs: Any) -> None:
            if len(parameters[0]) > most and count["asked"] > after:
                raise torch.OutOfMemoryError("CUDA out of memory")
            adam(parameters, *args, **kwargs)

        monkeypatch.setattr("vital.pictures.step.adam", half)


@pytest.mark.parametrize(
    ("parametrisation", "left_half_way"), [("fourier", False), ("pixel", False), ("phase", False), ("fourier", True)]
)
def test_pictures_go_on_from_the_step_that_did_not_fit(
    tiny: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    parametrisation: str,
    left_half_way: bool,
) -> None:
    """Where a step was left in its middle they begin anew, and either is said. In double precision: in single, rounding
    differs between batches, and paths part."""
    model = tiny()
    model.network.double()
    images = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8)
    target = measure(
        model, Attribution(LAYER), [1, 5], [Crop(one, (row % 2,)) for row, one in enumerate(images)], ("0", "1")
    )
    settings = PictureSettings(parametrisation=parametrisation, steps=9, side=SIDE)
    spectrum = np.ones((3, SIDE, SIDE // 2 + 1), np.float32)
    steps: list[int] = []
    made: list[Pictures] = []

    def make(part: slice, begun: Begun | None = None) -> None:
        shown = target.take(part)
        made.append(optimise(model, shown, settings, spectrum=spectrum, progress=steps.append, begun=begun))

    list(in_batches(2, 1, make))
    alone, made = made, []
    steps.clear()
    run_out(monkeypatch, 6, 1, left_half_way)
    assert list(in_batches(2, 2, make)) == [slice(0, 1), slice(1, 2)]
    first = 1 if left_half_way else 7
    assert steps == [*range(1, 7), *range(first, 10), *range(first, 10)]
    [said] = [record.getMessage() for record in caplog.records]
    assert ("begun anew by 1" if left_half_way else "gone on with from step 6 by 1") in said
    for one, other in zip(made, alone, strict=True):
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.alpha, other.alpha)


def test_a_run_that_goes_on_is_the_same_run(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    images = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8)
    target = measure(
        model, Attribution(LAYER), [1, 5], [Crop(one, (row % 2,)) for row, one in enumerate(images)], ("0", "1")
    )
    settings = PictureSettings(steps=9, side=SIDE)
    whole = optimise(model, target, settings)
    with monkeypatch.context() as short:
        run_out(short, 4, 1)
        with pytest.raises(RanOut, match="CUFFT_ALLOC_FAILED") as error:
            optimise(model, target, settings)
    assert isinstance(error.value.begun, Begun)
    again = optimise(model, target, settings, begun=error.value.begun)
    for name in ("pixels", "alpha", "loss", "finite"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


class Card:
    """A GPU's memory as torch tells of it: of ``size`` bytes, ``kept`` by the allocator and ``used`` of these; the
    first step of all takes ``workspace`` for good."""

    def __init__(self, size: int, kept: int, used: int, step: int, workspace: int = 0) -> None:
        self.size, self.kept, self.used, self.step, self.peak = size, kept, used, step, 0
        self.workspace = workspace

    def run(self) -> None:
        """A step: its memory is used, then the allocator's own."""
        self.used, self.workspace = self.used + self.workspace, 0
        self.peak = self.used + self.step
        self.kept = max(self.kept, self.peak)

    def seen_by(self, monkeypatch: pytest.MonkeyPatch) -> Card:
        told: dict[str, Callable[[torch.device], object]] = {
            "reset_peak_memory_stats": lambda device: setattr(self, "peak", self.used),
            "memory_allocated": lambda device: self.used,
            "memory_reserved": lambda device: self.kept,
            "max_memory_allocated": lambda device: self.peak,
            "mem_get_info": lambda device: (self.size - self.kept, self.size),
        }
        for name, tell in told.items():
            monkeypatch.setattr(torch.cuda, name, tell)
        return self


@pytest.mark.parametrize("kept", [10, 500, 990])
def test_what_the_allocator_keeps_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """The batch of a process's first task is that of its later ones."""
    card = Card(size=1000, kept=kept, used=10, step=20).seen_by(monkeypatch)
    for _ in range(3):
        assert measured_batch(card.run, "cuda") == 32  # 0.8 × 990 over 20 is 39
    card = Card(size=1000, kept=kept, used=5, step=20, workspace=5).seen_by(monkeypatch)
    for _ in range(3):
        assert measured_batch(card.run, "cuda") == 32  # not 0.8 × 990 over 25, which is 31
    assert measured_batch(Card(1000, 600, 500, 20).seen_by(monkeypatch).run, "cuda") == 16


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_where_not_even_one_fits_the_batch_is_one(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    Card(1000, 10, 10, 16).seen_by(monkeypatch)

    def run(error: Exception) -> Callable[[], None]:
        def fail() -> None:
            raise error

        return fail

    for full in (RanOut("no room"), ERRORS[0], ERRORS[-1]):
        assert measured_batch(run(full), device) == 1
    with pytest.raises(RuntimeError, match="shapes"):
        measured_batch(run(OTHERS[0]), device)


@pytest.mark.parametrize("layer", [LAYER, CLASSES])
def test_the_dearest_steps_are_measured(tiny: Callable[..., Model], layer: str) -> None:
    """Adam's own are there from the second step on, and every second one of a class is a random crop."""
    model = tiny()
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    target = measure(model, Attribution(layer), [1], [Crop(one, (0,)) for one in images], ("0", "1"))
    settings = PictureSettings(steps=10, side=SIDE, softness=0)

    def bytes_of(settings: PictureSettings) -> int:
        return kept_bytes(lambda: optimise(model, target, settings))

    assert bytes_of(dearest(settings)) == pytest.approx(bytes_of(settings), rel=0.01)  # a longer run draws more shifts
    assert dearest(settings).steps == 2


def test_bytes_are_counted_as_long_as_they_are_kept() -> None:
    values = torch.ones(1000, requires_grad=True)

    def steps(count: int) -> Callable[[], object]:
        return lambda: [(values.exp() * 1.0).sum().backward() for _ in range(count)]

    assert kept_bytes(steps(1)) == kept_bytes(steps(5)) == 4000
    both = kept_bytes(lambda: (values.exp() + values.exp()).sum().backward())
    assert both == 8000
    on_meta = torch.ones(1000, requires_grad=True, device="meta")
    assert kept_bytes(lambda: (on_meta.exp() + on_meta.exp()).sum().backward()) == 8000


@pytest.mark.slow
def test_a_real_lack_of_memory_halves_the_batch() -> None:
    """A process that may not have more than 3 GB of address space on top of what torch takes."""
    program = (
        "import resource, torch\n"
        "from vital.memory import in_batches\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))\n"
        "done = list(in_batches(4, 4, lambda part: torch.empty((part.stop - part.start) * 2**29)))\n"
        "print([part.stop - part.start for part in done])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[1, 1, 1, 1]"
