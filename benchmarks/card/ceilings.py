"""What the card can do at best, by torch alone: copies, matrix products, a network's bare passes, sorts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.card.bench import PRECISIONS, Bench, Found
from benchmarks.card.network import ResNet

SHAPES = {"layer1": (256, 3136), "layer2": (512, 784), "layer3": (1024, 196), "layer4": (2048, 49), "input": (3, 50176)}
"""Channels and sites of what ResNet-50's pictures of 224 pixels are matched at."""


@contextmanager
def _rounding(precision: str) -> Iterator[torch.dtype]:
    """The arithmetic of torch alone: these parts run where nothing else does."""
    backends: Any = torch.backends
    allowed = precision != "float32"
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = allowed
    try:
        yield torch.bfloat16 if precision == "bfloat16" else torch.float32
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before


def ceilings(bench: Bench) -> Found:
    """GB/s copied on the device, TFLOP/s of square matrix products, images/s of a forward and its input gradient."""
    size, batches = (64, (2,)) if bench.tiny else (8192, (32, 128))
    cases: dict[str, Callable[[], Any]] = {"copy_gb_per_s": partial(_copied, bench)}
    cases |= {f"gemm_tflops_{one}": partial(_product, bench, size, one) for one in PRECISIONS}
    for batch in batches:
        cases |= {f"bare_{one}_{batch}": partial(_bare, bench, batch, one) for one in PRECISIONS}
    return bench.each(cases)


def _copied(bench: Bench) -> float:
    values = torch.empty(2**20 if bench.tiny else 2**30, dtype=torch.uint8, device=bench.device)
    other = torch.empty_like(values)
    return 2 * len(values) / bench.seconds_of(lambda: other.copy_(values)) / 1e9


def _product(bench: Bench, size: int, precision: str) -> float:
    with _rounding(precision) as dtype:
        values = torch.randn(size, size, device=bench.device).to(dtype)
        return 2 * size**3 / bench.seconds_of(lambda: values @ values) / 1e12


def _bare(bench: Bench, batch: int, precision: str) -> Found:
    """A forward and the gradient of its input, images a second, and memory that it takes."""
    side = 32 if bench.tiny else 224
    with _rounding(precision) as dtype:
        plain = ResNet(4, (1, 1, 1, 1), 10) if bench.tiny else ResNet()
        network = copy.deepcopy(plain).eval().requires_grad_(False).to(bench.device, dtype)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.randn(batch, 3, side, side, device=bench.device).to(dtype)
        images = images.contiguous(memory_format=torch.channels_last).requires_grad_()

        def step() -> Tensor:
            return torch.autograd.grad(network(images).float().sum(), images)[0]

        if bench.on_gpu:
            torch.cuda.reset_peak_memory_stats(bench.device)
        found: Found = {"images_per_s": batch / bench.seconds_of(step)}
        if bench.on_gpu:
            found["peak_bytes"] = torch.cuda.max_memory_allocated(bench.device)
        return found


def sorts(bench: Bench) -> Found:
    """Milliseconds of a sort with its order, at the shapes of a step of 32 pictures, in 32 and in 16 bits."""
    cases: dict[str, Callable[[], Any]] = {}
    for name, (channels, sites) in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            shape = (2, min(channels, 8), min(sites, 64)) if bench.tiny else (32, channels, sites)
            cases[f"{name}_{str(dtype).removeprefix('torch.')}"] = partial(_sorted, bench, shape, dtype)
    return bench.each(cases)


def _sorted(bench: Bench, shape: tuple[int, ...], dtype: torch.dtype) -> float:
    values = torch.randn(shape, device=bench.device).to(dtype)
    return 1000 * bench.seconds_of(lambda: torch.sort(values, dim=-1))
