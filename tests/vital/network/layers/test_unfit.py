"""Networks of which no pictures can be made: each is refused before a pass, with its own cause."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.vital.network.layers.test_kinds import SIDE, Base, made
from vital.errors import FailedForward, UnsuitableInput, VitalError
from vital.network.layers import survey


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that such modules are new
        return nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten())


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this way of quantising is old
        made: nn.Module = torch.ao.quantization.quantize_dynamic(Base().eval(), {nn.Linear})
        return made


def exported() -> nn.Module:
    made: nn.Module = torch.export.export(Base().eval(), (torch.zeros(2, 3, SIDE, SIDE),)).module()
    return made


class Single(Base):
    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.fc(self.features(images).mean((2, 3)).reshape(8))[None]
        return made


def spectral() -> nn.Module:
    network = Base()
    network.conv1 = nn.Conv2d(5, 8, 3)
    return network


def empty() -> nn.Module:
    with torch.device("meta"):
        return Base()


def sparse() -> nn.Module:
    network = Base()
    network.fc.weight = nn.Parameter(network.fc.weight.detach().to_sparse())
    return network


class Leaves(Base):
    def forward(self, images: Tensor) -> Any:
        raise SystemExit("no licence")


class Wrong(Base):
    def forward(self, images: Tensor) -> Any:
        raise KeyError("temperature")


@pytest.mark.parametrize(
    ("network", "kind", "told"),
    [
        (lazy, UnsuitableInput, "has lazy modules, whose weights are made by the first image: run it once"),
        (quantised, UnsuitableInput, r"is quantised \(its module 'fc' is a .*Linear\)"),
        (exported, UnsuitableInput, "is an exported program, .*unflatten"),
        (empty, UnsuitableInput, r"has no numbers yet \('conv1.weight' is on the meta device\)"),
        (sparse, UnsuitableInput, r"keeps 'fc.weight' as sparse_coo.*to_dense"),
        (Single, UnsuitableInput, r"Single takes one image at a time, and fails on two \(RuntimeError: shape '\[8\]'"),
        (spectral, UnsuitableInput, r"^mean = .* is not 5 numbers, one of each channel"),
        (Leaves, FailedForward, r"own forward.*\(SystemExit: no licence\)"),
        (Wrong, FailedForward, r"own forward.*\(KeyError: 'temperature'\)"),
    ],
)
def test_what_cannot_work_is_told_with_its_own_cause(
    network: Callable[[], nn.Module], kind: type[VitalError], told: str
) -> None:
    with pytest.raises(kind, match=told) as caught:
        survey(made(network()))
    assert "\n" not in str(caught.value)
    assert "cannot take images of" not in str(caught.value)
