"""Images read again from their shards: each is read and decoded once, each crop of it is cut once.

Neighbours are asked for in one request, many requests are under way together, and several threads decode, all while
the images before them are computed with.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Num
from torch import Tensor

from stores import References, Statistics
from stores.dataset.kept.places import Places
from stores.errors import UnreadableShard
from stores.files import local_path, safe_url
from stores.shards.bands import Bands
from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import read_spans
from vital.measuring.kept.ranking import NOBODY
from vital.network.preprocessing import Preprocessing

AHEAD = 128
"""Images that are read and decoded before they are asked for: of 224 pixels 19 MB."""
TOGETHER, READERS = 32, 4
"""Images that a service is asked for in one go, all their requests under way together; a quarter of them of a disk, so
that the first are decoded soon. So many readers at a time."""


def moved_urls(statistics: Statistics, patterns: Sequence[str]) -> dict[str, str]:
    """Where the store's shards are now, by base name, as ``patterns`` say; those that are where they were read are left
    out. Every shard costs requests: once a run.

    Raises:
        UnreadableShard: a shard has the name of one that was read, but another size.
    """
    if not patterns:
        return {}
    shards = statistics.shards()
    known = {
        str(name): (int(size), str(url)) for name, size, url in zip(shards.name, shards.size, shards.url, strict=True)
    }
    moved = {}
    for shard in expand(patterns):
        then, url = known.get(shard.name, (-1, ""))
        if -1 not in (then, shard.size) and then != shard.size:
            raise UnreadableShard(
                f"{safe_url(shard.url)} has {shard.size} bytes but the store read {then} under this name: give the "
                "shard that was read, or make another store"
            )
        if url not in ("", shard.url):
            moved[shard.name] = shard.url
    return moved


def bands_of(preprocessing: Preprocessing) -> Bands:
    """What images a network takes, as readers of files know it."""
    return Bands(preprocessing.channels, preprocessing.black, preprocessing.white)


def load_images(
    statistics: Statistics,
    images: Sequence[int],
    preprocessing: Preprocessing,
    urls: Mapping[str, str],
    decoders: int = 1,
) -> Iterator[tuple[int, Num[Tensor, "colour side side"]]]:
    """Images by id in ascending order. ``urls``: base name to where a shard is now, where it moved."""
    places = statistics.places(images)
    return read_placed(StoredImages(statistics, preprocessing, urls, decoders), places, range(len(places)))


@dataclass(frozen=True)
class StoredImages:
    """The images that a store knows, as they are read again for a network."""

    statistics: Statistics
    preprocessing: Preprocessing
    urls: Mapping[str, str]
    """Base name to where a shard is now, where it moved."""
    decoders: int = 1
    """Threads that decode."""
    ahead: int = AHEAD
    """Images that are in memory before they are asked for, beside what is on the way."""


def read_placed(
    source: StoredImages, places: Places, order: Sequence[int]
) -> Iterator[tuple[int, Num[Tensor, "colour side side"]]]:
    """The images of ``places`` in the ``order`` of its rows, with their ids.

    Raises:
        MissingShard: a shard is not where it should be.
        UnreadableShard: it holds other bytes than when the store read it.
    """
    statistics, preprocessing = source.statistics, source.preprocessing
    shards, bands = statistics.shards(), bands_of(preprocessing)
    where = [source.urls.get(str(name), str(url)) for name, url in zip(shards.name, shards.url, strict=True)]
    remote = any(local_path(where[shard]) is None for shard in np.unique(places.shard))
    size = TOGETHER if remote else TOGETHER // 4
    pool = ThreadPoolExecutor(source.decoders, thread_name_prefix="decode")

    def made(row: int, data: bytes) -> Num[Tensor, "colour side side"]:
        if zlib.crc32(data) != places.checksum[row]:
            [key], shard = statistics.keys([int(places.image[row])]), places.shard[row]
            raise UnreadableShard(
                f"{shards.name[shard]} at {safe_url(where[shard])} holds other bytes than when the store read it "
                f"(image {key}, checksum {zlib.crc32(data)} now, {places.checksum[row]} then); give the shard that was "
                "read, or make another store"
            )
        return preprocessing.crop(decode(data, bands=bands))

    def fetched(rows: Sequence[int]) -> list[Future[Tensor]]:
        contents = read_spans(
            [(where[places.shard[row]], int(places.offset[row]), int(places.size[row])) for row in rows]
        )
        return [pool.submit(made, row, data) for row, data in zip(rows, contents, strict=True)]

    under_way: deque[tuple[Sequence[int], Future[list[Future[Tensor]]]]] = deque()
    waiting = 0
    try:
        for start in range(0, len(order) + size, size):
            rows = order[start : start + size]
            while under_way and (not rows or waiting + len(rows) > source.ahead):
                first, reading = under_way.popleft()
                for row, image in zip(first, reading.result(), strict=True):
                    yield int(places.image[row]), image.result()
                waiting -= len(first)
            if rows:
                under_way.append((rows, _readers().submit(fetched, rows)))
                waiting += len(rows)
    finally:
        for _, reading in under_way:
            reading.cancel()
        pool.shutdown(cancel_futures=True)


@lru_cache(maxsize=1)
def _readers() -> ThreadPoolExecutor:
    """Kept: fsspec makes a client of its own for every thread."""
    return ThreadPoolExecutor(READERS, thread_name_prefix="read")


Box = tuple[int, ...]
"""Top, left, height, width, in pixels of the network's input."""


def reference_crops(
    source: StoredImages, references: References, places: Places, whole: bool
) -> Iterator[tuple[Num[Tensor, "colour side side"], tuple[int, ...]]]:
    """Every distinct image and box of some neurons' ``references`` once, with the rows of these that share it; the box
    is the reference's patch, or the ``whole`` image. ``places`` say where the images are.

    Images that are shared by many come first, equally many in the order in which they lie: so neighbours are read
    together, and what is measured together has equally many neurons.
    """
    edges = (0, 0, source.preprocessing.side, source.preprocessing.side)
    wanted: dict[int, dict[Box, list[int]]] = {}
    for position in range(len(references.image)):
        for image, patch in zip(references.image[position], references.box[position], strict=True):
            if image != NOBODY:
                box = edges if whole else tuple(map(int, patch))
                wanted.setdefault(int(image), {}).setdefault(box, []).append(position)
    shared = [max(map(len, wanted[int(image)].values())) for image in places.image]
    order = sorted(range(len(places)), key=lambda row: -shared[row])
    for image, pixels in read_placed(source, places, order):
        for box, positions in sorted(wanted[image].items()):
            yield source.preprocessing.cut(pixels, box), tuple(positions)
