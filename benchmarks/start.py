"""Processor time of the command before it works: ``vital --help``, and ``vital info`` of a small store.

    python benchmarks/start.py --json

Each is run several times as a process of its own. The figures are medians of user and system time together, which do
not depend on what else the machine does. The store is made first, by the command: references of a few random images.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # not this folder: one of its files is called statistics

from statistics import median

import numpy as np
from PIL import Image

NETWORK = ("--model", "squeezenet1_1", "--weights", "random", "--input-size", "64")
IMAGES = 8


def vital(*words: str | Path) -> float:
    """Seconds of processor time that the command takes in a process of its own; its failure is this one's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if run.returncode:
        raise SystemExit(f"vital {' '.join(map(str, words))}: {run.stderr.strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_store(folder: Path) -> Path:
    """A statistics store of random images."""
    images, shards, store = folder / "images", folder / "shards", folder / "statistics.zarr"
    images.mkdir()
    stream = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(stream.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(images / f"{number}.png")
    vital("pack", images, "--out", shards)
    kept = ("--layer", "features.12", "--references", "2", "--levels", "16", "--threads", "1")
    vital("references", shards, "--store", store, *NETWORK, *kept)
    return store


def main() -> None:
    """Measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--times", type=int, default=5, help="how often each is run  [default: 5]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
        store = make_store(Path(folder))
        found = {
            "help_seconds": median(vital("--help") for _ in range(options.times)),
            "info_seconds": median(vital("info", store) for _ in range(options.times)),
        }
    if options.json:
        print(json.dumps(found))
    else:
        print(f"vital --help: {found['help_seconds']:.2f} s\nvital info:   {found['info_seconds']:.2f} s")


if __name__ == "__main__":
    main()
