"""What no gradient leads to the images from is no layer, and it is said before a pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.reference.networks import Tiny
from vital.errors import UnknownLayer, UnsuitableInput
from vital.network.layers import survey
from vital.network.models import wrap
from vital.network.probe import CLASSES

Forward = Callable[["Around", Tensor], Tensor]


def without(context: Callable[[], torch.no_grad | torch.inference_mode]) -> Forward:
    def forward(network: Around, images: Tensor) -> Tensor:
        with context():
            return network.body(images)  # type: ignore[no-any-return]

    return forward


def through_numpy(network: Around, images: Tensor) -> Tensor:
    return network.body(torch.from_numpy(images.detach().numpy()))  # type: ignore[no-any-return]


def frozen_body(network: Around, images: Tensor) -> Tensor:
    with torch.no_grad():
        features = network.body(images)
    return network.head(features) + images.mean()  # type: ignore[no-any-return]


def argmax(network: Around, images: Tensor) -> Tensor:
    return network.body(images).argmax(1, keepdim=True)  # type: ignore[no-any-return]


class Around(nn.Module):
    """A network whose own forward is one of the above."""

    def __init__(self, how: Forward) -> None:
        super().__init__()
        self.how, self.body, self.head = how, Tiny(), nn.Linear(10, 10)

    def forward(self, images: Tensor) -> Tensor:
        """As it was told."""
        return self.how(self, images)


@pytest.mark.parametrize(
    "how", [without(torch.no_grad), without(torch.inference_mode), through_numpy], ids=["no_grad", "inference", "NumPy"]
)
def test_a_network_without_gradients_is_refused(how: Forward) -> None:
    with pytest.raises(UnsuitableInput, match=r"Around computes without gradients, which pictures follow: take torch"):
        survey(wrap(Around(how), side=32, mean=(0.5,) * 3, std=(0.5,) * 3))


@pytest.mark.parametrize(
    ("how", "lost", "told", "kept"),
    [
        (frozen_body, ["body.0", "body.5", "head"], "has no gradient that leads to the images", CLASSES),
        (argmax, [CLASSES], r"is not there: the network gives a tensor of shape \(2, 1\) of int64", "body.0"),
    ],
    ids=["a frozen part", "whole numbers"],
)
def test_a_part_without_gradients_is_no_layer_and_says_why(how: Forward, lost: list[str], told: str, kept: str) -> None:
    found = survey(wrap(Around(how), side=32, mean=(0.5,) * 3, std=(0.5,) * 3))
    for name in lost:
        with pytest.raises(UnknownLayer, match=rf"^'{name}' {told}"):
            found.layer(name)
    assert found.layer(kept)


def test_norms_over_the_images_of_a_batch_are_said() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    [note] = wrap(network, side=32, mean=(0.5,) * 3, std=(0.5,) * 3).notes
    assert "'1' of Sequential keeps no running statistics" in note
    assert wrap(Tiny(), side=32, mean=(0.5,) * 3, std=(0.5,) * 3).notes == ()
