"""Modules whose weights other modules make (weight_norm, spectral_norm, …) are layers as they are without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from vital.network.layers import survey
from vital.network.models import wrap
from vital.network.probe import CLASSES

NAMES = ["0", "2", "4", "7"]


def network() -> nn.Sequential:
    """Two classes: a weight of two rows could be taken for the activation of two images."""
    torch.manual_seed(0)
    maps = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)]
    return nn.Sequential(*maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    "how", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
@pytest.mark.parametrize("which", [["7"], ["2"], NAMES], ids=["the last", "one", "all"])
def test_parametrised_modules_are_layers_and_what_makes_their_weights_is_none(
    how: Callable[[nn.Module], nn.Module], which: list[str]
) -> None:
    plain = survey(wrap(network(), side=32, mean=(0.5,) * 3, std=(0.2,) * 3))
    changed = network()
    for name in which:
        how(changed.get_submodule(name))
    model = wrap(changed, side=32, mean=(0.5,) * 3, std=(0.2,) * 3)
    found = survey(model)
    assert list(found.layers) == list(plain.layers)
    assert [name for name, layer in found.layers.items() if layer.block] == [
        name for name, layer in plain.layers.items() if layer.block
    ]
    assert list(found.left_out) == list(plain.left_out)
    assert parametrize.is_parametrized(model.network.get_submodule(which[0]))
    assert found.layers[CLASSES].channels == 2
