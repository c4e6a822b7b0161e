"""Some shards from their bytes to their partial: samples, index rows, and what their images add to the statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
from vital.measuring.gathering import Batch, Gathered, Gathering, Plan
from vital.memory import fitting, give_back
from vital.network.probe import CLASSES


def bytes_of(shards: Sequence[ShardFile]) -> int:
    """Size of some shards together, as far as it is known."""
    return sum(max(shard.size, 0) for shard in shards)


@dataclass(frozen=True)
class Partial:
    """What neighbouring shards add. Image ids and shards count from the first of them."""

    gathered: Gathered
    samples: SampleRows
    shards: ShardRows


_fitting: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Images that fit into memory together, where more of a network's did not."""


def scan_shards(
    shards: Sequence[ShardFile], loaded: LoadedModel, plan: Plan, labels: Labels, feed: Feed = ALONE
) -> Partial:
    """Stream shards once, one after the other. An image that cannot be used is an index row that says why; the pass
    goes on.

    Reading, decoding, copying to the device and computing go on side by side, also where one shard ends and the next
    begins: sums stay on the device until the last one has ended. Images that do not fit into memory together are
    halved: these shards are begun anew, and later ones of this process with as few.

    Raises:
        DoesNotFit: one image alone does not fit, or so many together do not and ``feed`` says that they are fixed.
    """
    network = loaded.model.network

    def scanned(batch: int) -> Partial:
        if batch < feed.batch:
            _fitting[network] = batch
            give_back()
        return _scanned(shards, loaded, plan, labels, replace(feed, batch=batch))

    way_out = "take a smaller --input-size, or a device with more memory"
    return fitting(min(feed.batch, _fitting.get(network, feed.batch)), scanned, "image", feed.fixed, way_out)


def _scanned(shards: Sequence[ShardFile], loaded: LoadedModel, plan: Plan, labels: Labels, feed: Feed) -> Partial:
    """What `scan_shards` gives; where so many images do not fit into memory together, what was told of them is taken
    back."""
    rule, photographs = labels.rule(loaded), bands_of(loaded.model.preprocessing).photographs
    readers = [ShardReader(shard, rule, photographs) for shard in shards]
    classes = loaded.survey.layers.get(CLASSES)
    count = 0 if classes is None else classes.channels
    rows: list[dict[str, Any]] = []
    gathering = Gathering(loaded.model, loaded.survey, plan)
    shard, before, told = 0, _begins(shards[0]), [0, 0]
    with closing(fed(readers, loaded, labels, feed, rows)) as batches:
        for read, pixels in batches:
            if read[0].shard != shard:
                shard = read[0].shard
                before = _begins(shards[shard])
                give_back()
            try:
                gathering.add(
                    Batch(
                        pixels,
                        np.array([one.image for one in read]),
                        np.array([labels.of_network(one.sample.label, count)[0] for one in read]),
                        [one.sample.key for one in read],
                    )
                )
            except (MemoryError, RuntimeError):
                tick(-told[0], -told[1])
                raise
            first, last = read[0].sample, read[-1].sample
            seen = last.offset + last.size
            # the images of a part of a folder do not begin at byte 0
            news = len(read), seen - (first.offset if before < 0 else before)
            tick(*news)
            before, told = seen, [had + new for had, new in zip(told, news, strict=True)]
    gathered = gathering.gathered()
    give_back()
    return Partial(gathered, _samples(rows), _table(shards, readers, rows))


def _begins(shard: ShardFile) -> int:
    """The byte that a shard's images begin at; −1 where the first of them tells."""
    return 0 if shard.part is None else -1


def _samples(rows: Sequence[dict[str, Any]]) -> SampleRows:
    columns = ("shard", "offset", "size", "label", "key", "status", "checksum")
    return SampleRows.from_columns({name: [row[name] for row in rows] for name in columns})


def _table(shards: Sequence[ShardFile], readers: Sequence[ShardReader], rows: Sequence[dict[str, Any]]) -> ShardRows:
    """What is known of each shard when all were read."""
    images = Counter(row["shard"] for row in rows)
    rejected = Counter(row["shard"] for row in rows if row["status"] not in USED)
    return ShardRows.from_columns(
        {
            "name": [shard.name for shard in shards],
            "url": [safe_url(shard.url) for shard in shards],
            "size": [shard.size for shard in shards],
            "images": [images[number] for number in range(len(shards))],
            "rejected": [rejected[number] for number in range(len(shards))],
            "digest": [reader.summary.digest for reader in readers],
            "short": [reader.summary.short or "" for reader in readers],
        }
    )
