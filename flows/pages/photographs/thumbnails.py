"""Photographs of a data set as the network saw them, small enough for a page."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
from jaxtyping import Int
from PIL import Image

from flows.steps.images import bands_of, moved_urls
from stores import Statistics
from stores.arrays.display import as_shown
from stores.errors import MissingShard
from stores.files import safe_url
from stores.pages.content import Photo
from stores.shards.bands import RGB, Bands
from stores.shards.beside import read_class_names
from stores.shards.decoding import decode
from stores.shards.reading import read_images
from vital.measuring.kept.ranking import NOBODY
from vital.network.preprocessing import Preprocessing

SIDE = 160
QUALITY = 82


class Thumbnails:
    """The photographs behind the references of one statistics store."""

    def __init__(
        self,
        statistics: Statistics,
        shards: Sequence[str],
        credits_: Mapping[str, str],
        names: Sequence[str],
        shown: Sequence[int] = (),
    ) -> None:
        self.statistics, self._credits = statistics, credits_
        self._bands, self._shown = bands_of(Preprocessing.of(statistics.base)), tuple(shown)
        self._index, self._shards = statistics.index(), statistics.shards()
        self.side = int(statistics.base["input_size"])
        self.moved = moved_urls(statistics, shards)
        self._urls = [
            self.moved.get(str(name), str(url)) for name, url in zip(self._shards.name, self._shards.url, strict=True)
        ]
        # a class's references are the images labelled with its number, so the network's names serve too
        known = statistics.labels.get("classes") if statistics.labels else read_class_names(self._urls)
        self._names = known or list(names)
        self.shown: dict[str, str] = {}
        """Credits of the photographs that were asked for, by key."""

    def photo(
        self, image: int, score: float, box: tuple[float, float, float, float] | None, above: float | None = None
    ) -> Photo:
        """What the pages say of a photograph."""
        shard, label, key = int(self._index.shard[image]), int(self._index.label[image]), str(self._index.key[image])
        # what the file shows follows from where its bytes lie, how much of them is seen, and how it is made small
        parts = (str(self._shards.digest[shard]), str(self._shards.name[shard]), str(self._index.offset[image]))
        shown = () if self._bands.photographs else (str(self._bands), str(self._shown))
        how = (*parts, str(self.side), str(SIDE), str(QUALITY), *shown)
        name = hashlib.sha256("/".join(how).encode()).hexdigest()[:16]
        credit = self._credits.get(key, "")
        if credit:
            self.shown[key] = credit
        return Photo(name, key, score, self.name_of(label), credit, box, above)

    def name_of(self, label: int) -> str:
        """What a label is called."""
        return self._names[label] if 0 <= label < len(self._names) else f"class {label}" if label >= 0 else ""

    def labels(self, images: Int[np.ndarray, "neuron rank"]) -> Int[np.ndarray, "neuron rank"]:
        """The labels of images, −1 where there is none, and for `NOBODY`."""
        return np.where(images == NOBODY, -1, np.asarray(self._index.label)[images])

    def read(self, images: Mapping[str, int], pool: Executor) -> dict[str, bytes]:
        """JPEGs by name, of images by name; each shard is opened once, images in the order in which they lie.

        Raises:
            MissingShard: a shard is not where it was read from.
        """
        wanted = sorted((int(self._index.shard[image]), image, name) for name, image in images.items())
        made: dict[str, bytes] = {}
        for shard in sorted({shard for shard, _, _ in wanted}):
            inside = [(image, name) for one, image, name in wanted if one == shard]
            spans = [(int(self._index.offset[image]), int(self._index.size[image])) for image, _ in inside]
            try:
                contents = read_images(self._urls[shard], spans)
            except MissingShard:
                raise MissingShard(
                    f"there is no shard at {safe_url(self._urls[shard])}: say where the shards are with --shards, "
                    "or leave the photos out with --no-references"
                ) from None
            smaller = pool.map(lambda data: as_seen(data, self.side, self._bands, self._shown), contents)
            made |= {name: data for (_, name), data in zip(inside, smaller, strict=True)}
        return made


def as_seen(data: bytes, side: int, bands: Bands = RGB, shown: Sequence[int] = ()) -> bytes:
    """A small JPEG of what a network with an input of ``side`` pixels sees of an image: the middle of it; of the
    channels that are ``shown``, where it has other ``bands`` than colours."""
    image = Image.fromarray(as_shown(decode(data, bands=bands), shown))
    seen = side / round(side * 256 / 224) * min(image.size)
    left, top = (image.width - seen) / 2, (image.height - seen) / 2
    small = image.resize(
        (SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + seen, top + seen), reducing_gap=2
    )
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
