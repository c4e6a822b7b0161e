"""Processor time of the command before it works: ``vital --help``, and ``vital info`` of a small store.

    python benchmarks/start.py --json

Each is run several times as a process of its own. The figures are medians of user and system time together, which do
not depend on what else the machine does. The store is made first, by the command: references of a few random images.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

from statistics import median

import numpy as np
from PIL import Image

from benchmarks.command import vital

NETWORK = ("--model", "squeezenet1_1", "--weights", "random", "--input-size", "64")
IMAGES = 8


def seconds(*words: str | Path) -> float:
    """Of processor time that the command takes in a process of its own."""
    used = vital(*words)
    return used.ru_utime + used.ru_stime


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
            "help_seconds": median(seconds("--help") for _ in range(options.times)),
            "info_seconds": median(seconds("info", store) for _ in range(options.times)),
        }
    if options.json:
        print(json.dumps(found))
    else:
        print(f"vital --help: {found['help_seconds']:.2f} s\nvital info:   {found['info_seconds']:.2f} s")


if __name__ == "__main__":
    main()
