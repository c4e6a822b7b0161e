"""One shard from its bytes to its partial: samples, index rows, and what its images add to the statistics."""

from __future__ import annotations

import ctypes
import logging
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor, nn

from flows.jobs import ReferencesJob, cores
from flows.running.process import LoadedModel
from flows.running.progress import tick
from stores.arrays.provenance import safe_url
from stores.dataset.index import SampleRows, ShardRows
from stores.errors import USED, Status, UnreadableImage
from stores.shards.decoding import decode, in_order, jpeg_size
from stores.shards.finding import ShardFile
from stores.shards.reading import Sample, ShardReader
from vital.errors import DoesNotFit
from vital.measuring.gathering import Gathered, Gathering, Plan
from vital.network.probe import CLASSES
from vital.network.sources import jpeg_decoder
from vital.pictures.device import out_of_memory
from vital.settings import Decoder

logger = logging.getLogger(__name__)

BATCH, BATCH_ON_GPU = 32, 128
"""Images forwarded together unless a job says how many. Fixed: what a shard adds must not depend on the machine."""

LONGEST = 100
"""Greatest ratio of an image's sides: the shorter is resized to the input, and the longer grows with it."""


TASKS = 256
"""Tasks of a pass, at most: each costs the server some milliseconds, on Dask a tenth of a second."""


def shards_of_tasks(shards: Sequence[ShardFile]) -> list[tuple[ShardFile, ...]]:
    """Neighbouring shards for every task of a pass; what a shard adds does not depend on its task."""
    size = -(-len(shards) // TASKS)
    return [tuple(shards[start : start + size]) for start in range(0, len(shards), size)]


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

    def arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """As named arrays, for the partial's file."""
        rows = {f"samples/{name}": column for name, column in self.samples.columns().items()}
        shards = {f"shards/{name}": column for name, column in self.shards.columns().items()}
        return {f"gathered/{name}": array for name, array in self.gathered.arrays().items()} | rows | shards

    @classmethod
    def from_arrays(cls, arrays: dict[str, Shaped[np.ndarray, "..."]]) -> Partial:
        """What `arrays` gave."""

        def below(folder: str) -> dict[str, Any]:
            return {path.removeprefix(folder): array for path, array in arrays.items() if path.startswith(folder)}

        return cls(
            Gathered.from_arrays(below("gathered/")),
            SampleRows.from_columns(below("samples/")),
            ShardRows.from_columns(below("shards/")),
        )

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


@dataclass(frozen=True)
class Feed:
    """How images reach the network: so many together, decoded by so many threads, and JPEG files by which decoder."""

    batch: int = BATCH
    decoders: int = 1
    decoder: Decoder = "simplejpeg"
    fixed: bool = False
    """Whether a batch that does not fit into memory is refused instead of halved."""

    @classmethod
    def of(cls, job: ReferencesJob, device: torch.device) -> Feed:
        """What a job says, and where it says nothing what suits the process; raises UnsuitableInput where the decoder
        does not do for the device."""
        if job.statistics.decoder == "nvjpeg":
            jpeg_decoder(device)
        usual = BATCH if device.type == "cpu" else BATCH_ON_GPU
        decoders = job.running.decoders or cores()
        return cls(
            usual if job.batch == "auto" else job.batch, decoders, job.statistics.decoder, job.running.deterministic
        )


_fitting: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Images that fit into memory together, where more of a network's did not."""


def scan_shard(shard: ShardFile, loaded: LoadedModel, plan: Plan, feed: Feed = Feed()) -> Partial:
    """Stream a shard once. An image that cannot be used is an index row that says why; the shard goes on.

    Reading, decoding, copying to the device and computing go on side by side. Images that do not fit into memory
    together are halved: the shard is begun anew, and later shards of this process with as few.

    Raises:
        DoesNotFit: one image alone does not fit.
    """
    batch = min(feed.batch, _fitting.get(loaded.model.network, feed.batch))
    while (found := _scanned(shard, loaded, plan, replace(feed, batch=batch))) is None:
        if batch == 1:
            raise DoesNotFit("one image does not fit into memory: take a device with more, or a smaller --input-size")
        if feed.fixed:
            raise DoesNotFit(
                f"{batch} images together do not fit into memory and a batch of fixed size is not halved: "
                f"give --batch {batch // 2}"
            )
        batch //= 2
        logger.warning(
            "%d images together did not fit into memory: %s begun anew with %d", 2 * batch, shard.name, batch
        )
        _fitting[loaded.model.network] = batch
        give_back()
    return found


def _scanned(shard: ShardFile, loaded: LoadedModel, plan: Plan, feed: Feed) -> Partial | None:
    """What `scan_shard` gives; None where so many images do not fit into memory together."""
    reader = ShardReader(shard)
    rows: list[dict[str, Any]] = []
    gathering = Gathering(loaded.model, loaded.survey, plan)
    before, seen = 0, 0
    with closing(_ahead(_batches(_usable(reader, loaded, feed, rows), feed.batch))) as batches:
        for samples, pixels in batches:
            try:
                gathering.add(
                    pixels,
                    np.array([sample.row for sample in samples]),
                    np.array([sample.label for sample in samples]),
                    [sample.key for sample in samples],
                )
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                tick(-seen, -before)
                return None
            read = samples[-1].offset + samples[-1].size
            tick(len(samples), read - before)
            before, seen = read, seen + len(samples)
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


@dataclass(frozen=True)
class _Decoded:
    """What became of a sample's bytes: pixels, a JPEG file that a GPU will decode, or a status that says why not."""

    checksum: int
    status: Status
    pixels: UInt8[Tensor, "3 side side"] | None = None
    jpeg: bytes | None = None


def _usable(
    reader: ShardReader, loaded: LoadedModel, feed: Feed, rows: list[dict[str, Any]]
) -> Iterator[tuple[Sample, UInt8[Tensor, "3 side side"]]]:
    """Decoded samples; every sample seen leaves its index row in ``rows``."""
    classes = loaded.survey.layers.get(CLASSES)
    preprocessing, on_gpu = loaded.model.preprocessing, feed.decoder == "nvjpeg"

    def decoded(sample: Sample) -> _Decoded:
        checksum = zlib.crc32(sample.image or b"")
        if sample.status != Status.OK or sample.image is None:
            return _Decoded(checksum, sample.status)
        try:
            if on_gpu and (size := jpeg_size(sample.image)):
                _refuse_long(sample, size)
                return _Decoded(checksum, sample.status, jpeg=sample.image)
            image = decode(sample.image)
            _refuse_long(sample, image.shape[:2])
            return _Decoded(checksum, sample.status, preprocessing.crop(image))
        except UnreadableImage as error:
            return _Decoded(checksum, error.status)

    found = in_order(reader, decoded, feed.decoders, feed.batch + feed.decoders)
    with closing(found):
        for sample, result in _on_gpu(found, loaded, feed.batch) if on_gpu else found:
            status = result.status
            if status == Status.OK and classes is not None and sample.label >= classes.channels:
                status = Status.FOREIGN_LABEL
            rows.append(
                {
                    "offset": sample.offset,
                    "size": sample.size,
                    "label": sample.label,
                    "key": sample.key,
                    "status": status,
                    "checksum": result.checksum,
                }
            )
            if result.pixels is not None:
                yield sample, result.pixels


def _refuse_long(sample: Sample, size: Sequence[int]) -> None:
    if max(size) > LONGEST * min(size):
        raise UnreadableImage(f"{sample.key} is more than {LONGEST} times longer than wide", Status.TOO_LARGE)


def _on_gpu(
    found: Iterator[tuple[Sample, _Decoded]], loaded: LoadedModel, batch: int
) -> Iterator[tuple[Sample, _Decoded]]:
    """The same samples, JPEG files decoded and cropped where the network is, some together. What nvJPEG does not take
    is decoded as everywhere else."""
    device, preprocessing = next(loaded.model.network.parameters()).device, loaded.model.preprocessing
    decoder = jpeg_decoder(device)

    def pixels(file: bytes, image: UInt8[Tensor, "3 row column"] | None) -> UInt8[Tensor, "3 side side"]:
        return preprocessing.crop(decode(file)).to(device) if image is None else preprocessing.crop_decoded(image)

    while group := list(islice(found, batch)):
        files = [one.jpeg for _, one in group if one.jpeg is not None]
        images = iter(_all_or_each(decoder, files))
        for sample, one in group:
            if one.jpeg is None:
                yield sample, one if one.pixels is None else replace(one, pixels=one.pixels.to(device))
                continue
            try:
                yield sample, replace(one, pixels=pixels(one.jpeg, next(images)), jpeg=None)
            except UnreadableImage as error:
                yield sample, _Decoded(one.checksum, error.status)


def _all_or_each(
    decoder: Callable[[Sequence[bytes]], list[Tensor]], files: Sequence[bytes]
) -> list[UInt8[Tensor, "3 _row _column"] | None]:
    """The files decoded together, or where that fails each alone, None where it cannot be."""
    try:
        return [*decoder(files)] if files else []
    except RuntimeError as error:
        if out_of_memory(error) or len(files) == 1:
            return [None] * len(files)
    return [image for file in files for image in _all_or_each(decoder, [file])]


Batches = Generator[tuple[list[Sample], UInt8[Tensor, "image 3 side side"]]]


def _ahead(batches: Batches) -> Batches:
    """The same batches, the next one read and decoded while this one is computed; one more is in memory."""
    with closing(batches), ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        upcoming = reader.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = reader.submit(next, batches, None)
            yield batch


def _batches(samples: Iterator[tuple[Sample, UInt8[Tensor, "3 side side"]]], size: int) -> Batches:
    """Images stacked by so many; in memory that a GPU copies by itself, where there is one."""
    while batch := list(islice(samples, size)):
        pixels = torch.stack([image for _, image in batch])
        pinned = torch.cuda.is_available() and not pixels.is_cuda
        yield [sample for sample, _ in batch], pixels.pin_memory() if pinned else pixels


def give_back() -> None:
    """Hand what is freed back to the system, wherever it lies; nothing happens where the C library knows no such call.

    glibc keeps freed pieces that lie between used ones. A pass decodes images of all sizes, so those pieces grow in
    number with the images seen, and its memory with the number of shards. Once a shard this costs some milliseconds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
