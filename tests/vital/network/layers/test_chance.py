"""A network in which chance decides what it gives is noticed before a pass, with the layers that it concerns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.reference.networks import Tiny
from vital.errors import UnknownLayer
from vital.network.layers import survey
from vital.network.models import wrap
from vital.network.probe import CLASSES

Change = Callable[[Tensor], Tensor]


def dropout(maps: Tensor) -> Tensor:
    return F.dropout(maps, 0.1)  # training is True by default


def noise(maps: Tensor) -> Tensor:
    return maps + 0.1 * torch.randn_like(maps)


def old_noise(maps: Tensor) -> Tensor:
    return maps * float(np.random.uniform(0.5, 1.5))  # noqa: NPY002 -- as networks do


def depth(maps: Tensor) -> Tensor:
    """Stochastic depth that drops a block once in a billion images."""
    kept = torch.rand(len(maps), 1, 1, 1) > 1e-9
    return maps * kept


def seeded(maps: Tensor) -> Tensor:
    return maps + torch.randn(maps.shape, generator=torch.Generator().manual_seed(1))


def rounding(maps: Tensor) -> Tensor:
    return maps * (1 + 1e-5 * torch.rand(1))


OWN = torch.Generator().manual_seed(3)


def own_stream(maps: Tensor) -> Tensor:
    return maps + torch.randn(maps.shape, generator=OWN)


def batch_norm(maps: Tensor) -> Tensor:
    """As of a module that its forward puts into training mode."""
    return F.batch_norm(maps, None, None, training=True)


def centred(maps: Tensor) -> Tensor:
    return maps - maps.mean(0)


class Chancy(nn.Module):
    """Layers before and behind what chance changes."""

    def __init__(self, change: Change, side: int | None = None) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.change, self.side = change, side

    def forward(self, images: Tensor) -> Tensor:
        """Scores of five classes."""
        assert self.side in (None, images.shape[-1])
        scores: Tensor = self.second(self.change(self.first(images))).mean((2, 3))
        return scores


@pytest.mark.parametrize("change", [batch_norm, centred])
@pytest.mark.parametrize("side", [None, 64], ids=["any side", "one side"])
def test_a_network_that_looks_at_several_images_together_is_told(change: Change, side: int | None) -> None:
    found = survey(wrap(Chancy(change, side), side=64, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert list(found.layers) == ["first", "second", CLASSES]
    [note] = found.notes
    assert note.startswith("'second' of Chancy gives something else of an image when another is beside it")


@pytest.mark.parametrize("change", [dropout, noise, old_noise, own_stream])
@pytest.mark.parametrize("side", [None, 64], ids=["any side", "one side"])
def test_what_chance_decides_is_no_layer_and_what_comes_before_it_is(change: Change, side: int | None) -> None:
    found = survey(wrap(Chancy(change, side), side=64, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert list(found.layers) == ["first"]
    for name in ("second", CLASSES):
        with pytest.raises(UnknownLayer, match=rf"'{name}' gives something else each time .*F\.dropout\(x, p, self"):
            found.layer(name)
    assert not found.notes


class Counting(nn.Module):
    """Its scores grow with each run."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = Tiny()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the body, and one more."""
        self.count += 1
        scores: Tensor = self.body(images) + self.count
        return scores


def test_what_a_network_remembers_of_runs_before_is_noticed() -> None:
    found = survey(wrap(Counting(), side=64, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert "body.0" in found.layers
    with pytest.raises(UnknownLayer, match=r"'classes' gives something else each time .* or changes what it keeps"):
        found.layer(CLASSES)


@pytest.mark.parametrize("change", [depth, rounding])
def test_random_numbers_that_changed_nothing_are_said(change: Change) -> None:
    found = survey(wrap(Chancy(change), side=64, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert list(found.layers) == ["first", "second", CLASSES]
    assert found.notes == (
        "Chancy draws random numbers in its forward, and gave the same three times: see that they change nothing in "
        "evaluation",
    )


@pytest.mark.parametrize("network", [Chancy(seeded), Tiny(), Chancy(nn.Dropout(0.5))])
def test_what_gives_the_same_each_time_is_said_nothing_of(network: nn.Module) -> None:
    found = survey(wrap(network, side=64, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert CLASSES in found.layers
    assert not found.notes
