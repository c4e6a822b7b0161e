"""The pass over shards against decoding and the bare forward: `python benchmarks/statistics.py --json`.

``throughput_resnet50`` and ``throughput_lite0`` are images a second of the pass over those of decoding and a bare
forward to the same layer, one after the other, in the same process: the default nodes, 64 levels, the best 50 images of
each channel. ``processor_…`` is the same of processor time, which says more on a machine that does other things, too.
``throughput_…_by_N`` is with N threads that decode, else there is one. ``decoding_by_N`` is how many times as fast
images are read, decoded and stacked with N of them as with one. ``partial_bytes`` is what a shard leaves behind until
it is merged. ``memory_growth`` is the peak memory of a whole run over 16 shards against one over 2, less 1;
``peak_bytes`` that of the larger (resnet50, its default nodes).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from itertools import cycle, islice
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import torch

from benchmarks.command import peak_bytes
from flows.jobs import Running, cores
from flows.running.process import LoadedModel, load
from flows.steps.reading.feeding import BATCH, Feed, fed
from flows.steps.reading.labels import BY_NUMBER
from flows.steps.reading.merging import write_partial
from flows.steps.reading.shards import scan_shards
from stores.shards.decoding import decode
from stores.shards.finding import ShardFile, expand
from stores.shards.reading import ShardReader
from vital.measuring.gathering import Plan
from vital.measuring.image_sums import ImageTotal
from vital.measuring.kept.ranking import Ranker, Ranking
from vital.network.nodes import default_nodes
from vital.network.probe import probe
from vital.settings import ModelSettings

RANKS, LEVELS = 50, 64
MODELS = {
    "resnet50": (ModelSettings(name="resnet50", weights="random"), "layer4"),
    "lite0": (ModelSettings(), "_blocks.15"),
}
SMALL = {"squeezenet": (ModelSettings(name="squeezenet1_1", weights="random", input_size=64), "features.12")}


def write_shards(folder: Path, shards: int, images: int) -> None:
    """Shards of the embedded photographs, over and over, each sample under a key of its own."""
    folder.mkdir(parents=True)
    sources = expand((str(resources.files("flows.demo")),))
    photos = cycle([sample.image for source in sources for sample in ShardReader(source) if sample.image])
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:06d}.tar", "w") as tar:
            for number, photo in enumerate(islice(photos, images)):
                member = tarfile.TarInfo(f"{shard:03d}{number:06d}.jpg")
                member.size = len(photo)
                tar.addfile(member, io.BytesIO(photo))


def plan_of(here: LoadedModel, layer: str) -> Plan:
    """The layer ranked, it and its default nodes measured."""
    nodes = default_nodes(here.survey, layer, here.model.name)
    return Plan((layer,), tuple(dict.fromkeys((*nodes, layer))), RANKS, LEVELS)


def took(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that passed, and those of processors."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - used


def bare(here: LoadedModel, layer: str, shard: ShardFile) -> None:
    """Read, decode and forward to ``layer`` every image of a shard."""
    crops = []
    with torch.inference_mode(), probe(here.model.network, [layer]) as run:
        for sample in ShardReader(shard):
            if sample.image:
                crops.append(here.model.preprocessing.crop(decode(sample.image)))
            if len(crops) == BATCH:
                run(here.model.preprocessing.normalise(torch.stack(crops)))
                crops = []
        if crops:
            run(here.model.preprocessing.normalise(torch.stack(crops)))


def decoded(here: LoadedModel, shard: ShardFile, decoders: int) -> None:
    """Read, decode and stack every image of a shard, and nothing more."""
    for _ in fed([ShardReader(shard)], here, BY_NUMBER, Feed(decoders=decoders), []):
        pass


def parts() -> dict[str, object]:
    """Milliseconds of one core for 32 images: colours and spectrum, ranking, and ranking by ordering every batch."""
    torch.set_num_threads(1)
    stream = np.random.default_rng(0)
    pixels = torch.from_numpy(stream.integers(0, 256, (BATCH, 3, 224, 224), np.uint8))
    images, (neurons, batches) = ImageTotal(224), (2048, 32)
    scores, sites = stream.standard_normal((batches, BATCH, neurons), np.float32), np.zeros((BATCH, neurons), np.int64)

    def rank() -> None:
        ranker = Ranker(neurons, RANKS)
        for number, batch in enumerate(scores):
            ranker.add(batch, np.arange(BATCH) + number * BATCH, lambda image, some: sites[image, some])
        ranker.ranking()

    def rank_batches() -> None:
        ranking = Ranking.none(neurons, RANKS)
        for number, batch in enumerate(scores):
            ranking += Ranking.of(batch, np.arange(BATCH) + number * BATCH, sites, RANKS)

    def least(work: Callable[[], object], rounds: int) -> float:
        return 1000 * min(took(work)[1] for _ in range(rounds))

    return {
        "light_ms": least(lambda: images.add(pixels), 9),
        "rank_ms": least(rank, 3) / batches,
        "batch_rank_ms": least(rank_batches, 3) / batches,
    }


def peak(shards: Path, store: Path, model: ModelSettings, layer: str) -> int:
    """Peak memory of a whole run, in a process of its own, bytes."""
    words: list[str | Path] = ["references", shards, "--store", store, "--model", model.name, "--layer", layer]
    words += ["--references", str(RANKS), "--levels", str(LEVELS)]
    words += ["--weights", model.weights] if model.weights else []
    words += ["--input-size", str(model.input_size)] if model.input_size else []
    return peak_bytes(*words)


def whole(
    count: int, images: int, models: Mapping[str, tuple[ModelSettings, str]] = MODELS, most: int = 16
) -> dict[str, object]:
    """The pass, its parts side by side; the memory of the first of ``models``, with two shards and with ``most``."""
    torch.set_num_threads(2)
    result: dict[str, object] = {}
    several = range(1, cores() + 1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_shards(folder / "two", 2, images)
        [shard, *_] = expand((str(folder / "two"),))
        for name, (model, layer) in models.items():
            here = load(model, Running())
            plan = plan_of(here, layer)

            def passed(decoders: int, here: LoadedModel = here, plan: Plan = plan) -> tuple[float, float]:
                return took(lambda: scan_shards([shard], here, plan, BY_NUMBER, Feed(decoders=decoders)))

            passed(1)
            rounds = [
                (took(lambda here=here, layer=layer: bare(here, layer, shard)), *map(passed, several))  # type: ignore[misc]
                for _ in range(count)
            ]
            plain, full, *more = np.median(rounds, axis=0)
            result |= {f"processor_{name}": plain[1] / full[1], f"images_per_second_{name}": images / full[0]}
            for decoders, times in zip(several, (full, *more), strict=True):
                by = "" if decoders == 1 else f"_by_{decoders}"
                result[f"throughput_{name}{by}"] = plain[0] / times[0]
            if name == next(iter(models)):
                partial = scan_shards([shard], here, plan, BY_NUMBER)
                write_partial(str(folder / "run"), "partial", partial)
                result["partial_bytes"] = sum(file.stat().st_size for file in (folder / "run").rglob("*.npz"))
        alone, *others = np.median(
            [[took(lambda n=n: decoded(here, shard, n))[0] for n in several] for _ in range(3 * count)],  # type: ignore[misc]
            axis=0,
        )
        result |= {f"decoding_by_{n}": alone / other for n, other in zip(several[1:], others, strict=True)}
        write_shards(folder / "many", most, images)
        one = next(iter(models.values()))
        few, many = (peak(folder / name, folder / f"{name}.zarr", *one) for name in ("two", "many"))
    result |= {"memory_growth": many / few - 1, "peak_bytes": many}
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", action="store_true", help="only what some parts cost by themselves")
    parser.add_argument("--images", type=int, default=128, help="images of a shard")
    parser.add_argument("--tiny", action="store_true", help="a small network and few images: to see that it runs")
    options = parser.parse_args(arguments)
    if options.parts:
        result = parts()
    else:
        result = whole(1, 4, SMALL, 3) if options.tiny else whole(options.rounds, options.images)
    print(json.dumps(result) if options.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
