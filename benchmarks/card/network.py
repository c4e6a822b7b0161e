"""A network of the shape of ResNet-50 with random weights, written out: no package and no file is needed for it."""

from __future__ import annotations

from torch import Tensor, nn

STAGES = (3, 4, 6, 3)
"""Blocks of each stage (He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, table 1)."""
SHRUNK = 0.25
"""Weight of a block's last norm: with random weights the blocks would else add up to more than bfloat16 tells apart."""


class Block(nn.Module):
    """Three convolutions and the way around them."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        nn.init.constant_(self.bn3.weight, SHRUNK)
        around = [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)]
        self.downsample = nn.Sequential(*around) if stride != 1 or before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """Of any even side."""
        around = x if self.downsample is None else self.downsample(x)
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(inner)))))
        result: Tensor = self.relu(inner + around)
        return result


class ResNet(nn.Sequential):
    """Four stages under the names that torchvision gives them."""

    def __init__(self, width: int = 64, stages: tuple[int, ...] = STAGES, classes: int = 1000) -> None:
        parts: dict[str, nn.Module] = {
            "conv1": nn.Conv2d(3, width, 7, 2, 3, bias=False), "bn1": nn.BatchNorm2d(width),
            "relu": nn.ReLU(inplace=True), "maxpool": nn.MaxPool2d(3, 2, 1),
        }  # fmt: skip
        before = width
        for number, blocks in enumerate(stages):
            inner, stride = width * 2**number, 1 if number == 0 else 2
            stage = [Block(before, inner, stride), *(Block(4 * inner, inner, 1) for _ in range(blocks - 1))]
            parts[f"layer{number + 1}"], before = nn.Sequential(*stage), 4 * inner
        parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(before, classes)}
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
