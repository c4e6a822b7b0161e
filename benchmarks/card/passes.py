"""The pass over shards and targets on the card, split by stage."""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.card.bench import PRECISIONS, Bench, Found, attempted
from benchmarks.card.subject import Subject, subject
from vital.measuring.gathering import Batch, Plan, gather
from vital.measuring.targets import Attribution, Crop, measure
from vital.network.probe import CLASSES, probe
from vital.settings import Precision

if TYPE_CHECKING:
    from stores.shards.finding import ShardFile  # what needs more than the algorithm is skipped without it

RANKS, LEVELS = 50, 64
PHOTO = (375, 500)
"""Rows and columns of a made photograph: ImageNet's most frequent."""


def statistics(bench: Bench) -> Found:
    """Images a second of what a batch of a pass costs the device, by precision and batch."""
    here = subject(bench.tiny, bench.device)
    measured = tuple(dict.fromkeys((*here.nodes(here.layer)[1:], here.layer)))

    def gathered(batch: int, precision: Precision) -> float:
        plan = Plan((here.layer,), measured, RANKS, LEVELS, precision)
        pixels, rows = here.images(batch), np.arange(batch)
        keys = [str(row) for row in rows]
        return batch / bench.seconds_of(
            lambda: gather(here.model, here.survey, plan, Batch(pixels, rows, rows, keys)), 3
        )

    cases = [(precision, batch) for batch in ((4,) if bench.tiny else (32, 128)) for precision in PRECISIONS]
    return bench.each({f"images_per_s_{one}_{batch}": partial(gathered, batch, one) for one, batch in cases})


def references(bench: Bench) -> Found:
    """References a second of a task of targets, by precision."""
    here = subject(bench.tiny, bench.device)
    count = 4 if bench.tiny else 64

    def measured(layer: str, precision: Precision) -> float:
        crops = [Crop(image, (row % 4,)) for row, image in enumerate(here.images(count))]
        nodes, attribution = here.nodes(layer), Attribution.of(here.survey, layer, precision=precision)
        return count / bench.seconds_of(
            lambda: measure(here.model, attribution, range(4), crops, nodes),
            2,
        )

    cases = [(layer, precision) for layer in (here.layer, CLASSES) for precision in PRECISIONS]
    return bench.each({f"{layer}_{precision}": partial(measured, layer, precision) for layer, precision in cases})


def shards(bench: Bench) -> Found:
    """Two shards of made photographs: seconds of reading alone and of decoding, too, in one thread; of the copies to
    the device, with the forward passes, with all that is gathered. Images a second of what feeds the network and of the
    pass itself, with one decoder, with twice as many up to one for each core, and on a GPU with nvJPEG, with the
    greatest difference of its pixels."""
    from flows.jobs import cores
    from flows.running.process import LoadedModel
    from flows.steps.reading.feeding import BATCH, BATCH_ON_GPU, Feed, fed
    from flows.steps.reading.labels import BY_NUMBER
    from flows.steps.reading.shards import scan_shards
    from stores.shards.decoding import decode
    from stores.shards.finding import expand
    from stores.shards.reading import ShardReader

    here = subject(bench.tiny, bench.device)
    images = 6 if bench.tiny else 500
    measured = tuple(dict.fromkeys((*here.nodes(here.layer)[1:], here.layer)))
    plan = Plan((here.layer,), measured, RANKS, LEVELS)
    loaded = LoadedModel(here.model, here.survey)
    with tempfile.TemporaryDirectory() as place:
        written = write_shards(Path(place), 2, images)
        found: Found = {"bytes": written}
        files = expand((place,))
        begun = time.perf_counter()
        for file in files:
            for _ in ShardReader(file):
                pass
        found["read_s"], begun = time.perf_counter() - begun, time.perf_counter()
        for file in files:
            for sample in ShardReader(file):
                assert sample.image is not None
                here.model.preprocessing.crop(decode(sample.image))
        found["decode_s"] = time.perf_counter() - begun
        pixels, rows = here.images(32), np.arange(32)
        keys = [str(row) for row in rows]
        stages = {
            "copy_s": lambda: pixels.to(bench.device),
            "forward_s": lambda: _forward(here, pixels, measured),
            "device_s": lambda: gather(here.model, here.survey, plan, Batch(pixels, rows, rows, keys)),
        }
        found |= {name: bench.seconds_of(work, 3) * 2 * images / len(pixels) for name, work in stages.items()}
        batch = BATCH_ON_GPU if bench.on_gpu else BATCH

        def scanned(feed: Feed) -> Found:
            """Of both shards, first without the network, then with it; a shard before them is not counted."""
            scan_shards(files[:1], loaded, plan, BY_NUMBER, feed)
            begun = time.perf_counter()
            for _ in fed([ShardReader(file) for file in files], loaded, BY_NUMBER, feed, []):
                pass
            bench.wait()
            fed_s, begun = time.perf_counter() - begun, time.perf_counter()
            scan_shards(files, loaded, plan, BY_NUMBER, feed)
            whole = time.perf_counter() - begun
            return {"fed_images_per_s": 2 * images / fed_s, "images_per_s": 2 * images / whole}

        counts = sorted({*(2**power for power in range(cores().bit_length()) if 2**power <= cores()), cores()})
        feeds = {f"by_{decoders}": Feed(batch, decoders) for decoders in counts}
        if bench.on_gpu:
            feeds["by_nvjpeg"] = Feed(batch, cores(), "nvjpeg")
            found["nvjpeg_apart"] = attempted(lambda: _apart(here, files[0]))
        return found | {name: attempted(partial(scanned, feed)) for name, feed in feeds.items()}


def _apart(here: Subject, shard: ShardFile) -> int:
    """How far the pixels of a photograph are from a CPU's when nvJPEG has decoded it, in steps of 256."""
    from stores.shards.decoding import decode
    from stores.shards.reading import ShardReader
    from vital.network.sources import jpeg_decoder

    data = next(sample.image for sample in ShardReader(shard) if sample.image)
    preprocessing = here.model.preprocessing
    [image] = jpeg_decoder(here.device)([data])
    pixels = preprocessing.crop_decoded(image).cpu().int()
    return int((pixels - preprocessing.crop(decode(data)).int()).abs().max())


def _forward(here: Subject, pixels: Tensor, layers: tuple[str, ...]) -> None:
    with torch.inference_mode(), probe(here.model.network, layers, here.survey.layouts()) as run:
        run(here.model.preprocessing.normalise(pixels.to(here.device)))


def write_shards(folder: Path, count: int, images: int) -> int:
    """Shards of made photographs as JPEGs, some for all samples; returns their bytes."""
    from PIL import Image

    source = np.random.default_rng(0)
    files = []
    for _ in range(min(images, 16)):
        coarse = Image.fromarray(source.integers(0, 256, (PHOTO[0] // 8, PHOTO[1] // 8, 3), np.uint8))
        buffer = io.BytesIO()
        coarse.resize(PHOTO[::-1], Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=92)
        files.append(buffer.getvalue())
    size = 0
    for shard in range(count):
        with tarfile.open(folder / f"made-{shard:06d}.tar", "w") as tar:
            for number in range(images):
                for ending, content in (("jpg", files[number % len(files)]), ("cls", b"0")):
                    member: Any = tarfile.TarInfo(f"{shard:03d}{number:06d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                    size += len(content)
    return size
