"""Steps of the optimiser on the card: how long, how busy, how much memory, and whether their losses are right."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.card.bench import PRECISIONS, Bench, Found
from benchmarks.card.subject import Subject, subject
from vital.measuring.targets import Target
from vital.network.arithmetic import repeatable
from vital.network.probe import CLASSES
from vital.pictures.device import FIXED, batch_of, dearest, free_bytes, needed_bytes
from vital.pictures.optimise import Pictures, optimise
from vital.settings import PictureSettings

LEFT_OUT = 8
"""First steps of a timed run that do not count: libraries choose their kernels in them, and graphs are recorded."""


class _Enough(Exception):
    """The time that a run may take is over."""


class _Clock:
    """When each step of a run was asked for by the host, and done by the device."""

    def __init__(self, bench: Bench, until: float = float("inf")) -> None:
        self._bench, self._until = bench, until
        self._host: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def __call__(self, step: int) -> None:
        """As the progress of a run."""
        self._host.append(time.perf_counter())
        if self._bench.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
            if step % 50 == 0:
                self._events[-1].synchronize()  # else the host is thousands of steps ahead of what may still be done
        if time.monotonic() > self._until:
            raise _Enough

    def found(self) -> Found:
        """Milliseconds of a step, median: of the device, and of the host that asks for it. And what a run takes to
        begin: how much longer its first steps take than as many later ones, which is where graphs are recorded."""
        self._bench.wait()
        skip = min(LEFT_OUT, len(self._host) // 2)
        host = 1000 * np.diff(self._host)
        device = host
        if self._bench.on_gpu:
            device = np.array([one.elapsed_time(two) for one, two in pairwise(self._events)])
        step = float(np.median(device[skip:]))
        begin = float(device[:skip].sum()) - skip * step
        return {"step_ms": step, "host_ms": float(np.median(host[skip:])), "begin_ms": begin}


def _run(
    here: Subject, target: Target, settings: PictureSettings, progress: Callable[[int], None] | None = None,
    record: bool = True,
) -> Pictures:  # fmt: skip
    told = progress or (lambda step: None)
    return optimise(here.model, target, settings, here.survey.layouts(), progress=told, record=record)


def timings(bench: Bench) -> Found:
    """Every preset, precision and batch; pictures a second, and the peak of memory."""
    here = subject(bench.tiny, bench.device)
    batches = (2,) if bench.tiny else (32, 128, 8, 256)
    cases: dict[str, Callable[[], Any]] = {}
    for batch in batches:
        for preset in ("natural", "paper"):
            for precision in reversed(PRECISIONS):
                how = {"preset": preset, "precision": precision}
                cases[f"{preset}_{precision}_{batch}"] = partial(_timed, bench, here, here.layer, batch, how)
    for precision in reversed(PRECISIONS):
        cases[f"classes_{precision}"] = partial(_timed, bench, here, CLASSES, batches[0], {"precision": precision})
    return bench.each(cases)


def _timed(
    bench: Bench, here: Subject, layer: str, batch: int, changes: Mapping[str, object], record: bool = True
) -> Found:
    steps = 4 if bench.tiny else 24
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    clock = _Clock(bench)
    _run(here, here.target(layer, batch), here.settings(steps, **changes), clock, record)
    found = clock.found()
    found["pictures_per_s_of_300_steps"] = batch / (300 * found["step_ms"] / 1000)
    if bench.on_gpu:
        found["peak_bytes"] = torch.cuda.max_memory_allocated(bench.device)
        found["reserved_bytes"] = torch.cuda.max_memory_reserved(bench.device)
    return found


def replays(bench: Bench) -> Found:
    """A recorded step against the same step operation by operation: time, and how far losses are apart."""
    here = subject(bench.tiny, bench.device)
    batches = (2,) if bench.tiny else (8, 32)

    def compared(layer: str, batch: int) -> Found:
        target, settings = here.target(layer, batch), here.settings(4 if bench.tiny else 20, precision="float32")
        recorded, eager = (_run(here, target, settings, record=record) for record in (True, False))
        return {
            "recorded": _timed(bench, here, layer, batch, {}, True),
            "eager": _timed(bench, here, layer, batch, {}, False),
            "first_loss_apart": apart(recorded.loss[:, :1], eager.loss[:, :1]),
            "losses_apart": apart(recorded.loss, eager.loss),
        }

    layers = (here.layer, CLASSES)
    return bench.each({f"{one}_{batch}": partial(compared, one, batch) for one in layers for batch in batches})


def apart(some: np.ndarray, others: np.ndarray) -> float:
    """Greatest difference as a share of the greatest value."""
    return float(np.abs(some - others).max() / np.abs(others).max())


def launches(bench: Bench) -> Found:
    """Kernels of a step, how busy they keep the card, and whether a step makes the host wait, by batch."""
    here = subject(bench.tiny, bench.device)
    batches, steps = ((2,), 4) if bench.tiny else ((256, 32), 20)

    def profiled(batch: int, record: bool) -> Found:
        from torch.profiler import ProfilerActivity, profile

        target, settings = here.target(here.layer, batch), here.settings(steps)
        alone = _timed(bench, here, here.layer, batch, {}, record)  # the profiler takes the host time of its own
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.on_gpu else [])]
        with profile(activities=activities) as profiler:
            _run(here, target, settings, record=record)
            bench.wait()
        kind = "CUDA" if bench.on_gpu else "CPU"
        seen = [event for event in profiler.events() if event.device_type.name == kind]
        kernels = [event for event in seen if not getattr(event, "is_user_annotation", False)]  # spans around others
        busy = sum(event.time_range.elapsed_us() for event in kernels) / steps / 1000
        longest = sorted(profiler.key_averages(), key=lambda one: -_own_time(one, bench.on_gpu))[:12]
        shown = {one.key[:80]: round(_own_time(one, bench.on_gpu) / steps, 1) for one in longest}
        return {
            **alone, "operations_per_step": len(kernels) / steps, "busy_ms": busy,
            "busy_share": busy / alone["step_ms"] if bench.on_gpu else None, "longest_us_per_step": shown,
        }  # fmt: skip

    def waits(batch: int) -> str:
        """An operation that makes the host wait is an error from the sixth step to the last."""

        def progress(step: int) -> None:
            if bench.on_gpu and step in (5, steps):
                torch.cuda.set_sync_debug_mode("error" if step == 5 else "default")

        try:
            _run(here, here.target(here.layer, batch), here.settings(steps), progress, False)
        finally:
            if bench.on_gpu:
                torch.cuda.set_sync_debug_mode("default")
        return "none"

    cases: dict[str, Callable[[], Any]] = {}
    for batch in batches:
        cases[f"recorded_{batch}"] = partial(profiled, batch, True)
        cases[f"waits_{batch}"] = partial(waits, batch)
        cases[f"eager_{batch}"] = partial(profiled, batch, False)
    return bench.each(cases)


def _own_time(event: Any, on_gpu: bool) -> float:
    return float(getattr(event, "self_device_time_total" if on_gpu else "self_cpu_time_total", 0.0))


def memory(bench: Bench) -> Found:
    """The measured batch, twice in a process, and the peak that a run of it has beside what was free."""
    here = subject(bench.tiny, bench.device)

    def once(precision: str) -> Found:
        settings = dearest(here.settings(20, precision=precision))
        needed = needed_bytes(lambda: _run(here, here.target(here.layer, 1), settings), bench.device)
        batch = batch_of(needed, bench.device)
        found: Found = {"batch": batch, "free_bytes": free_bytes(bench.device)}
        if bench.on_gpu:
            torch.cuda.reset_peak_memory_stats(bench.device)
            before = torch.cuda.memory_allocated(bench.device)
            _run(here, here.target(here.layer, batch), here.settings(8, precision=precision))
            found["peak_bytes"] = torch.cuda.max_memory_allocated(bench.device) - before
            found["reserved_bytes"] = torch.cuda.max_memory_reserved(bench.device)
        return found

    turns = [(one, turn) for one in ("bfloat16", "float32") for turn in ("first", "again")]
    return bench.each({f"{one}_{turn}": partial(once, one) for one, turn in turns})


def repeats(bench: Bench) -> Found:
    """Whether a run gives the same bytes again, and operation by operation, as it is and where that is asked for."""
    here = subject(bench.tiny, bench.device)
    batch = 2 if bench.tiny else FIXED["cuda"] // 4

    def again(layer: str, precision: str, asked: bool) -> Found:
        target, settings = here.target(layer, batch), here.settings(4 if bench.tiny else 30, precision=precision)
        with repeatable(asked):
            begun = time.perf_counter()
            one, other = (_run(here, target, settings) for _ in range(2))
            taken = (time.perf_counter() - begun) / 2
            eager = _run(here, target, settings, record=False)
        return {
            "same_bytes": same(one, other), "same_as_eager": same(one, eager),
            "bytes_apart": int(np.abs(one.pixels.astype(int) - other.pixels).max()), "run_s": taken,
        }  # fmt: skip

    def same(one: Pictures, other: Pictures) -> bool:
        return bool((one.pixels == other.pixels).all() and (one.loss == other.loss).all())

    cases: dict[str, Callable[[], Any]] = {}
    for layer in (here.layer, CLASSES):
        for precision in ("float32", "bfloat16"):
            for asked, word in ((False, "usual"), (True, "repeatable")):
                cases[f"{layer}_{precision}_{word}"] = partial(again, layer, precision, asked)
    return bench.each(cases)


def against_cpu(bench: Bench) -> Found:
    """Losses of the device against those of the CPU in single precision: of the first step, and of all."""
    here, there = subject(bench.tiny, bench.device), subject(bench.tiny, torch.device("cpu"))

    def compared(layer: str) -> Found:
        target = there.target(layer, 2)
        exact = _run(there, target, there.settings(4, precision="float32"))
        found: Found = {}
        for precision in PRECISIONS:
            other = _run(here, target, here.settings(4, precision=precision))
            found[precision] = {
                "first": apart(other.loss[:, :1], exact.loss[:, :1]), "all": apart(other.loss, exact.loss)
            }  # fmt: skip
        return found

    return bench.each({layer: partial(compared, layer) for layer in (here.layer, CLASSES)})


def pictures(bench: Bench) -> Found:
    """Pictures a minute at 2000 steps, as a task makes them: from a run that goes on as long as there is time for."""
    here = subject(bench.tiny, bench.device)
    steps = 6 if bench.tiny else 2000

    def made(layer: str, share: float) -> Found:
        batch = 2 if bench.tiny else 64
        clock = _Clock(bench, time.monotonic() + share * bench.left)
        begun, done = time.perf_counter(), 0

        def progress(step: int) -> None:
            nonlocal done
            done = step
            clock(step)

        try:
            _run(here, here.target(layer, batch), here.settings(steps), progress)
            taken: float | None = time.perf_counter() - begun
        except _Enough:
            taken = None
        found = clock.found()
        whole = taken or steps * found["step_ms"] / 1000
        return {**found, "batch": batch, "steps_run": done, "whole_s": taken, "pictures_per_minute": 60 * batch / whole}

    return bench.each({here.layer: partial(made, here.layer, 0.5), CLASSES: partial(made, CLASSES, 0.9)})
