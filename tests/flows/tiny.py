"""A network and shards small enough that every flow can be run for real in a second."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import resource
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from vital.network.sources import torchvision_models

SIDE = 32
CHANNELS, CLASSES = 40, 5


class Gated(nn.Conv2d):
    """A convolution at which a run can be held, where the environment says so."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As the convolution. Once there is a file TINY_GATE_AFTER, it waits until the named pipe TINY_GATE is opened
        by somebody else (`tests.flows.processes.Gate`)."""
        gate, after = os.environ.get("TINY_GATE"), os.environ.get("TINY_GATE_AFTER")
        if gate and after and Path(after).exists():
            with contextlib.suppress(FileNotFoundError):  # it was opened before
                Path(gate).read_bytes()
        made: torch.Tensor = super().forward(images)
        return made


def network() -> nn.Module:
    """Three convolutions and a classifier, the same weights every time; 40 channels make two blocks."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Sequential(Gated(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Conv2d(12, CHANNELS, 3, padding=1), nn.ReLU(inplace=True)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(CHANNELS, CLASSES),
        )


class Deaf(nn.Conv2d):
    """A convolution that, once there is a file TINY_GATE_AFTER, never returns, and lets Python see no signal."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As the convolution, as long as it returns."""
        after = os.environ.get("TINY_GATE_AFTER")
        if after and Path(after).exists():
            library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
            while library.pthread_mutex_lock(mutex) == 0:  # the second time it waits, in C, for what never comes
                pass
        made: torch.Tensor = super().forward(images)
        return made


def deaf_network() -> nn.Module:
    """The weights of `network`, in a network that cannot be interrupted."""
    made = network()
    made[0][0].__class__ = Deaf  # type: ignore[index]
    return made


def other_network() -> nn.Module:
    """The same architecture with other weights."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        made = network()
        nn.init.normal_(made[0][0].weight)  # type: ignore[index]
        return made


def ten_classes() -> nn.Module:
    """A network that tells more classes apart."""
    return nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 10))


def two_layers() -> nn.Module:
    """Two convolutions and a classifier, the same weights every time: a store of it has few arrays."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.Conv2d(8, CHANNELS, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(CHANNELS, CLASSES),
        )


def thousand_classes() -> nn.Module:
    """A small network with as many classes as ImageNet."""
    return nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 1000))


def dead_network() -> nn.Module:
    """The same with three channels of its last convolution that are zero on every image."""
    made = network()
    last = made[2][0]  # type: ignore[index]
    with torch.no_grad():
        last.weight[3:6] = 0
        last.bias[3:6] = -1
    return made


def overflowing_network() -> nn.Module:
    """The same with a channel of its last convolution whose square is no single-precision number, and one that is
    infinite itself."""
    made = network()
    last = made[2][0]  # type: ignore[index]
    with torch.no_grad():
        last.bias[4] = 1e25
        last.bias[7] = torch.inf
    return made


BROKEN = "[red]%2F=2F\n\t\x1b[31m\u202e"
"""A name that breaks lines, commands a terminal, and turns the direction of what follows."""
HOSTILE = ("classes", "input", "own", "/features/2/Conv", "model/conv:1", "a b~c@d", "count", "слой", BROKEN)
"""Names that modules can have, one beside the other, of which each means something else somewhere."""


class Chain(nn.Module):
    """Convolutions called by hostile names, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        for number, name in enumerate(HOSTILE):
            self.add_module(name, nn.Conv2d(8 if number else 3, 8, 3, stride=2 if number < 2 else 1, padding=1))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        for name in HOSTILE:
            images = self._modules[name](images).relu()  # type: ignore[misc]
        made: torch.Tensor = self.fc(images.mean((2, 3)))
        return made


def hostile() -> nn.Module:
    """A network whose modules have hostile names, the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Chain()


class Hungry(nn.Conv2d):
    """A convolution that takes as many bytes for each image as the environment says, where it says so."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """As the convolution; TINY_HUNGER are bytes for each image, TINY_ROOM the bytes that the process may add."""
        hunger, room = (int(os.environ.get(name, "0")) for name in ("TINY_HUNGER", "TINY_ROOM"))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        try:
            if room:
                resource.setrlimit(resource.RLIMIT_AS, (used + room, before[1]))
            taken = torch.ones(len(images), hunger, dtype=torch.uint8)
        finally:  # a process that may not even start a thread would be another fault
            resource.setrlimit(resource.RLIMIT_AS, before)
        if os.environ.get("TINY_HOLD"):
            threading.Event().wait()  # until it is killed
        del taken
        made: torch.Tensor = super().forward(images)
        return made


def hungry_network() -> nn.Module:
    """The same network as the first, whose first convolution can run out of memory."""
    made = network()
    first = Hungry(3, 8, 3, stride=2, padding=1)
    first.load_state_dict(made[0][0].state_dict())  # type: ignore[index]
    made[0][0] = first  # type: ignore[index]
    return made


def maps_alone() -> nn.Module:
    """A network without a classifier: it gives a map."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 4, 3, stride=2, padding=1))


def fixed_network() -> nn.Module:
    """A network whose classifier takes one size of map only, hence one size of input."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, CHANNELS, 3, stride=2, padding=1), nn.ReLU()),
            nn.Flatten(),
            nn.Linear(CHANNELS * (SIDE // 4) ** 2, CLASSES),
        )


def transformer() -> nn.Module:
    """torchvision's vision transformer, small: patches of 8 in images of 32, the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        made: nn.Module = torchvision_models().VisionTransformer(SIDE, 8, 3, 2, 40, 32, num_classes=CLASSES)
        return made


def jpeg(seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """A smooth random photograph."""
    stream = np.random.default_rng(seed)
    coarse = Image.fromarray(stream.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar of these files, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def shards(folder: Path, count: int = 2, images: int = 10) -> list[Path]:
    """Shards of labelled images; every fifth image has no label."""
    made = []
    for shard in range(count):
        members: dict[str, bytes] = {}
        for row in range(images):
            number = shard * images + row
            members[f"image{number:04d}.jpg"] = jpeg(number)
            if row % 5:
                members[f"image{number:04d}.cls"] = str(number % 3).encode()
        made.append(write_tar(folder / f"tiny-{shard:06d}.tar", members))
    return made


def even_network() -> nn.Sequential:
    """Three blocks with maps of the same size and as many channels."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        blocks = [nn.Sequential(nn.Conv2d(*size, 3, padding=1), nn.ReLU()) for size in ((3, 8), (8, 8), (8, 8))]
        return nn.Sequential(nn.AvgPool2d(4), *blocks, nn.Flatten(), nn.Linear(512, CLASSES))
