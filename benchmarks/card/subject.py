"""What the parts of `benchmarks/gpu.py` work on: a network of ResNet-50's shape, made images, and targets of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from benchmarks.card.network import ResNet
from vital.measuring.targets import Attribution, Crop, Target, measure
from vital.network.layers import Survey, survey
from vital.network.models import Model, wrap
from vital.network.nodes import default_nodes
from vital.network.probe import INPUT
from vital.settings import PictureSettings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Subject:
    """The network on its device; all made from one seed."""

    def __init__(self, tiny: bool, device: torch.device) -> None:
        self.tiny, self.device, self.side = tiny, device, 32 if tiny else 224
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = ResNet(4, (1, 1, 1, 1), 10) if tiny else ResNet()
        self.model: Model = wrap(network, side=self.side, mean=MEAN, std=STD, name="resnet50")
        self.survey: Survey = survey(self.model)
        self.model.network.to(device)
        self.layer = "layer4.0" if tiny else "layer4.2"
        self._measured: dict[str, Target] = {}

    def images(self, count: int) -> Tensor:
        """Smooth noise as bytes (image, 3, side, side), on the host."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            coarse = torch.rand(count, 3, max(self.side // 8, 2), max(self.side // 8, 2))
        fine = torch.nn.functional.interpolate(coarse, (self.side, self.side), mode="bicubic").clamp(0, 1)
        return (255 * fine).round().to(torch.uint8)

    def nodes(self, layer: str) -> tuple[str, ...]:
        """The input and the layers that are matched by default."""
        return (INPUT, *default_nodes(self.survey, layer, self.model.name))

    def target(self, layer: str, count: int) -> Target:
        """Targets of the layer's first ``count`` neurons; those of the first four are measured, the others the same."""
        if layer not in self._measured:
            crops = [Crop(image, (row % 4,)) for row, image in enumerate(self.images(8))]
            self._measured[layer] = measure(
                self.model, Attribution.of(self.survey, layer), range(4), crops, self.nodes(layer)
            )
        known = self._measured[layer]
        rows = np.arange(count) % len(known)
        nodes = {
            name: replace(
                node,
                quantiles=node.quantiles[rows],
                relevant=None if node.relevant is None else node.relevant[rows],
                importance=None if node.importance is None else node.importance[rows],
            )
            for name, node in known.nodes.items()
        }
        numbers = np.arange(count) % self.survey.layer(layer).channels
        return replace(known, neurons=numbers, nodes=nodes, own=known.own[rows], count=known.count[rows])

    def settings(self, steps: int, **changes: object) -> PictureSettings:
        """A run of so many steps."""
        return PictureSettings.model_validate({"steps": steps, "side": self.side, **changes})


@cache
def subject(tiny: bool, device: torch.device) -> Subject:
    """Made once for each device."""
    return Subject(tiny, device)
