"""A real set of 70,000 images as 70 shards, streamed once: `python benchmarks/fashion.py --json`.

Fashion-MNIST as Debian's package dataset-fashion-mnist carries it, each image a PNG of its own. The network is four
convolutions with fixed random weights at 32 pixels: the pass is timed, not what it finds. ``images_per_second`` is of
the whole command in a process of its own, Prefect's start included; ``peak_bytes`` its greatest memory, ``rejected``
what was not used, ``store_bytes`` the size of the store, ``second_seconds`` a second run that finds nothing to do.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import sys
import tarfile
import tempfile
import time
from itertools import pairwise
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.command import peak_bytes

ROOT = Path(__file__).parents[1]
PACKAGE = Path("/usr/share/datasets/fashion-mnist")
SHARDS = 70
LAYER = "2"


def network() -> nn.Module:
    """Four convolutions and a classifier of ten classes, the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths, blocks = (3, 16, 32, 64, 64), []
        for before, after in pairwise(widths):
            blocks.append(nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()))
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the IDX format: two zero bytes, type 8, number of axes, their lengths, the data."""
    if not path.is_file():
        raise SystemExit(f"there is no {path}: apt install dataset-fashion-mnist, or give --source")
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is no IDX file of bytes: install Debian's dataset-fashion-mnist")
    axes = data[3]
    shape = np.frombuffer(data, ">u4", axes, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def write_shards(source: Path, folder: Path) -> None:
    """All 70,000 images with their labels, a thousand a shard."""
    folder.mkdir(parents=True)
    parts = [(read_idx(source / f"{part}-images-idx3-ubyte.gz"), read_idx(source / f"{part}-labels-idx1-ubyte.gz"))
             for part in ("train", "t10k")]  # fmt: skip
    images, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
    for shard, rows in enumerate(np.array_split(np.arange(len(images)), SHARDS)):
        with tarfile.open(folder / f"fashion-{shard:06d}.tar", "w") as tar:
            for row in rows:
                buffer = io.BytesIO()
                Image.fromarray(images[row]).save(buffer, "PNG")
                for ending, data in (("png", buffer.getvalue()), ("cls", str(labels[row]).encode())):
                    info = tarfile.TarInfo(f"{row:06d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def passed(shards: Path, store: Path) -> tuple[float, int]:
    """Seconds and peak memory of the command."""
    arguments = ["references", str(shards), "--store", str(store), "--model", "benchmarks.fashion:network",
                 "--input-size", "32", "--layer", LAYER, "--layer", "classes"]  # fmt: skip
    begun = time.perf_counter()
    peak = peak_bytes(*arguments)
    return time.perf_counter() - begun, peak


def main() -> None:
    """Write the shards, stream them, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--source", type=Path, default=PACKAGE, help="folder of the four IDX files")
    options = parser.parse_args()
    if not options.source.is_dir():
        raise SystemExit(f"there is no folder {options.source}: apt install dataset-fashion-mnist, or give --source")
    from stores.arrays.opening import open_store
    from stores.dataset.index import read_index, read_shards

    with tempfile.TemporaryDirectory() as place:
        shards, store = Path(place) / "shards", Path(place) / "store.zarr"
        write_shards(options.source, shards)
        seconds, peak = passed(shards, store)
        again, _ = passed(shards, store)
        group = open_store(str(store), "statistics", "r")
        images = len(read_index(group))
        result = {
            "images": images,
            "shards": len(read_shards(group)),
            "rejected": int(read_shards(group).rejected.sum()),
            "images_per_second": images / seconds,
            "seconds": seconds,
            "second_seconds": again,
            "peak_bytes": peak,
            "shard_bytes": sum(file.stat().st_size for file in shards.iterdir()),
            "store_bytes": sum(file.stat().st_size for file in store.rglob("*") if file.is_file()),
        }
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
