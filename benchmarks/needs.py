"""What a data set will take, on paper: `python benchmarks/needs.py --images 1281167 --shards 1281 --gpus 1 8 64`.

The formula of docs/scale.md with its constants. Each says where it was measured, and by which benchmark of this
folder.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from math import ceil


@dataclass(frozen=True)
class Constants:
    """Seconds, bytes and counts that the formula multiplies; the default is resnet50, layer4, five nodes. Measured is
    on one of two cores of a shared machine, by benchmarks/scale.py unless another or a GPU is named."""

    pass_per_gpu: float = 768.0
    """Images a second of a pass over files by enough decoders, measured on an H100: shards of benchmarks/gpu.py
    (by_4)."""
    decode_per_core: float = 436.0
    """Images a second of decoding and cropping to 224 px, measured beside an H100: decode_s of benchmarks/gpu.py."""
    cores_per_gpu: int = 8
    """Assumed."""
    task_seconds: float = 0.09
    """What an empty task costs a worker, measured: 64 on Dask, Prefect 3.8, its server on the same two cores."""
    tasks: int = 256
    """Tasks of a pass, at most."""
    fan: int = 16
    """Partials that a task joins, at most."""
    partial_bytes: int = 10_029_827
    """Of a task of the pass with the rows of its images, measured: merge_partial_bytes."""
    join_seconds: float = 0.038
    """Reading, adding and writing a partial, measured: merge_seconds, join, by merge_partials."""
    store_seconds: float = 5.3
    """Joining the last partials and writing the store, measured: merge_seconds, store."""
    reference_per_gpu: float = 137.0
    """References measured a second, measured on an H100: references of benchmarks/gpu.py (layer4.2_float32)."""
    step_per_gpu: float = 1696.0
    """Steps of one picture a second, measured on an H100: steps of benchmarks/gpu.py
    (natural_bfloat16_128)."""
    neuron_bytes: int = 958_660
    """Stored of an inner neuron, measured: benchmarks/method.py."""
    picture_bytes: int = 260_000
    """Stored of a picture of 224 px with its mask, measured: the blocks of an atlas by their number."""
    index_bytes: float = 19.8
    """Stored of an image's row in the index, measured: index_bytes."""
    target_requests: int = 92
    """Of a task of targets besides its images, measured: requests_kinds."""
    picture_requests: int = 116
    """Of a task of pictures, measured: requests_kinds."""
    pass_requests: int = 934
    """Of a pass besides its shards, partials and joins, measured: requests_of_pass less those of one partial."""


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
    rate = gpus * min(known.pass_per_gpu, known.cores_per_gpu * known.decode_per_core)
    leaves, blocks = min(known.tasks, shards), ceil(neurons / 32)
    joins = ceil(leaves / known.fan)
    return Needs(
        images / rate + ceil(leaves / gpus) * known.task_seconds,
        ceil(joins / gpus) * (known.fan * known.join_seconds + known.task_seconds) + known.store_seconds,
        neurons * references / (gpus * known.reference_per_gpu) + ceil(blocks / gpus) * known.task_seconds,
        neurons * steps / (gpus * known.step_per_gpu) + ceil(blocks / gpus) * known.task_seconds,
        neurons * known.neuron_bytes + images * known.index_bytes,
        neurons * known.picture_bytes,
        leaves * known.partial_bytes,
        known.pass_requests + 2 * shards + 8 * leaves + 4 * joins
        + neurons * references + blocks * (known.target_requests + known.picture_requests),
    )  # fmt: skip


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
