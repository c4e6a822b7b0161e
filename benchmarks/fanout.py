"""What sharing a layer out costs and gains: `python benchmarks/fanout.py --json`.

``two_workers`` is the time of one one-thread worker process over that of two, for the same blocks of pictures.
``overhead`` is the share of a one-worker run that is not its tasks' own work: Prefect, Dask, reading and writing,
progress. Workers load the network before anything is timed, and runs of one and two workers alternate.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from functools import partial
from importlib import resources
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import torch
from distributed import Client, LocalCluster

from flows.jobs import BLOCK, AtlasJob, ReferencesJob, Running, TargetsJob
from flows.recipes.atlas import build_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.running.process import load_stored
from flows.steps.pictures import made_blocks
from stores import open_statistics
from vital.settings import PictureSettings, StatisticsSettings, VariantSettings

LAYER = "_blocks.9"
BLOCKS = 2
STEPS, SIDE = 100, 112
"""A third of the usual steps at a quarter of the usual area: usual blocks have a twelfth of the overhead."""


def prepare(folder: Path) -> AtlasJob:
    """Targets of some whole blocks of Lite0's channels, from the embedded photographs."""
    store, variant = str(folder / "statistics.zarr"), VariantSettings(crop="image", references=4)
    shards = (str(resources.files("flows.demo")),)
    neurons = f"0:{BLOCKS * BLOCK}"
    select_references(
        ReferencesJob(shards=shards, store=store, layers=(LAYER,), statistics=StatisticsSettings(references=4))
    )
    measure_targets(TargetsJob(store=store, layer=LAYER, neurons=neurons, variant=variant))
    picture = PictureSettings(steps=STEPS, side=SIDE)
    return AtlasJob(
        store=store,
        layer=LAYER,
        out=str(folder / "one.zarr"),
        neurons=neurons,
        variant=variant,
        picture=picture,
        batch=8,
    )


def load(job: AtlasJob) -> None:
    """Have the network in this worker process."""
    load_stored(open_statistics(job.store), Running(threads=1))


def seconds(job: AtlasJob, out: Path, workers: int) -> float:
    """Of a run on so many worker processes."""
    shutil.rmtree(out, ignore_errors=True)
    cluster_of = partial(LocalCluster, threads_per_worker=1, dashboard_address=":0")
    with cluster_of(n_workers=workers) as cluster:
        address = cluster.scheduler_address
        with Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.run(load, job)
        running = Running(scheduler=address, threads=1)
        begun = time.perf_counter()
        build_atlas(job.model_copy(update={"out": str(out), "running": running}))
        return time.perf_counter() - begun


def work(job: AtlasJob, out: Path) -> float:
    """Seconds of the tasks' own work: the same blocks, without a flow, in this process on one thread."""
    made = job.model_copy(update={"out": str(out), "running": Running(threads=1)})
    torch.set_num_threads(1)
    begun = time.perf_counter()
    for block in range(BLOCKS):
        made_blocks(made, (block,))()
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job = prepare(folder)
        one, two, own = [], [], []
        for _ in range(options.rounds):
            one.append(seconds(job, folder / "one.zarr", 1))
            two.append(seconds(job, folder / "two.zarr", 2))
            own.append(work(job, folder / "one.zarr"))
    alone, shared, bare = (float(np.median(part)) for part in (one, two, own))
    result = {
        "two_workers": alone / shared,
        "overhead": (alone - bare) / alone,
        "seconds": {"one_worker": one, "two_workers": two, "work": own},
        "blocks": BLOCKS,
        "neurons_of_a_block": BLOCK,
        "steps": STEPS,
        "side": SIDE,
    }
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
