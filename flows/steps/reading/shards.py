"""One shard from its bytes to its partial: samples, index rows, and what its images add to the statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from torch import nn

from flows.running.process import LoadedModel
from flows.running.progress import tick
from flows.steps.images import bands_of
from flows.steps.reading.feeding import ALONE, Feed, fed
from flows.steps.reading.labels import Labels
from stores.arrays.provenance import safe_url
from stores.dataset.index import SampleRows, ShardRows
from stores.errors import USED
from stores.shards.finding import ShardFile
from stores.shards.reading import ShardReader
from vital.measuring.gathering import Gathered, Gathering, Plan
from vital.memory import fitting, give_back
from vital.network.probe import CLASSES


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


_fitting: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Images that fit into memory together, where more of a network's did not."""


def scan_shard(shard: ShardFile, loaded: LoadedModel, plan: Plan, labels: Labels, feed: Feed = ALONE) -> Partial:
    """Stream a shard once. An image that cannot be used is an index row that says why; the shard goes on.

    Reading, decoding, copying to the device and computing go on side by side. Images that do not fit into memory
    together are halved: the shard is begun anew, and later shards of this process with as few.

    Raises:
        DoesNotFit: one image alone does not fit, or so many together do not and ``feed`` says that they are fixed.
    """
    network = loaded.model.network

    def scanned(batch: int) -> Partial:
        if batch < feed.batch:
            _fitting[network] = batch
            give_back()
        return _scanned(shard, loaded, plan, labels, replace(feed, batch=batch))

    way_out = "take a smaller --input-size, or a device with more memory"
    return fitting(min(feed.batch, _fitting.get(network, feed.batch)), scanned, "image", feed.fixed, way_out)


def _scanned(shard: ShardFile, loaded: LoadedModel, plan: Plan, labels: Labels, feed: Feed) -> Partial:
    """What `scan_shard` gives; where so many images do not fit into memory together, what was told of them is taken
    back."""
    reader = ShardReader(shard, labels.rule(loaded), bands_of(loaded.model.preprocessing).photographs)
    classes = loaded.survey.layers.get(CLASSES)
    count = 0 if classes is None else classes.channels
    rows: list[dict[str, Any]] = []
    gathering = Gathering(loaded.model, loaded.survey, plan)
    before, told = 0 if shard.part is None else -1, [0, 0]
    with closing(fed(reader, loaded, labels, feed, rows)) as batches:
        for samples, pixels in batches:
            try:
                gathering.add(
                    pixels,
                    np.array([sample.row for sample in samples]),
                    np.array([labels.of_network(sample.label, count)[0] for sample in samples]),
                    [sample.key for sample in samples],
                )
            except (MemoryError, RuntimeError):
                tick(-told[0], -told[1])
                raise
            read = samples[-1].offset + samples[-1].size
            # the images of a part of a folder do not begin at byte 0
            news = len(samples), read - (samples[0].offset if before < 0 else before)
            tick(*news)
            before, told = read, [had + new for had, new in zip(told, news, strict=True)]
    gathered = gathering.gathered()
    give_back()
    summary = reader.summary
    columns = {name: [row[name] for row in rows] for name in ("offset", "size", "label", "key", "status", "checksum")}
    index = SampleRows.from_columns({"shard": np.zeros(len(rows), np.int32), **columns})
    one = {"name": [shard.name], "url": [safe_url(shard.url)], "size": [shard.size], "images": [len(rows)]}
    rejected = sum(row["status"] not in USED for row in rows)
    table = ShardRows.from_columns(
        {**one, "rejected": [rejected], "digest": [summary.digest], "short": [summary.short or ""]}
    )
    return Partial(gathered, index, table)
