"""Targets against the network alone, and on a service that takes its time: `python benchmarks/targets.py --json`.

``of_network`` is how many references a second a task measures over those of the network's own passes, forward and back,
on the same crops in memory. ``service_over_disk`` is the time of the same tasks, whose shards lie at a service that
answers after ``--latency`` seconds, over that on a disk. ``shard_requests`` and ``image_requests`` are what the service
was asked for, by a run of all tasks; ``wasted`` is the share of what was read that is no image.

``write_seconds`` is how long the blocks' writes take where the store, too, answers late, and ``hidden`` the share of
it, the last block's aside, in which the task measures the next block. ``picture_write_seconds`` and
``pictures_hidden`` are the same of blocks of pictures, of ten steps each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest import mock

sys.path[0] = str(Path(__file__).parents[1])

import fsspec
import torch
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from upath import UPath
from upath.registry import register_implementation

import flows
from benchmarks.counted import Counted
from flows.jobs import AtlasJob, Running, TargetsJob
from flows.recipes.atlas import picture
from flows.recipes.targets import measure
from flows.running.process import load_stored
from flows.steps.images import StoredImages, reference_crops
from flows.steps.pictures import declare_pictures, targets_of
from flows.steps.targets import declare_targets, images_learnt, measured_blocks, moved_of_tasks, planned_nodes
from stores import AtlasLayer, Statistics, Targets, open_statistics
from stores.arrays.blocks import Blocks, BlocksAt
from stores.arrays.leases import Holder
from tests.flows import tiny
from vital.measuring.targets import node_relevance
from vital.network.neurons import Readout
from vital.network.probe import probe
from vital.propagation.mode import relevance_mode
from vital.settings import ModelSettings, PictureSettings

LAYER, TASKS, TOGETHER = "layer4", ((0,), (1,)), 8


class LateStore(Counted):
    """The local disk as a service that takes its time to write."""

    protocol = "slow"
    latency = 0.0

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return LocalFileSystem._strip_protocol(path.removeprefix("slow://"))

    def pipe_file(self, *arguments: Any, **options: Any) -> Any:
        """Late."""
        time.sleep(self.latency)
        return super().pipe_file(*arguments, **options)


class Service(AsyncFileSystem):  # type: ignore[misc]
    """Files of this machine as a service would give them, late."""

    protocol = "late"
    latency = 0.0
    infos = ranges = read = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("late://").strip("/")

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        Service.infos += 1
        await asyncio.sleep(self.latency)
        return {"name": path, "size": Path(path).stat().st_size, "type": "file"}

    async def _cat_file(self, path: str, start: int, end: int, **options: Any) -> bytes:
        Service.ranges += 1
        await asyncio.sleep(self.latency)
        data = Path(path).read_bytes()[start:end]
        Service.read += len(data)
        return data


def run(store: Path, shards: str) -> float:
    """Seconds of all tasks of a layer whose shards are there."""
    statistics = open_statistics(str(store), "r+")
    job = TargetsJob(store=str(store), layer=LAYER, shards=(shards,), running=Running(threads=torch.get_num_threads()))
    targets = declare_targets(statistics, job, load_stored(statistics, job.running))
    targets.forget([block for blocks in TASKS for block in blocks])
    begun = time.perf_counter()
    references = statistics.references(LAYER)
    live = references.live()
    moved = moved_of_tasks(statistics, job.shards, references, live, TASKS, lambda: images_learnt(statistics, targets))
    for blocks in TASKS:
        measured_blocks(job, blocks, moved[blocks])()
    return time.perf_counter() - begun


def late_targets(store: Path, blocks: int) -> tuple[float, float]:
    """What is `hidden` of so many blocks of targets, given to a task together, in a store that is late."""
    url = f"slow://{store}"
    job = TargetsJob(store=url, layer=LAYER, running=Running(threads=torch.get_num_threads()))
    statistics = open_statistics(url, "r+")
    targets = declare_targets(statistics, job, load_stored(statistics, job.running))
    targets.forget(range(blocks))
    groups = [{"blocks": (block,), "urls": {}} for block in range(blocks)]
    at = BlocksAt(url, "statistics", targets.path)
    return hidden(Targets, "flows.recipes.targets.measured_blocks", lambda: measure.fn(job, at, groups, Holder.new()))


def late_pictures(store: Path, blocks: int, side: int) -> tuple[float, float]:
    """The same of pictures, ten steps each, of the targets that are there."""
    url = f"slow://{store.parent / 'atlas.zarr'}"
    job = AtlasJob(
        store=str(store),
        layer=LAYER,
        out=url,
        picture=PictureSettings(steps=10, side=side),
        batch=32,
        running=Running(threads=torch.get_num_threads()),
    )
    statistics = open_statistics(str(store))
    loaded = load_stored(statistics, job.running)
    layer = declare_pictures(job, statistics, targets_of(statistics, job, loaded), loaded)
    groups = [{"blocks": (block,)} for block in range(blocks)]
    at = BlocksAt(url, "atlas", layer.path)
    return hidden(AtlasLayer, "flows.recipes.atlas.made_blocks", lambda: picture.fn(job, at, groups, Holder.new()))


def hidden(written: type[Blocks], made: str, task: Callable[[], object]) -> tuple[float, float]:
    """Seconds of writing in a task, and the share of it, the last block's aside, in which other blocks are made."""
    writing, making = list[tuple[float, float]](), list[tuple[float, float]]()

    def timed(work: Callable[..., Any], spans: list[tuple[float, float]]) -> Callable[..., Any]:
        def timing(*given: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            found = work(*given, **named)
            spans.append((begun, time.perf_counter()))
            return found

        return timing

    with (
        mock.patch.object(written, "write", timed(written.write, writing)),
        mock.patch(made, timed(resolve_name(made), making)),
    ):
        task()
    behind = sum(max(0.0, min(ends) - max(begins)) for begins, ends in map(_both, product(writing[:-1], making)))
    return sum(end - begun for begun, end in writing), behind / sum(end - begun for begun, end in writing[:-1])


def _both(spans: tuple[tuple[float, float], tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The beginnings and the ends of two spans of time."""
    (begun, end), (other_begun, other_end) = spans
    return (begun, other_begun), (end, other_end)


def bare(statistics: Statistics, store: Path) -> float:
    """Seconds of the network's own passes on the references of all tasks."""
    job = TargetsJob(store=str(store), layer=LAYER, running=Running(threads=torch.get_num_threads()))
    loaded = load_stored(statistics, job.running)
    nodes, mode = planned_nodes(statistics, job, loaded), relevance_mode("lrp")
    seconds, prepared = 0.0, loaded.model.preprocessing
    for (block,) in TASKS:
        neurons = range(32 * block, 32 * block + 32)
        references, places = (
            statistics.references(LAYER, None, neurons), statistics.reference_places(LAYER, neurons)
        )  # fmt: skip
        crops = list(reference_crops(StoredImages(statistics, prepared, {}), references, places, whole=False))
        begun = time.perf_counter()
        with probe(loaded.model.network, [*nodes, LAYER], loaded.survey.layouts(), mode) as forward:
            for start in range(0, len(crops), TOGETHER):
                part = crops[start : start + TOGETHER]
                images = prepared.normalise(torch.stack([pixels for pixels, _ in part]))
                activations = forward(images.requires_grad_())
                for turn in range(max(len(rows) for _, rows in part)):
                    asked = torch.tensor([neurons[rows[min(turn, len(rows) - 1)]] for _, rows in part])
                    node_relevance(mode, activations, Readout(LAYER), nodes, asked, "lrp")
        seconds += time.perf_counter() - begun
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--images", type=int, default=16, help="images of a shard")
    parser.add_argument("--side", type=int, default=64, help="side of the network's input")
    parser.add_argument("--latency", type=float, default=0.03)
    asked = parser.parse_args()
    Service.latency = asked.latency
    fsspec.register_implementation("late", Service)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the service is made here, and no package knows it
        folder, store = Path(place) / "shards", Path(place) / "stats.zarr"
        for shard in range(asked.shards):
            rows = range(shard * asked.images, (shard + 1) * asked.images)
            tiny.write_tar(folder / f"{shard:06d}.tar", {f"{row:08d}.jpg": tiny.jpeg(row, (500, 375)) for row in rows})
        model = ModelSettings(name="resnet18", weights="random", input_size=asked.side)
        statistics = flows.references(str(folder), store, model=model, layers=[LAYER], references=16, levels=64)
        references = statistics.references(LAYER).image[:64]
        count = int((references >= 0).sum())
        disk = run(store, str(folder))
        network = bare(statistics, store)
        late = run(store, f"late://{folder}/{{000000..{asked.shards - 1:06d}}}.tar")
        blocks = [references[start : start + 32].ravel().tolist() for start in (0, 32)]
        needed = sum(float(statistics.places(images).size.sum()) for images in blocks)
        figures = {
            "references": count,
            "references_per_second": count / disk,
            "of_network": network / disk,
            "service_over_disk": late / disk,
            "shard_requests": Service.infos,
            "image_requests": Service.ranges,
            "wasted": 1 - needed / Service.read,
        }
        fsspec.register_implementation("slow", LateStore)
        register_implementation("slow", UPath)
        LateStore.latency = asked.latency
        figures |= dict(zip(("write_seconds", "hidden"), late_targets(store, 6), strict=True))
        of_pictures = late_pictures(store, 6, asked.side)
        figures |= dict(zip(("picture_write_seconds", "pictures_hidden"), of_pictures, strict=True))
    if asked.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>22} {value:.3g}")


if __name__ == "__main__":
    main()
