"""What a data set will take, on paper: `python benchmarks/needs.py --images 1281167 --shards 1281 --gpus 1 8 64`.

The formula of docs/scale.md with its constants: those marked measured come from the other benchmarks of this folder on
two processor cores, those marked assumed stand for a GPU that was not there.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from math import ceil


@dataclass(frozen=True)
class Constants:
    """Seconds, bytes and counts that the formula multiplies; the default is resnet50, layer4, five nodes."""

    decode_per_core: float = 400.0
    """Images a second of decoding and resizing to 224 px on one core: 1,086 measured for photographs of 320 to 512 px
    and 23 kB; assumed for ImageNet's, which have 110 kB."""
    cores_per_gpu: int = 8
    """Assumed."""
    forward_per_gpu: float = 2500.0
    """Images a second of resnet50 in float32 with the pass's sorting, assumed of an H100."""
    task_seconds: float = 0.09
    """What an empty task costs a worker, measured: 64 on Dask, Prefect 3.8, its server on the same two cores."""
    tasks: int = 256
    """Tasks of a pass, at most."""
    partial_bytes: int = 5_063_212
    """Of a shard, measured (five nodes, 64 levels, 50 references; benchmarks/statistics.py, partial_bytes)."""
    merge_per_second: float = 60.0
    """Partials that one core reads from disk and adds a second, measured."""
    reference_per_gpu: float = 400.0
    """References measured a second, assumed: 2.18 times a forward and gradient, which is measured as a ratio."""
    step_per_gpu: float = 300.0
    """Steps of one picture a second, assumed: 2.66 times a forward and gradient, which is measured as a ratio."""
    neuron_bytes: int = 958_660
    """Stored of an inner neuron, measured: benchmarks/method.py."""
    picture_bytes: int = 260_000
    """Stored of a picture of 224 px with its mask, measured."""
    index_bytes: int = 41
    """Of an image's row in the index before compression, with a key of twelve letters."""


@dataclass(frozen=True)
class Needs:
    """Seconds by step, bytes kept, bytes of partials while a pass runs, and requests to storage."""

    pass_seconds: float
    merge_seconds: float
    target_seconds: float
    picture_seconds: float
    store_bytes: float
    atlas_bytes: float
    partial_bytes: float
    requests: int


def needs(
    images: int, shards: int, gpus: int, neurons: int = 2048, references: int = 50, steps: int = 300,
    constants: Constants | None = None,
) -> Needs:  # fmt: skip
    """The formula of docs/scale.md."""
    known = constants or Constants()
    rate = gpus * min(known.forward_per_gpu, known.cores_per_gpu * known.decode_per_core)
    waves = ceil(min(known.tasks, shards) / gpus)
    blocks = ceil(neurons / 32)
    return Needs(
        images / rate + waves * known.task_seconds,
        shards / known.merge_per_second,
        neurons * references / (gpus * known.reference_per_gpu) + ceil(blocks / gpus) * known.task_seconds,
        neurons * steps / (gpus * known.step_per_gpu) + ceil(blocks / gpus) * known.task_seconds,
        neurons * known.neuron_bytes + images * known.index_bytes,
        neurons * known.picture_bytes,
        shards * known.partial_bytes,
        shards * 4 + neurons * references + blocks * 40,
    )


def main() -> None:
    """A line for each number of GPUs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--shards", type=int, default=1281)
    parser.add_argument("--neurons", type=int, default=2048)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    options = parser.parse_args()
    print("| GPUs | " + " | ".join(field.name.replace("_", " ") for field in fields(Needs)) + " |")
    print("|---" * (len(fields(Needs)) + 1) + "|")
    for gpus in options.gpus:
        found = needs(options.images, options.shards, gpus, options.neurons)
        shown = [f"{getattr(found, field.name):,.0f}" for field in fields(Needs)]
        print(f"| {gpus} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()
