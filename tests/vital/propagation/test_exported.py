"""Relevance through a program of torch.export, whose modules were put back: as through the module it was made from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.reference.networks import randomise
from vital.network.layers import survey
from vital.network.models import Model
from vital.network.preprocessing import Preprocessing
from vital.network.probe import probe
from vital.propagation.mode import Relevance

NODES = ["body.0", "body.3"]


def network() -> nn.Module:
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6),
        nn.GELU(),
    )  # fmt: skip

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, nn.Linear(6, 5)

        def forward(self, images: Tensor) -> Tensor:
            maps = self.body(images)
            result: Tensor = self.head((maps + maps.sigmoid() * maps).mean((2, 3)))
            return result

    return randomise(Whole(), 1).eval()


def relevance(module: nn.Module, images: Tensor) -> list[Tensor]:
    mode = Relevance()
    with probe(module, [*NODES, "head"], None, mode) as run:
        activations = run(images.clone().requires_grad_())
    output = activations["head"]
    return mode.backward(output, output.detach(), [activations[node] for node in NODES])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_an_exported_program_hands_on_the_relevance_of_its_module() -> None:
    plain, images = network(), torch.randn(2, 3, 16, 16)
    program = torch.export.export(plain, (images,), dynamic_shapes=({0: torch.export.Dim("images")},))
    again = torch.export.unflatten(program)
    layers = survey(Model("again", again, Preprocessing(16, (0.5,) * 3, (0.25,) * 3)))
    assert layers.layers["body.3"].sites == 64
    for found, expected in zip(relevance(again, images), relevance(plain, images), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
