"""What grows with a data set or a layer, in real runs over stand-in data: `python benchmarks/scale.py --json`.

No weights and no GPU are needed; it takes minutes on two cores and 5 GB of disk. ``--small`` is the same with little
data, in seconds: it shows that all of this runs, not what it costs.

- ``index_append_ms``: adding a shard of a thousand images to an index of ``index_images``, which takes
  ``index_bytes`` an image. ``index_rows_ms``: a task opens the store and reads where the references of its 32 neurons
  lie; ``index_rows_ms_short`` is the same where the index has a hundredth of the images.
- ``merge_seconds``: what ``merge_shards`` shards add (resnet50's nodes, 2,048 ranked channels), from one partial for
  each shard to the finished store, by one worker: tasks ``read`` shards and join what these add, tasks ``join`` 16 of
  their partials, and the last writes the ``store``. ``merge_core_seconds`` is the processor time of that, and
  ``merge_growth`` it over that of half as many shards. ``merge_partials`` are the partials that the first tasks leave,
  of ``merge_partial_bytes`` with the rows beside; ``merge_peak_bytes`` is the process's greatest memory, libraries
  included.
- ``merge_waits``: where a service takes 50 ms for each request, the requests of joining 16 partials and of the last
  task, and what share of the time that they take one by one is waited for.
- ``requests_per_block``: requests to the stores of one task of targets and one of pictures together, by neurons of the
  layer; ``requests_of_pass`` those of a whole pass over one shard; ``requests_kinds`` says which
  (benchmarks/counted.py).
- ``rank_ms_per_image``: processor time of ranking ``rank_neurons`` neurons, 50 images each, over a shard of a
  thousand images on one core.
- ``decode_per_core``: JPEG files of 500 × 375 px and ``decode_bytes``, as large as ImageNet's, that a core decodes and
  crops to 224 px a second of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import simplejpeg
import torch
from PIL import Image
from prefect import flow, task

from benchmarks.counted import PASS, Counted, count_requests, requests, waited
from benchmarks.stand_in import FULL, LEVELS, RANKS, SMALL, Size, StandIn, bytes_below, rows_of
from flows.jobs import Running
from flows.recipes.references import join_levels
from flows.running.cluster import in_process, run_tasks, unwatched
from flows.steps.reading.merging import FAN, Leaf, Tree, join_partials, merge_partials, write_partial, written_partials
from flows.steps.reading.shards import Partial
from stores import References, open_statistics
from stores.dataset.index import SampleRows, ShardRows
from stores.shards.decoding import decode
from stores.shards.finding import ShardFile
from vital.measuring.gathering import Gathered
from vital.measuring.kept.ranking import Ranker
from vital.network.preprocessing import Preprocessing

BLOCK = 32
QUIET = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def ms(work: Any, times: int) -> float:
    """Median milliseconds."""
    taken = []
    for number in range(times):
        begun = time.perf_counter()
        work(number)
        taken.append(1000 * (time.perf_counter() - begun))
    return float(np.median(taken))


# The index


def index(folder: Path, images: int, per_shard: int) -> tuple[float, float, float]:
    """Milliseconds of adding a shard, and of reading the places that a block needs; bytes an image."""
    url, shards = str(folder / f"index-{images}.zarr"), images // per_shard
    store = open_statistics(url, "a")
    store.claim({"levels": LEVELS}, {})
    store.append_parts(rows_of(shard, per_shard) for shard in range(shards))
    ids = np.random.default_rng(0).integers(0, images, (2048, RANKS))
    none = np.zeros((2048, RANKS, 4), np.int32)
    store.write_references("layer4", References(ids, ids.astype(np.float32), none[..., 0], none))
    store.mark([], {"layer4": RANKS})
    rows = ms(lambda at: open_statistics(url).reference_places("layer4", range(at * BLOCK, (at + 1) * BLOCK)), 15)
    more, size = [rows_of(shards + number, per_shard) for number in range(9)], bytes_below(Path(url) / "index") / images
    return ms(lambda number: open_statistics(url, "r+").append(*more[number]), len(more)), rows, size


# Partials of a pass, joined


@task(name="stand-in")
def read_leaf(store: str, stand_in: StandIn, template: Gathered, leaf: Leaf) -> None:
    """What `scan` does with a leaf, without shards and network."""
    first, *others = (int(shard.name[:6]) for shard in leaf.shards)
    part = stand_in.partial(template, first, 0)
    total, samples, tables = part.gathered, [part.samples], [part.shards]
    for shard in others:
        part = stand_in.partial(template, shard, 0)
        total += part.gathered.shifted(sum(map(len, samples)))
        samples.append(replace(part.samples, shard=(part.samples.shard + len(samples)).astype(np.int32)))
        tables.append(part.shards)
    write_partial(store, leaf.name, Partial(total, SampleRows.concat(samples), ShardRows.concat(tables)))


@flow(name="merge", task_runner=in_process())
def merged(store: str, stand_in: StandIn, shards: int) -> dict[str, float]:
    """Seconds and processor seconds from the shards' partials to a finished store, and what the first tasks leave."""
    tree = Tree.of(stand_in.plan, [ShardFile(f"{one:06d}.tar", f"/{one:06d}.tar", 1) for one in range(shards)])
    statistics, template = open_statistics(store, "a"), stand_in.template()
    statistics.claim({"levels": LEVELS}, {})
    times, cores = [time.perf_counter()], time.process_time()
    shared = {"store": store, "stand_in": stand_in, "template": template}
    run_tasks(Running(), read_leaf, [({**shared, "leaf": leaf}, 1) for leaf in tree.leaves])
    times.append(time.perf_counter())
    left = len(written_partials(store)) // 2  # beside each its rows
    size = bytes_below(Path(store) / "runs") / left
    join_levels(Running(), store, tree)
    times.append(time.perf_counter())
    grey = (0.5, 0.5, 0.5)
    merge_partials(statistics, stand_in.survey, Preprocessing(stand_in.size.side, grey, grey), stand_in.plan, tree)
    times.append(time.perf_counter())
    assert open_statistics(store).image_count() == shards * stand_in.size.per_shard
    steps = dict(zip(("read", "join", "store"), np.diff(times).tolist(), strict=True))
    return {**steps, "cores": time.process_time() - cores, "left": left, "bytes": size}


def waits(folder: Path, size: Size, shards: int) -> dict[str, float]:
    """Of a join of partials and of the last task, on a service that takes 50 ms for each request: how many there are,
    and what share of the time that they take one by one is waited for."""
    count_requests()
    stand_in, store = StandIn(size), f"counted://{folder / 'waits.zarr'}"
    tree = Tree.of(stand_in.plan, [ShardFile(f"{one:06d}.tar", f"/{one:06d}.tar", 1) for one in range(shards)])
    statistics, template, grey = open_statistics(store, "a"), stand_in.template(), (0.5, 0.5, 0.5)
    statistics.claim({"levels": LEVELS}, {})
    for leaf in tree.leaves:
        read_leaf.fn(store, stand_in, template, leaf)
    first, *others = tree.levels[0]
    found = {"join": _waiting(lambda: join_partials(store, first))}
    for branch in others:
        join_partials(store, branch)
    prepared = Preprocessing(stand_in.size.side, grey, grey)
    found["store"] = _waiting(lambda: merge_partials(statistics, stand_in.survey, prepared, stand_in.plan, tree))
    return {f"{name}_{what}": figure for name, each in found.items() for what, figure in each.items()}


def _waiting(work: Callable[[], object]) -> dict[str, float]:
    """Requests of some work, each of which takes 50 ms, and the share of their times that it waits for them."""
    Counted.forget()
    Counted.latency = 0.05
    try:
        work()
    finally:
        Counted.latency = 0.0
    taken = sum(end - begun for begun, end in Counted.spans)
    return {"requests": sum(Counted.seen.values()), "share": waited(Counted.spans) / taken}


def merge(folder: Path, size: Size, shards: int) -> dict[str, float]:
    """The same in this process, which has done nothing else, and its peak memory; a small one comes first."""
    with unwatched():
        merged(str(folder / "first.zarr"), StandIn(SMALL), SMALL.shards)
        found = merged(str(folder / "store.zarr"), StandIn(size), shards)
    return {**found, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


# Ranking


def rank(neurons: int, images: int, batch: int = 32) -> float:
    """Milliseconds an image of a whole shard, with the peaks of all its images at hand."""
    stream, ranker = np.random.default_rng(0), Ranker(neurons, RANKS)
    scores = stream.standard_normal((batch, neurons), np.float32)
    taken = 0.0
    for start in range(0, images, batch):
        stream.shuffle(scores.reshape(-1, max(1, neurons // 100)))  # other scores, made in little time
        rows = np.arange(start, min(start + batch, images))
        begun = time.process_time()
        ranker.add(scores[: len(rows)], rows, lambda image, some: np.zeros(len(some), np.int64))
        taken += time.process_time() - begun
    begun = time.process_time()
    ranker.ranking()
    return 1000 * (taken + time.process_time() - begun) / images


# Decoding


def decoding(size: int = 110_000, times: int = 30) -> tuple[float, int]:
    """Files a second of processor time, and how large they are."""
    stream, file = np.random.default_rng(0), b""
    coarse = Image.fromarray(stream.integers(0, 256, (47, 63, 3), np.uint8)).resize(
        (500, 375), Image.Resampling.BICUBIC
    )
    pixels = np.clip(np.asarray(coarse) + stream.normal(0, 12, (375, 500, 3)), 0, 255).astype(np.uint8)
    for quality in range(50, 100):
        if len(file) < size:
            file = simplejpeg.encode_jpeg(pixels, quality=quality)
    half = (0.5, 0.5, 0.5)
    begun = time.process_time()
    for _ in range(times):
        Preprocessing(224, half, half).crop(decode(file))
    return times / (time.process_time() - begun), len(file)


Part = Callable[[str, Size, int], Any]


def measured(folder: Path, size: Size, run: Part) -> Iterator[tuple[str, object]]:
    """All figures by name; ``run`` runs a part of `PARTS`."""
    short = max(size.per_shard, size.images // 100)
    append, rows, bytes_ = index(folder, size.images, size.per_shard)
    yield from {"index_images": size.images, "index_append_ms": append, "index_bytes": bytes_}.items()
    yield from {"index_rows_ms": rows, "index_rows_ms_short": index(folder, short, size.per_shard)[1]}.items()
    yield from zip(("decode_per_core", "decode_bytes"), decoding(), strict=True)
    yield from {"rank_neurons": size.ranked, "rank_ms_per_image": rank(size.ranked, size.per_shard)}.items()
    half, whole = (run("merge", size, count) for count in (size.shards // 2, size.shards))
    steps = {name: whole[name] for name in ("read", "join", "store")}
    yield from {"merge_shards": size.shards, "merge_seconds": {**steps, "all": sum(steps.values())}}.items()
    yield from {"merge_core_seconds": whole["cores"], "merge_growth": whole["cores"] / half["cores"]}.items()
    yield from {"merge_partials": int(whole["left"]), "merge_partial_bytes": whole["bytes"]}.items()
    yield "merge_peak_bytes", whole["peak"]
    yield "merge_waits", run("waits", size, 2 * FAN)
    kinds = {neurons: run("requests", size, neurons) for neurons in size.layers}
    sums = {neurons: {name: sum(of.values()) for name, of in each.items()} for neurons, each in kinds.items()}
    yield "requests_of_pass", {neurons: each.pop(PASS) for neurons, each in sums.items()}
    yield "requests_per_block", {neurons: sum(each.values()) for neurons, each in sums.items()}
    yield "requests_kinds", kinds


PARTS: dict[str, Callable[[Path, Size, int], Any]] = {
    "merge": merge,
    "waits": waits,
    "requests": lambda folder, size, neurons: requests(folder, neurons),
}
"""What is given a folder, and shards or neurons."""


def here(part: str, size: Size, count: int) -> Any:
    """A part in this process."""
    with tempfile.TemporaryDirectory() as place:
        return PARTS[part](Path(place), size, count)


def alone(part: str, size: Size, count: int) -> Any:
    """A part in a process of its own, whose peak memory is no other's."""
    command = [sys.executable, __file__, "--part", part, str(count), *(["--small"] if size == SMALL else [])]
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if run.returncode:
        raise SystemExit(f"{part} {count} failed:\n{run.stderr[-4000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--small", action="store_true", help="with little data, in seconds")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    size = SMALL if options.small else FULL
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    torch.set_num_threads(1)
    if options.part:
        print(json.dumps(here(options.part[0], size, int(options.part[1]))))
        return
    with tempfile.TemporaryDirectory() as place:
        result = dict(measured(Path(place), size, here if options.small else alone))
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
