"""What a run that is to give the same bytes on a GPU each time asks of it, looked at on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.reference.networks import SIDE
from vital.measuring.targets import Attribution, Crop, measure
from vital.network.arithmetic import repeatable
from vital.network.models import Model
from vital.network.probe import CLASSES
from vital.pictures.optimise import optimise
from vital.pictures.transforms import random_warps, warp
from vital.settings import PictureSettings

LAYER, NODES = "2", ("0", "1")
NO_ORDER = (
    "adaptive_avg_pool2d_backward", "adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward", "bincount",
    "avg_pool3d_backward", "bicubic2d_backward", "bilinear2d_backward", "linear1d_backward", "trilinear3d_backward",
    "cumsum", "ctc_loss_backward", "embedding_bag", "fractional_max_pool", "grid_sampler_2d_backward", "histc",
    "grid_sampler_3d_backward", "max_unpool", "median", "nll_loss2d", "put_", "reflection_pad",
)  # fmt: skip
"""Operations without an order of their sums on a GPU: what `torch.use_deterministic_algorithms` lists as errors."""


class Unordered(TorchDispatchMode):
    """Notes the operations that have no order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").lstrip("_")
        if any(name.startswith(one) for one in NO_ORDER) and not name.startswith("index_put"):
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


def target_of(model: Model, layer: str) -> Any:
    images = torch.randint(0, 256, (4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return measure(model, Attribution(layer), [1, 5], [Crop(one, (row % 2,)) for row, one in enumerate(images)], NODES)


CASES = [(LAYER, "vital"), (CLASSES, "vital"), (LAYER, "fourier"), (CLASSES, "deepinversion")]


@pytest.mark.parametrize(("layer", "method"), CASES)
def test_every_operation_of_a_repeatable_run_has_an_order(tiny: Callable[..., Model], layer: str, method: str) -> None:
    model = tiny()
    with repeatable(), Unordered() as unordered:
        optimise(model, target_of(model, layer), PictureSettings(method=method, steps=2, side=SIDE))
    assert unordered.seen == set()


def test_what_has_no_order_is_noticed(tiny: Callable[..., Model]) -> None:
    model = tiny()
    with Unordered() as unordered:
        optimise(model, target_of(model, CLASSES), PictureSettings(steps=2, side=SIDE))
    assert unordered.seen == {"grid_sampler_2d_backward"}


def test_a_repeatable_warp_is_the_same_warp() -> None:
    """Windows that reach far beyond the edge, too: there it is mirrored, twice if need be."""
    maps = np.concatenate(
        [
            random_warps(np.random.default_rng(0), 6, 180, 0.5, (0.2, 1)),
            3.7 * random_warps(np.random.default_rng(1), 3, 45, 0.5, (1, 1)),
        ]
    )
    kept = []
    for asked in (False, True):
        pictures = torch.randn(9, 3, 20, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        with repeatable(asked):
            warped = warp(pictures.requires_grad_(), torch.from_numpy(maps))
            (gradient,) = torch.autograd.grad(warped.square().sum(), pictures)
        kept.append((warped.detach().numpy(), gradient.numpy()))
    for usual, ordered in zip(*kept, strict=True):
        np.testing.assert_allclose(ordered, usual, atol=1e-9)


@pytest.mark.parametrize("layer", [LAYER, CLASSES])
def test_a_repeatable_run_makes_the_same_picture(tiny: Callable[..., Model], layer: str) -> None:
    model = tiny()
    target, settings = target_of(model, layer), PictureSettings(steps=6, side=SIDE)
    usual = optimise(model, target, settings)
    with repeatable():
        runs = [optimise(model, target, settings) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].pixels, runs[1].pixels)
    np.testing.assert_allclose(runs[0].loss, usual.loss, rtol=1e-3)
