"""One shard from its bytes to its partial: samples, index rows, and what its images add to the statistics."""

from __future__ import annotations

import ctypes
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from flows.running.labels import Labels
from flows.running.process import LoadedModel
from flows.running.progress import tick
from stores.arrays.provenance import safe_url
from stores.dataset.index import SampleRows, ShardRows
from stores.errors import USED, Status, UnreadableImage
from stores.shards.decoding import decode
from stores.shards.finding import ShardFile
from stores.shards.reading import Sample, ShardReader
from vital.measuring.gathering import Gathered, Plan, gather
from vital.network.probe import CLASSES

BATCH = 32
"""Images forwarded together. Fixed: what a shard adds must not depend on the machine."""

LONGEST = 100
"""Greatest ratio of an image's sides: the shorter is resized to the input, and the longer grows with it."""


def bytes_of(shards: Sequence[ShardFile]) -> int:
    """Size of some shards together, as far as it is known."""
    return sum(max(shard.size, 0) for shard in shards)


@dataclass(frozen=True)
class Partial:
    """What one shard adds. Image ids count from the shard's first row until `shifted`."""

    gathered: Gathered
    samples: SampleRows
    shards: ShardRows

    @classmethod
    def none(cls, gathered: Gathered) -> Partial:
        """What no shard adds to ``gathered``."""
        return cls(gathered, SampleRows.empty(), ShardRows.empty())

    def shifted(self, images: int, shards: int) -> Partial:
        """The same counted from the data set's beginning, with so many images and shards before it."""
        samples = replace(self.samples, shard=(self.samples.shard + shards).astype(np.int32))
        return Partial(self.gathered.shifted(images), samples, self.shards)


def joined(begun: Partial, parts: Iterable[Partial], images: int = 0, shards: int = 0) -> Partial:
    """``begun`` and all ``parts`` in their order, which come after so many images and shards. One part at a time is in
    memory, of the others only the rows of their images."""
    total, samples, tables = begun.gathered, [begun.samples], [begun.shards]
    for number, part in enumerate(parts):
        moved = part.shifted(images, shards + number)
        images += len(part.samples)
        total = total + moved.gathered
        samples.append(moved.samples)
        tables.append(moved.shards)
    return Partial(total, SampleRows.concat(samples), ShardRows.concat(tables))


def scan_shard(shard: ShardFile, loaded: LoadedModel, plan: Plan, labels: Labels) -> Partial:
    """Stream a shard once. An image that cannot be used is an index row that says why; the shard goes on."""
    reader = ShardReader(shard, labels.rule(loaded))
    classes = loaded.survey.layers.get(CLASSES)
    count = 0 if classes is None else classes.channels
    rows: list[dict[str, Any]] = []
    side = loaded.model.preprocessing.side
    total = Gathered.none(plan, loaded.survey, side)
    before = 0 if shard.part is None else -1
    for batch in _ahead(_batches(_usable(reader, loaded, labels, rows))):
        samples, pixels = zip(*batch, strict=True)
        total = total + gather(
            loaded.model,
            loaded.survey,
            plan,
            torch.stack(pixels),
            np.array([sample.row for sample in samples]),
            np.array([labels.of_network(sample.label, count)[0] for sample in samples]),
            [sample.key for sample in samples],
        )
        read = samples[-1].offset + samples[-1].size
        # the images of a part of a folder do not begin at byte 0
        tick(len(samples), read - (samples[0].offset if before < 0 else before))
        before = read
    give_back()
    summary = reader.summary
    columns = {name: [row[name] for row in rows] for name in ("offset", "size", "label", "key", "status", "checksum")}
    index = SampleRows.from_columns({"shard": np.zeros(len(rows), np.int32), **columns})
    one = {"name": [shard.name], "url": [safe_url(shard.url)], "size": [shard.size], "images": [len(rows)]}
    rejected = sum(row["status"] not in USED for row in rows)
    table = ShardRows.from_columns(
        {**one, "rejected": [rejected], "digest": [summary.digest], "short": [summary.short or ""]}
    )
    return Partial(total, index, table)


def _usable(
    reader: ShardReader, loaded: LoadedModel, labels: Labels, rows: list[dict[str, Any]]
) -> Iterator[tuple[Sample, UInt8[Tensor, "3 side side"]]]:
    """Decoded samples; every sample seen leaves its index row in ``rows``."""
    classes = loaded.survey.layers.get(CLASSES)
    for sample in reader:
        status, pixels = sample.status, None
        if status == Status.OK and sample.image is not None:
            try:
                image = decode(sample.image)
                if max(image.shape[:2]) > LONGEST * min(image.shape[:2]):
                    raise UnreadableImage(
                        f"{sample.key} is more than {LONGEST} times longer than wide", Status.TOO_LARGE
                    )
                pixels = loaded.model.preprocessing.crop(image)
            except UnreadableImage as error:
                status = error.status
        if status == Status.OK and classes is not None:
            _, status = labels.of_network(sample.label, classes.channels)
        rows.append(
            {
                "offset": sample.offset,
                "size": sample.size,
                "label": sample.label,
                "key": sample.key,
                "status": status,
                "checksum": zlib.crc32(sample.image or b""),
            }
        )
        if pixels is not None:
            yield sample, pixels


def _ahead(batches: Iterator[list[tuple[Sample, Any]]]) -> Iterator[list[tuple[Sample, Any]]]:
    """The same batches, the next one read and decoded while this one is computed; one more is in memory."""
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as reader:
        upcoming = reader.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = reader.submit(next, batches, None)
            yield batch


def _batches(samples: Iterator[tuple[Sample, Any]]) -> Iterator[list[tuple[Sample, Any]]]:
    batch = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def give_back() -> None:
    """Hand what is freed back to the system, wherever it lies; nothing happens where the C library knows no such call.

    glibc keeps freed pieces that lie between used ones. A pass decodes images of all sizes, so those pieces grow in
    number with the images seen, and its memory with the number of shards. Once a shard this costs some milliseconds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
