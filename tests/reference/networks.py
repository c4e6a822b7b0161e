"""Small networks with random weights, and the literal relevance of one of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.reference import formulas

SIDE = 32


class Tiny(nn.Sequential):
    """conv-bn-relu × 3, pool, fc: ten classes at 32 pixels."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in ((3, 6), (6, 8), (8, 12)):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
            layers.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))


class Residual(nn.Module):
    """A stem with a max-pool, and a block with a downsampling skip: what a ResNet has, four channels wide."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.conv2, self.bn2 = nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv3, self.bn3 = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.down = nn.Sequential(nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6))
        self.out = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn1(self.conv1(images))))
        main = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        main += self.down(x)
        result: Tensor = self.out(main)
        return result


@dataclass
class LiteralRelevance:
    """Relevance of one channel of a `Residual`'s output for one image, and the activations of its nodes."""

    activations: dict[str, np.ndarray]
    relevance: dict[str, np.ndarray]


def literal_relevance(network: Residual, image: Tensor, channel: int, restricted: bool = False) -> LiteralRelevance:
    """The rules of METHOD.md written out for this one network: forward by torch, backward by loops. It begins with the
    channel's own map, or with a one at the single site that is most aligned with the channel."""
    with torch.no_grad():
        conv1 = network.conv1(image[None])
        stem = F.relu(network.bn1(conv1))
        pooled = F.max_pool2d(stem, 3, 2, 1)
        middle = F.relu(network.bn2(network.conv2(pooled)))
        main, skip = network.bn3(network.conv3(middle)), network.down(pooled)
        out = F.relu(main + skip)

    def array(tensor: Tensor) -> np.ndarray:
        values: np.ndarray = tensor.detach().double().numpy()
        return values[0] if values.shape[0] == 1 else values

    start = np.zeros_like(array(out))
    if restricted:
        start[channel].flat[formulas.restricted_site(array(out).reshape(len(start), -1), channel)] = 1
    else:
        start[channel] = array(out)[channel]
    to_main, to_skip = formulas.split_sum(start, array(main), array(skip))
    at_middle = formulas.convolution(to_main, array(middle), network.conv3.weight.double().numpy(), padding=1)
    at_pool = formulas.convolution(at_middle, array(pooled), network.conv2.weight.double().numpy(), 2, 1)
    projection = network.down[0].weight
    assert isinstance(projection, Tensor)
    at_pool = at_pool + formulas.convolution(to_skip, array(pooled), projection.double().numpy(), 2)
    at_stem = formulas.max_pool(at_pool, array(stem))
    return LiteralRelevance(
        {"conv1": array(conv1), "pool": array(pooled), "out": array(out)},
        {"conv1": at_stem, "pool": at_pool},  # norm and ReLU hand on what they get
    )


DRAWING = (
    "uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"
)  # fmt: skip
"""How PyTorch's layers draw their weights, in `torch.nn.init`."""


@contextmanager
def uninitialised() -> Iterator[None]:
    """Networks that are built while the block lasts have whatever lay in memory for weights: for who gives them others,
    or looks at their shapes alone. To draw a hundred million numbers takes longer than most tests of them."""
    as_it_is: dict[str, Any] = {name: lambda tensor, *_, **__: tensor for name in DRAWING}
    with patch.multiple(nn.init, **as_it_is):
        yield


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Weights, and statistics of norms that are not the identity, from one seed; frozen, in evaluation mode."""
    stream = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=stream)
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            noise = 1 + 0.3 * noise.abs()
        elif tensor.dim() == 1:
            noise = 0.2 * noise
        else:
            noise = noise * (2 / tensor[0].numel()) ** 0.5
        tensor.copy_(noise)
    return network.requires_grad_(False).eval()
