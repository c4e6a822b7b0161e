"""How the parts of `benchmarks/gpu.py` are timed, kept within their time, and kept from ending each other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

Found = dict[str, Any]
"""What a part found, as JSON takes it."""
PRECISIONS: tuple[Literal["float32", "tf32", "bfloat16"], ...] = ("float32", "tf32", "bfloat16")


Part: TypeAlias = "Callable[[Bench], Found]"


@dataclass
class Bench:
    """Where it runs, how large, and until when."""

    device: torch.device
    tiny: bool
    """A small network and a handful of steps: to see that it runs, not how fast."""
    seconds: float
    """For all parts together."""
    in_order: bool = False
    """Whether each part may take all that is left, so that the last are left out where there is too little."""
    began: float = field(default_factory=time.monotonic)
    part_ends: float = 0.0

    @property
    def on_gpu(self) -> bool:
        """Whether there are events, streams and memory of a card."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that the part may still take."""
        return self.part_ends - time.monotonic()

    def wait(self) -> None:
        """Until the device has done what it was asked."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds_of(self, work: Callable[[], object], repeats: int = 5) -> float:
        """Median seconds of the device, after a first run that is not counted."""
        repeats = 1 if self.tiny else repeats
        work()
        self.wait()
        taken = []
        for _ in range(repeats):
            begun = time.perf_counter()
            if self.on_gpu:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                work()
                last.record()
                self.wait()
                taken.append(first.elapsed_time(last) / 1000)
            else:
                work()
                taken.append(time.perf_counter() - begun)
        return float(np.median(taken))

    def each(self, cases: dict[str, Callable[[], Any]]) -> Found:
        """What every case gives, by name; its error where it has one; those for which no time was left."""
        found: Found = {}
        for name, work in cases.items():
            if self.left <= 0:
                found.setdefault("left_out", []).append(name)
                continue
            found[name] = attempted(work)
            if self.on_gpu:
                torch.cuda.empty_cache()
        return found

    def run(
        self, parts: Mapping[str, tuple[float, Callable[[Bench], Found]]], keep: Callable[[Found], object]
    ) -> Found:
        """Every part, in the share of the time that it has beside those after it, or ``in_order`` in all that is left;
        what one leaves goes to the rest. After each of them what there is is given to ``keep``. Those for which no time
        was left are named as ``left_out``."""
        found: Found = {}
        shares = {name: share for name, (share, _) in parts.items()}
        for name, (share, work) in parts.items():
            now = time.monotonic()
            rest = max(0.0, self.began + self.seconds - now)
            self.part_ends = now + (rest if self.in_order else rest * share / sum(shares.values()))
            del shares[name]
            if self.in_order and not rest:
                found.setdefault("left_out", []).append(name)
                keep(found)
                continue
            print(f"{name}: {self.left:.0f} s", file=sys.stderr, flush=True)
            found[name] = attempted(partial(work, self))
            found[name]["seconds"] = round(time.monotonic() - now, 2)
            keep(found)
        return found


def attempted(work: Callable[[], Any]) -> Any:
    """What ``work`` gives, or its error in one line: nothing that fails takes the others along."""
    try:
        return work()
    except ImportError as error:
        return {"skipped": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"}


def described(device: torch.device) -> Found:
    """The card, its driver's and torch's versions."""
    found: Found = {"torch": torch.__version__, "device": str(device), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "card": card.name, "capability": f"{card.major}.{card.minor}", "memory": card.total_memory,
            "multiprocessors": card.multi_processor_count, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    return found
