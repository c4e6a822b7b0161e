"""Images read again from their shards: each is read and decoded once, each crop of it is cut once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from stores import References, Statistics
from stores.errors import UnreadableShard
from stores.files import safe_url
from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import read_images
from vital.measuring.ranking import NOBODY
from vital.network.preprocessing import Preprocessing

READ_AHEAD = 64
"""Images read in one go; bounds the memory of a block's references."""


def moved_urls(statistics: Statistics, patterns: Sequence[str]) -> dict[str, str]:
    """Where the store's shards are now, by base name, as ``patterns`` say.

    Raises:
        UnreadableShard: a shard has the name of one that was read, but another size.
    """
    known = {shard.name: shard.size for shard in statistics.shards().identities()}
    given = expand(patterns) if patterns else []
    for shard in given:
        then = known.get(shard.name, -1)
        if -1 not in (then, shard.size) and then != shard.size:
            raise UnreadableShard(
                f"{safe_url(shard.url)} has {shard.size} bytes but the store read {then} under this name: give the "
                "shard that was read, or make another store"
            )
    return {shard.name: shard.url for shard in given}


def load_images(
    statistics: Statistics, images: Sequence[int], preprocessing: Preprocessing, urls: Mapping[str, str]
) -> Iterator[tuple[int, UInt8[Tensor, "3 side side"]]]:
    """Images by id in ascending order, each read by (shard, offset, size) and decoded once. ``urls``: base name to
    where a shard is now."""
    index, shards = statistics.index(), statistics.shards()
    wanted = np.unique(np.asarray(images, np.int64))
    for start in range(0, len(wanted), READ_AHEAD):
        part = wanted[start : start + READ_AHEAD]
        for shard in np.unique(index.shard[part]):
            ids = part[index.shard[part] == shard]
            url = urls.get(str(shards.name[shard]), str(shards.url[shard]))
            spans = [(int(index.offset[one]), int(index.size[one])) for one in ids]
            for one, data in zip(ids, read_images(url, spans), strict=True):
                if zlib.crc32(data) != index.checksum[one]:
                    raise UnreadableShard(
                        f"{shards.name[shard]} at {safe_url(url)} holds other bytes than when the store read it (image "
                        f"{index.key[one]!s}, checksum {zlib.crc32(data)} now, {index.checksum[one]} then); give the "
                        "shard that was read, or make another store"
                    )
                yield int(one), preprocessing.crop(decode(data))


Box = tuple[int, ...]
"""Top, left, height, width, in pixels of the network's input."""


def reference_crops(
    statistics: Statistics,
    preprocessing: Preprocessing,
    references: References,
    whole: bool,
    neurons: Sequence[int],
    urls: Mapping[str, str],
) -> Iterator[tuple[UInt8[Tensor, "3 side side"], tuple[int, ...]]]:
    """Every distinct image and box once, in ascending order, with the positions in ``neurons`` of those that share it;
    the box is the reference's patch, or the ``whole`` image."""
    edges = (0, 0, preprocessing.side, preprocessing.side)
    wanted: dict[int, dict[Box, list[int]]] = {}
    for position, neuron in enumerate(neurons):
        for image, patch in zip(references.image[neuron], references.box[neuron], strict=True):
            if image != NOBODY:
                box = edges if whole else tuple(map(int, patch))
                wanted.setdefault(int(image), {}).setdefault(box, []).append(position)
    for image, pixels in load_images(statistics, list(wanted), preprocessing, urls):
        for box, positions in sorted(wanted[image].items()):
            yield preprocessing.cut(pixels, box), tuple(positions)
