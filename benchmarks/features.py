"""What a hundred thousand features cost from shards to pictures: `python benchmarks/features.py --json`.

The network is small and the images are few, so what is measured is what features cost beside these, one thread. Each
step is a process of its own; ``seconds`` are of a processor, and ``peak_bytes`` the process's greatest memory,
libraries included.

- ``pass``: ``ms`` an image, of the maps of all features, their sums, peaks and ranking; ``rest_seconds`` is everything
  else: two shards read, joined and written into the store of ``store_bytes``.
- ``targets``, ``atlas``: a task of one block of 32 features; ``fly``: the same pictures from targets that are measured
  by the task.
- ``requests``: what a task of targets and one of pictures ask of storage, by features of the dictionary, which the
  process has read before.

`python benchmarks/dictionary.py --pictures` asks whether a feature's picture reads better than a channel's.
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
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import torch

import flows
from benchmarks.counted import PASS, WIDTH, requests, write_features, write_shard
from flows.jobs import BLOCK, Running
from flows.running.cluster import Calls
from flows.session.preparing import calm_prefect
from vital.judging.names import metric_name
from vital.measuring.gathering import Gathering
from vital.settings import EMBEDDED, ModelSettings

JUDGES = ("squeezenet", "efficientnet_lite2")
"""Networks that the pictures were not made for."""
REFERENCES = 12
"""Of each neuron; one with fewer gets no picture."""
AT_FEATURES, AT_CHANNELS = 7, 2
"""Blocks of 32: features lie in no order, being begun at samples drawn by lot; channels 64 to 95 are those of
`benchmarks/readability.py`."""
SETTINGS: dict[str, Any] = {"steps": 75, "side": 224}


def compared(
    dictionary: Path, layer: str, folder: Path | None = None, settings: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """By kind of neuron, the mean over 32 of both judges' readability and its standard error: of the neurons' pictures,
    and of as many natural references. What is in the ``folder`` already is not made again."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return compared(dictionary, layer, Path(temporary), settings)
    named = f"{layer}~{dictionary.stem}"
    store = flows.references(
        str(resources.files("flows.demo")), folder / "s.zarr", model=EMBEDDED, layers=[layer, named],
        dictionaries=[dictionary], references=REFERENCES, threads=1,
    )  # fmt: skip
    found = {}
    for kind, name, block in (("features", named, AT_FEATURES), ("channels", layer, AT_CHANNELS)):
        neurons = f"{BLOCK * block}:{BLOCK * (block + 1)}"
        flows.targets(store, name, neurons=neurons, fewest=REFERENCES, threads=1)
        out = folder / f"{kind}.zarr"
        atlas = flows.atlas(store, name, out, neurons=neurons, batch=8, **(settings or SETTINGS), threads=1)
        pictures = flows.evaluate(atlas, judges=JUDGES, threads=1).layer(name)
        metrics, made = pictures.metrics(), pictures.made()
        found[kind] = {"pictures": int(made.sum())} | {
            metric: mean([metrics[metric_name(metric, judge)][made] for judge in JUDGES])
            for metric in ("readability", "readability_references")
        }
        print(json.dumps({kind: found[kind]}), file=sys.stderr)
    return found


def mean(by_judge: Sequence[np.ndarray]) -> tuple[float, float]:
    """Over neurons of the mean over judges, and its standard error."""
    values = np.mean(by_judge, axis=0)
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 3), round(float(values.std(ddof=1) / len(values) ** 0.5), 3)


# A hundred thousand of them

CHANNELS, SIDE, IMAGES = 16, 112, 32
"""Of the layer and the input, whose maps have 49 sites; images of each of two shards."""
LAYER = "1~many"
STEPS = ("pass", "targets", "atlas", "fly")


def passed(folder: Path, features: int) -> dict[str, float]:
    """The pass over two shards."""
    for seed in (0, 1):
        write_shard(folder, IMAGES, f"images-{seed}", seed)
    file, store, inside = write_features(folder, features, CHANNELS), folder / "s.zarr", 0.0
    add = Gathering.add

    def timed(*arguments: Any) -> None:
        nonlocal inside
        begun = time.process_time()
        add(*arguments)
        inside += time.process_time() - begun

    model, begun = ModelSettings(name="benchmarks.counted:network", input_size=SIDE), time.process_time()
    with mock.patch.object(Gathering, "add", timed):
        shards = [folder / f"images-{seed}.tar" for seed in (0, 1)]
        flows.references(shards, store, model=model, layers=[LAYER], dictionaries=[file], batch=16, decoders=1)
    rest = time.process_time() - begun - inside
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
    return {"ms": 1000 * inside / (2 * IMAGES), "rest_seconds": rest, "store_bytes": size}


def task(folder: Path, step: str) -> dict[str, float]:
    """Seconds of one task of the second block."""
    taken = 0.0

    def timed(running: Running, work: Any, calls: Calls) -> None:
        nonlocal taken
        for parameters, _ in calls:
            begun = time.process_time()
            work.fn(**parameters)
            taken += time.process_time() - begun

    store, neurons = folder / "s.zarr", f"{BLOCK}:{2 * BLOCK}"
    with mock.patch("flows.running.blocks.run_tasks", timed):
        if step == "targets":
            flows.targets(store, LAYER, neurons=neurons)
        else:
            kept = "fly" if step == "fly" else "stored"
            out = folder / f"{step}.zarr"
            flows.atlas(store, LAYER, out, neurons=neurons, targets=kept, steps=2, side=SIDE, batch=BLOCK)
    return {"seconds": taken}


def many(features: int, few: int) -> dict[str, Any]:
    """All steps, each in a process of its own."""
    found: dict[str, Any] = {"features": features}
    with tempfile.TemporaryDirectory() as place:
        for step in STEPS:
            command = [sys.executable, __file__, "--features", str(features), "--step", step, place]
            run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
            if run.returncode:
                raise SystemExit(f"{step} failed:\n{run.stderr[-4000:]}")
            found[step] = json.loads(run.stdout.splitlines()[-1])
    asked = {}
    for count in (few, features):
        with tempfile.TemporaryDirectory() as place:
            each = requests(Path(place), count, CHANNELS)
            asked[count] = sum(sum(of.values()) for name, of in each.items() if name != PASS)
    return {**found, "requests": asked}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument(
        "--few", type=int, default=1000, help="features of the dictionary that requests are compared with"
    )
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    calm_prefect()
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    torch.set_num_threads(1)
    if options.step:
        os.environ[WIDTH] = str(CHANNELS)
        step, folder = options.step[0], Path(options.step[1])
        result: dict[str, Any] = passed(folder, options.features) if step == "pass" else task(folder, step)
        result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        result = many(options.features, options.few)
    print(json.dumps(result) if options.json or options.step else "\n".join(f"{k}: {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
