"""What a program has set for its own work changes no result: gradients off, an inference, other defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

import vital

PHOTOS = [np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8) for seed in range(2)]


@contextmanager
def double_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def wrapped() -> vital.Model:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(125, 6)]
    network = nn.Sequential(*layers).to(torch.float32)
    return vital.wrap(network, side=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def results(model: vital.Model) -> list[np.ndarray]:
    made = [vital.render(model, neuron, PHOTOS, steps=2).pixels.values for neuron in ("3:1", "classes:2")]
    return [vital.relevance(model, "3:1", PHOTOS, node="1").values, *made]


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "double": double_by_default,
    "elsewhere": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_results_are_the_same_whatever_the_caller_has_set(name: str) -> None:
    model = wrapped()
    expected = results(model)
    with SETTINGS[name]():
        found = results(wrapped() if name in ("no gradients", "inference") else model)  # others make other weights
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one, other)
