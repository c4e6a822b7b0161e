"""How images reach the network: read, decoded by several threads, and stacked, while it computes on those before. What
comes first of a shard is decoded while the end of the one before it is computed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, islice
from typing import Any, NamedTuple

import torch
from jaxtyping import Num, UInt8
from torch import Tensor

from flows.jobs import ReferencesJob
from flows.running.process import LoadedModel, decoders_of
from flows.steps.images import bands_of
from flows.steps.reading.labels import Labels
from stores.errors import Status, UnreadableImage
from stores.shards.decoding import decode, jpeg_size
from stores.shards.reading import ShardReader, ShardSample
from stores.together import in_order
from vital.memory import out_of_memory, pinned
from vital.network.probe import CLASSES
from vital.network.sources import jpeg_decoder
from vital.settings import JpegDecoder

BATCH, BATCH_ON_GPU = 32, 128
"""Images forwarded together unless a job says how many. Fixed: what a shard adds must not depend on the machine."""

LONGEST = 100
"""Greatest ratio of an image's sides: the shorter is resized to the input, and the longer grows with it."""


@dataclass(frozen=True)
class Feed:
    """How images reach the network: so many together, decoded by so many threads, and JPEG files by what."""

    batch: int = BATCH
    decoders: int = 1
    jpeg: JpegDecoder = "simplejpeg"
    fixed: bool = False
    """Whether a batch that does not fit into memory is refused instead of halved."""

    @classmethod
    def of(cls, job: ReferencesJob, device: torch.device) -> Feed:
        """What a job says, and where it says nothing what suits the process; raises UnsuitableInput where the decoder
        does not do for the device."""
        if job.statistics.jpeg == "nvjpeg":
            jpeg_decoder(device)
        usual = BATCH if device.type == "cpu" else BATCH_ON_GPU
        batch, decoders = usual if job.batch == "auto" else job.batch, decoders_of(job.running, device)
        return cls(batch, decoders, job.statistics.jpeg, job.running.deterministic)


ALONE = Feed()
"""One thread decodes."""


class Read(NamedTuple):
    """A sample, the position of its shard among those that are read, and its own among all their samples."""

    shard: int
    image: int
    sample: ShardSample


_Sampled = tuple[int, ShardSample]
"""The position of a shard, and a sample of it."""
Batches = Generator[tuple[list[Read], Num[Tensor, "image colour side side"]]]


def fed(
    readers: Sequence[ShardReader], loaded: LoadedModel, labels: Labels, feed: Feed, rows: list[dict[str, Any]]
) -> Batches:
    """Batches of the usable samples of some shards and of their pixels, in order; every sample seen leaves its index
    row in ``rows``. No batch is of two shards, so that what one gives does not depend on those beside it.

    The next batch is read and decoded while one is computed, so that one more is in memory, whatever shard it is of.
    An error of a shard is raised after the batches that came before it, the last one of the shard before it may be
    among those lost.
    """
    batches, device = _batches(_usable(readers, loaded, labels, feed, rows), feed.batch, loaded.device), loaded.device
    if feed.jpeg == "nvjpeg" and device.type == "cuda":
        batches = _apart(batches, _stream(device), torch.cuda.current_stream(device))
    return _ahead(batches)


@dataclass(frozen=True)
class _Decoded:
    """What became of a sample's bytes: pixels, a JPEG file that a GPU will decode, or a status that says why not."""

    checksum: int
    status: Status
    pixels: Num[Tensor, "colour side side"] | None = None
    jpeg: bytes | None = None


def _usable(
    readers: Sequence[ShardReader], loaded: LoadedModel, labels: Labels, feed: Feed, rows: list[dict[str, Any]]
) -> Iterator[tuple[Read, Num[Tensor, "colour side side"]]]:
    classes = loaded.survey.layers.get(CLASSES)
    preprocessing, on_gpu = loaded.model.preprocessing, feed.jpeg == "nvjpeg"
    bands = bands_of(preprocessing)

    def decoded(sampled: _Sampled) -> _Decoded:
        _, sample = sampled
        checksum = zlib.crc32(sample.image or b"")
        if sample.status != Status.OK or sample.image is None:
            return _Decoded(checksum, sample.status)
        try:
            if on_gpu and bands.photographs and (size := jpeg_size(sample.image)):
                _refuse_long(sample, size)
                return _Decoded(checksum, sample.status, jpeg=sample.image)
            image = decode(sample.image, bands=bands)
            _refuse_long(sample, image.shape[:2])
            return _Decoded(checksum, sample.status, preprocessing.crop(image))
        except UnreadableImage as error:
            return _Decoded(checksum, error.status)

    samples = ((number, sample) for number, reader in enumerate(readers) for sample in reader)
    results = in_order(samples, decoded, feed.decoders, feed.batch + feed.decoders)
    with closing(results):
        for (shard, sample), result in _on_gpu(results, loaded, feed.batch) if on_gpu else results:
            status = result.status
            if status == Status.OK and classes is not None:
                _, status = labels.of_network(sample.label, classes.channels)
            read = Read(shard, len(rows), sample)
            rows.append(
                {
                    "shard": shard,
                    "offset": sample.offset,
                    "size": sample.size,
                    "label": sample.label,
                    "key": sample.key,
                    "status": status,
                    "checksum": result.checksum,
                }
            )
            if result.pixels is not None:
                yield read, result.pixels


def _refuse_long(sample: ShardSample, size: Sequence[int]) -> None:
    if max(size) > LONGEST * min(size):
        raise UnreadableImage(f"{sample.key} is more than {LONGEST} times longer than wide", Status.TOO_LARGE)


def _on_gpu(
    results: Iterator[tuple[_Sampled, _Decoded]], loaded: LoadedModel, batch: int
) -> Iterator[tuple[_Sampled, _Decoded]]:
    """The same samples, JPEG files decoded and cropped where the network is, some together. What nvJPEG does not take
    is decoded as everywhere else."""
    device, preprocessing = loaded.device, loaded.model.preprocessing
    decoder = jpeg_decoder(device)

    def pixels(file: bytes, image: UInt8[Tensor, "colour row column"] | None) -> Num[Tensor, "colour side side"]:
        return preprocessing.crop(decode(file)).to(device) if image is None else preprocessing.crop_decoded(image)

    while group := list(islice(results, batch)):
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
) -> list[UInt8[Tensor, "colour _row _column"] | None]:
    """The files decoded together, or where that fails each alone, None where it cannot be."""
    try:
        return [*decoder(files)] if files else []
    except RuntimeError as error:
        if out_of_memory(error) or len(files) == 1:
            return [None] * len(files)
    return [image for file in files for image in _all_or_each(decoder, [file])]


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """That of all decoding on a GPU: memory that is freed on a stream is kept for that stream."""
    return torch.cuda.Stream(device)


def _apart(batches: Batches, stream: torch.cuda.Stream, network: torch.cuda.Stream) -> Batches:
    """The same batches, made on a stream of their own beside that of the network, in memory of their own: what decodes
    JPEG files there may be given no memory that the network still reads."""
    with closing(batches):
        while True:
            with torch.cuda.stream(stream):
                batch = next(batches, None)
            if batch is None:
                return
            stream.synchronize()
            batch[1].record_stream(network)
            yield batch


def _ahead(batches: Batches) -> Batches:
    with closing(batches), ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        upcoming = reader.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = reader.submit(next, batches, None)
            yield batch


def _batches(
    samples: Iterator[tuple[Read, Num[Tensor, "colour side side"]]], size: int, device: torch.device
) -> Batches:
    """Images of a shard stacked by so many, `pinned` for the network's device."""
    for _, of_shard in groupby(samples, lambda one: one[0].shard):
        while batch := list(islice(of_shard, size)):
            yield [read for read, _ in batch], pinned(torch.stack([image for _, image in batch]), device)
