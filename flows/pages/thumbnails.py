"""Reference photographs as the network saw them, small enough for a page; the patch is a box on them."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from flows.steps.images import bands_of, moved_urls
from flows.steps.targets import variant_of
from stores import References, Sample, Statistics
from stores.arrays.display import as_shown
from stores.dataset.references import LOWEST
from stores.errors import MissingShard, SchemaMismatch
from stores.files import safe_url
from stores.pages.content import Photo
from stores.shards.bands import RGB, Bands
from stores.shards.beside import read_class_names
from stores.shards.decoding import decode
from stores.shards.reading import read_images
from vital.measuring.ranking import NOBODY
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES

MOST, LEAST = 9, 4
"""References of a neuron on its page, and photographs of its least activation."""
LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Of the peaks over the data set, at which photographs are shown."""
POOL = 200
"""Images that these are taken from, the same for all neurons and layers: a site has at most so many more files of about
6 kB, and levels are met to within three in a hundred (the deviation of a share of one half is 1 / √(4 · 200))."""
SIDE = 160
QUALITY = 82


class Photographs:
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
        self._bands, self._view = bands_of(Preprocessing.of(statistics.base)), tuple(shown)
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

    def of_layer(self, layer: str, variant: str) -> LayerPhotographs:
        """The references that a variant's targets were measured from."""
        return LayerPhotographs(self, layer, variant)

    def photo(
        self, image: int, score: float, box: tuple[float, float, float, float] | None, above: float | None = None
    ) -> Photo:
        """What the pages say of a photograph."""
        shard, label, key = int(self._index.shard[image]), int(self._index.label[image]), str(self._index.key[image])
        # what the file shows follows from where its bytes lie, how much of them is seen, and how it is made small
        parts = (str(self._shards.digest[shard]), str(self._shards.name[shard]), str(self._index.offset[image]))
        view = () if self._bands.photographs else (str(self._bands), str(self._view))
        how = (*parts, str(self.side), str(SIDE), str(QUALITY), *view)
        name = hashlib.sha256("/".join(how).encode()).hexdigest()[:16]
        credit = self._credits.get(key, "")
        if credit:
            self.shown[key] = credit
        known = self._names[label] if 0 <= label < len(self._names) else f"class {label}" if label >= 0 else ""
        return Photo(name, key, score, known, credit, box, above)

    def key(self, image: int) -> str:
        """The key of an image."""
        return str(self._index.key[image])

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
            smaller = pool.map(lambda data: as_seen(data, self.side, self._bands, self._view), contents)
            made |= {name: data for (_, name), data in zip(inside, smaller, strict=True)}
        return made


@dataclass(frozen=True)
class Shown:
    """A photograph on a neuron's page: its image id, and whether it is there for the neuron's least activation."""

    image: int
    lowest: bool = False


@dataclass(frozen=True)
class NeuronPhotographs:
    """What is shown of one neuron: its references, best first; photographs from its strongest to its weakest; and those
    of its least activation. ``shown`` has all of them in this order. Where it has several facets, the references are of
    the first, and ``facets`` has those of further ones by number."""

    references: Sequence[Photo]
    across: Sequence[Photo]
    lowest: Sequence[Photo]
    shown: Sequence[Shown]
    facets: Mapping[int, Sequence[Photo]]


class LayerPhotographs:
    """The photographs of the neurons of a layer."""

    def __init__(self, photographs: Photographs, layer: str, variant: str) -> None:
        statistics = photographs.statistics
        self._targets = statistics.targets(layer, variant)
        settings = variant_of(self._targets)
        self._all, self._classes = photographs, layer == CLASSES
        self._references = statistics.references(layer, settings.references)
        self._shown: set[int] = set()
        self._whole = variant.startswith("image")
        self._lowest = statistics.references(layer + LOWEST) if layer + LOWEST in statistics.ranked() else None
        try:
            self._sample = statistics.sample(layer)
        except SchemaMismatch:  # the store was made without one: then only the ends are known
            self._sample = Sample(np.zeros(0, np.int64), np.zeros((0, len(self._references.image)), np.float32))

    def of(self, neurons: Sequence[int]) -> tuple[dict[int, NeuronPhotographs], dict[str, int]]:
        """The photographs of some neurons, and the image ids by the photographs' names."""
        found: dict[int, NeuronPhotographs] = {}
        images: dict[str, int] = {}
        facets = self._targets.reference_facets(neurons)
        for position, neuron in enumerate(neurons):
            of = None if facets is None else facets[position]
            first, *further = self._by_facet(neuron, of)
            parts = (
                first,
                self._across(neuron),
                self._best(self._lowest, neuron, range(LEAST), False) if self._lowest else [],
            )
            images |= {photo.file: image for part in (*parts, *further) for photo, image in part}
            shown = [Shown(image, place == 2) for place, part in enumerate(parts) for _, image in part]
            references, across_all, lowest = ([photo for photo, _ in part] for part in parts)
            others = {number: [photo for photo, _ in part] for number, part in enumerate(further, 1)}
            found[neuron] = NeuronPhotographs(references, across_all, lowest, shown, others)
        self._shown.update(images.values())
        return found, images

    def seen_by(self, neurons: Sequence[int]) -> dict[str, list[int]]:
        """By the key of each photograph that was asked for, those of the neurons that have it among their references;
        where it stands nearest to the best, first."""
        images = self._references.image[list(neurons)]
        row, rank = np.nonzero(np.isin(images, list(self._shown)))
        found: dict[int, list[int]] = {}
        for one in np.lexsort((row, rank)):
            found.setdefault(int(images[row[one], rank[one]]), []).append(int(neurons[row[one]]))
        return {self._all.key(image): named for image, named in sorted(found.items())}

    def _by_facet(self, neuron: int, facets: Int[np.ndarray, "rank"] | None) -> list[list[tuple[Photo, int]]]:
        """Up to `MOST` references of each facet, best first; of a neuron without facets those of one."""
        of = np.zeros(self._references.image.shape[1], int) if facets is None else facets
        return [
            self._best(self._references, neuron, np.flatnonzero(of == facet)[:MOST].tolist(), self._whole)
            for facet in range(max(0, int(of.max(initial=0))) + 1)
        ]

    def _best(self, references: References, neuron: int, ranks: Sequence[int], whole: bool) -> list[tuple[Photo, int]]:
        shown = []
        for rank in ranks:
            image = references.image[neuron, rank] if rank < references.image.shape[1] else NOBODY
            if image == NOBODY:
                continue
            edges = [float(edge) / self._all.side for edge in references.box[neuron, rank]]
            box = None if whole or edges[2] >= 1 else (edges[0], edges[1], edges[2], edges[3])
            # members of a class are chosen by a number drawn from their keys, which is no activation
            score = math.nan if self._classes else float(references.score[neuron, rank])
            shown.append((self._all.photo(int(image), score, box), int(image)))
        return shown

    def _across(self, neuron: int) -> list[tuple[Photo, int]]:
        peaks = self._sample.peak[:, neuron]
        return [
            (self._all.photo(image, float(peaks[row]), None, above), image)
            for row, above in across(peaks)
            for image in [int(self._sample.image[row])]
        ]


def across(peaks: Float[np.ndarray, "image"]) -> list[tuple[int, float]]:
    """Images from a neuron's strongest to its weakest: those nearest to nine tenths of all peaks, to eight, and so on,
    and the weakest; each with the share of images that have a lesser peak, equal ones counted half.

    They are taken from `POOL` of the images, so that neurons share them. Of equal peaks, which a neuron that is silent
    on most images has many of, one image is shown.

    >>> across(np.arange(5.0))
    [(4, 0.9), (3, 0.7), (2, 0.5), (1, 0.3), (0, 0.1)]
    """
    if not len(peaks):
        return []
    pool = np.unique(np.linspace(0, len(peaks) - 1, min(POOL, len(peaks))).round().astype(int))
    ordered = np.sort(peaks)
    shares = (np.searchsorted(ordered, peaks[pool]) + np.searchsorted(ordered, peaks[pool], "right")) / (2 * len(peaks))
    chosen = [int(np.abs(shares - level).argmin()) for level in LEVELS] + [int(shares.argmin())]
    # of equal peaks the first has the place: they have the same share
    found = {float(shares[place]): int(pool[place]) for place in reversed(chosen)}
    return [(row, share) for share, row in sorted(found.items(), reverse=True)]


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
