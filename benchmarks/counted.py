"""What a task asks of its storage, counted through a file system that counts: see benchmarks/scale.py."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import fsspec
import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from torch import nn
from upath import UPath
from upath.registry import register_implementation

from flows.jobs import BLOCK, AtlasJob, ReferencesJob, Running, TargetsJob
from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.running import process
from flows.running.cluster import Calls
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings


class Counted(LocalFileSystem):  # type: ignore[misc]
    """The local disk as an object store whose requests are counted, at ``counted:///PATH``."""

    protocol = "counted"
    seen: ClassVar[Counter[str]] = Counter()
    files: ClassVar[Counter[str]] = Counter()
    """How often each was read."""
    latency: ClassVar[float] = 0.0
    """Seconds that each request takes at least."""
    spans: ClassVar[list[tuple[float, float]]] = []
    """When each began and ended."""
    _within: ClassVar = threading.local()
    """Whether this thread is listing a folder, for which a disk is asked more than a service."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "auto_mkdir": True})

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.removeprefix("counted://"))

    @classmethod
    def forget(cls) -> None:
        """Count from here."""
        cls.seen.clear()
        cls.files.clear()
        cls.spans.clear()

    @contextmanager
    def _asked(self, kind: str) -> Iterator[None]:
        Counted.seen[kind] += 1
        begun = time.perf_counter()
        time.sleep(Counted.latency)
        try:
            yield
        finally:
            Counted.spans.append((begun, time.perf_counter()))

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Of a whole file or a range."""
        Counted.files[path] += 1
        with self._asked("reads"):
            return super().cat_file(path, *arguments, **options)

    def pipe_file(self, *arguments: Any, **options: Any) -> Any:
        """Of a whole file."""
        with self._asked("writes"):
            return super().pipe_file(*arguments, **options)

    def info(self, *arguments: Any, **options: Any) -> Any:
        """Whether and what something is."""
        with nullcontext() if getattr(Counted._within, "list", False) else self._asked("looks"):
            return super().info(*arguments, **options)

    def ls(self, *arguments: Any, **options: Any) -> Any:
        """Of a folder."""
        Counted._within.list = True
        try:
            with self._asked("lists"):
                return super().ls(*arguments, **options)
        finally:
            Counted._within.list = False

    def rm_file(self, *arguments: Any, **options: Any) -> Any:
        """Of one file."""
        with self._asked("removals"):
            return super().rm_file(*arguments, **options)


def waited(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds in which at least one request was under way."""
    seconds, until = 0.0, 0.0
    for begun, ended in sorted(spans):
        seconds += max(0.0, ended - max(begun, until))
        until = max(until, ended)
    return seconds


def count_requests() -> None:
    """Have ``counted:///PATH`` known."""
    fsspec.register_implementation("counted", Counted, clobber=True)
    register_implementation("counted", UPath, clobber=True)


WIDTH = "SCALE_NEURONS"
PASS = "pass"
"""Names the requests of a whole pass among those of tasks."""


def network() -> nn.Module:
    """A small network whose layer ``1`` has as many channels as the environment says."""
    torch.manual_seed(0)
    neurons = int(os.environ[WIDTH])
    first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=16, padding=1), nn.ReLU())
    return nn.Sequential(first, nn.Conv2d(4, neurons, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(neurons, 2))


def write_shard(folder: Path, images: int = 12, name: str = "images", seed: int = 0) -> str:
    """A shard of random images."""
    stream = np.random.default_rng(seed)
    with tarfile.open(folder / f"{name}.tar", "w") as tar:
        for number in range(images):
            buffer = io.BytesIO()
            Image.fromarray(stream.integers(0, 256, (40, 40, 3), np.uint8)).save(buffer, "PNG")
            member = tarfile.TarInfo(f"{seed}{number:03d}.png")
            member.size = buffer.tell()
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
    return str(folder / f"{name}.tar")


def write_features(folder: Path, features: int, channels: int) -> str:
    """A dictionary of random features that are zero at most sites."""
    weight = np.random.default_rng(0).standard_normal((features, channels), np.float32)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    file = folder / "many.npz"
    np.savez(file, weight=weight, bias=np.full(features, -0.2, np.float32))
    return str(file)


def requests(folder: Path, neurons: int, channels: int | None = None) -> dict[str, dict[str, int]]:
    """Requests to the stores of a task of targets and of a task of pictures, each of the second block of a layer with
    so many neurons, and of a whole pass over one shard before: by what makes them and kind. With ``channels`` the
    neurons are features of a layer with so many, and the process has read their dictionary before."""
    count_requests()
    os.environ[WIDTH] = str(channels or neurons)
    process._load.cache_clear()  # another network under this name
    shards, store, layer = write_shard(folder), folder / "store.zarr", "1~many" if channels else "1"
    dictionaries = (write_features(folder, neurons, channels),) if channels else ()
    model = ModelSettings(name="benchmarks.counted:network", input_size=32)
    Counted.forget()
    select_references(
        ReferencesJob(
            shards=(shards,), store=f"counted://{store}", model=model, layers=(layer,), nodes=("0",),
            dictionaries=dictionaries, statistics=StatisticsSettings(references=4, levels=8),
        )
    )  # fmt: skip
    seen = {PASS: dict(Counted.seen)}

    def counting(running: Running, work: Any, calls: Calls) -> None:
        for parameters, _ in calls:
            Counted.forget()
            work.fn(**parameters)
            seen[work.name] = dict(Counted.seen)

    at: dict[str, Any] = {"store": f"counted://{store}", "layer": layer, "neurons": f"{BLOCK}:{2 * BLOCK}"}
    at["running"] = Running(lease=1e6)  # how often a shorter one is renewed depends on the machine
    variant = VariantSettings(nodes=("0",))
    with mock.patch("flows.running.blocks.run_tasks", counting):
        measure_targets(TargetsJob(**at, variant=variant))
        picture = PictureSettings(side=32, steps=1)
        build_atlas(
            AtlasJob(**at, variant=variant, out=f"counted://{folder / 'atlas.zarr'}", picture=picture, batch=BLOCK)
        )
    return seen
