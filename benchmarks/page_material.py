"""Stores for the benchmark of the pages: written as the flows write them, but filled without a network."""

from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image

from flows.steps.dataset import ALGORITHM
from stores import AtlasLayer, Naming, References, Sample, Statistics, Targets
from stores.arrays.opening import open_store
from stores.arrays.provenance import claim, claimed, fingerprint
from stores.arrays.schema import declare, group_at
from stores.atlas.layer import PictureArrays, picture_specs
from stores.dataset.index import SampleRows, ShardRows, append_index
from stores.dataset.layers import layer_specs, write_layer
from stores.dataset.targets import TargetArrays
from vital.measuring.sums import LayerSums
from vital.network.preprocessing import Preprocessing
from vital.settings import ModelSettings, PictureSettings, VariantSettings

LAYER, VARIANT = "layer4.2", "patch-lrp"
NODES = {"input": (3, 64), "conv1": (64, 64), "layer1": (256, 64), "layer2": (512, 64), "layer3": (1024, 64)}
"""Channels and levels, as of resnet50."""
FEW = {"input": (3, 16), "layer3": (48, 16)}
"""Of a layer of more than `MANY` neurons: a dictionary's features have small targets."""
MANY = 8192
BLOCK, RANKS, SIDE, RECORDS, SAMPLE, MADE = 32, 12, 224, 50, 500, 512
"""``MADE`` pictures are made, and then used again."""
WORDS, LABELS = 4000, 1000
METRICS = (
    "clarity_judge", "clipped", "mean_peak_ratio", "peak_ratio", "polysemanticity_judge", "processing_gap",
    "readability_judge", "readability_references_judge", "redundancy_judge", "selectivity", "variation",
)  # fmt: skip


def words(count: int) -> np.ndarray:
    """Names as a vocabulary has them: of one word or two, of the lengths of English ones."""
    stream, letters = np.random.default_rng(6), np.array(list("eeeaaiioournnttsslldcmhgpbfyvwk"))
    single = ["".join(stream.choice(letters, stream.integers(3, 10))) for _ in range(count)]
    return np.array([word if row % 2 else f"{word} {single[row // 2]}" for row, word in enumerate(single)])


def nodes_of(neurons: int) -> dict[str, tuple[int, int]]:
    """Channels and levels of the nodes of a layer of so many neurons."""
    return NODES if neurons <= MANY else FEW


def photograph(stream: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: colours with the falling spectrum of photographs, and a few shapes with edges."""
    total = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 1.0), (6, 0.6), (12, 0.35), (28, 0.2), (60, 0.1)):
        coarse = stream.standard_normal((cells, cells, 3)).astype(np.float32) * weight
        grey = coarse.mean(2, keepdims=True)
        # most of what differs in a photograph is brightness
        for channel, values in enumerate(np.moveaxis(grey + 0.4 * (coarse - grey), 2, 0)):
            total[..., channel] += np.asarray(
                Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC), np.float32
            )
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(4):
        y, x = stream.uniform(0, (height, width))
        a, b = stream.uniform(0.05, 0.3, 2) * height
        inside = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1
        total[inside] += stream.normal(0, 0.8, 3).astype(np.float32)
    made: np.ndarray = (255 / (1 + np.exp(-1.3 * total))).astype(np.uint8)
    return made


def make_atlas(folder: Path, neurons: int, side: int, photos: int) -> Path:
    """Shards, statistics and atlas below ``folder``; returns the atlas's path. What is there is used again."""
    atlas = folder / f"atlas-{neurons}-{side}-{photos}.zarr"
    finished = atlas.with_suffix(".finished")
    if finished.exists():
        return atlas
    store = folder / f"statistics-{neurons}-{photos}.zarr"
    statistics = open_store(str(store), "statistics", "a")
    seen = Preprocessing(SIDE, (0.5,) * 3, (0.5,) * 3).identity()
    base: dict[str, Any] = {"model": "synthetic", "weights": "none", **seen}
    claim(statistics, "base", {**base, "levels": 64, "algorithm": ALGORITHM})
    statistics.attrs["model"] = ModelSettings(name="resnet50", weights="random").model_dump(mode="json")
    _write_shards(statistics, folder / "shards", photos)
    _write_statistics(statistics, neurons, photos)
    _write_targets(statistics, neurons)
    group = open_store(str(atlas), "atlas", "a")
    claim(group, "statistics", {"base": fingerprint(claimed(statistics, "base") or {}), "dataset": "synthetic"})
    group.attrs["store"] = str(store)
    _write_pictures(group, neurons, side)
    finished.touch()
    return atlas


def _write_shards(statistics: zarr.Group, folder: Path, photos: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, photos, 1000)):
        path = folder / f"synthetic-{number:06d}.tar"
        count, offsets, sizes, sums = min(1000, photos - start), [], [], []
        with tarfile.open(path, "w") as tar:
            for row in range(start, start + count):
                buffer = io.BytesIO()
                Image.fromarray(photograph(np.random.default_rng(row), 300, 375)).save(buffer, "JPEG", quality=88)
                info = tarfile.TarInfo(f"photo{row:06d}.jpg")
                info.size = len(buffer.getvalue())
                tar.addfile(info, io.BytesIO(buffer.getvalue()))
                offsets.append(tar.offset - -(-info.size // 512) * 512)
                sizes.append(info.size)
                sums.append(zlib.crc32(buffer.getvalue()))
        rows = SampleRows.from_columns(
            {
                "shard": [number] * count, "offset": offsets, "size": sizes,
                "label": [row % LABELS for row in range(start, start + count)],
                "key": [f"photo{row:06d}" for row in range(start, start + count)], "status": [0] * count,
                "checksum": sums,
            }
        )  # fmt: skip
        shard = {
            "name": [path.name], "url": [str(path)], "size": [path.stat().st_size], "images": [count],
            "rejected": [0], "digest": [f"synthetic {number}"], "short": [""],
        }  # fmt: skip
        append_index(statistics, rows, ShardRows.from_columns(shard))


def _write_statistics(statistics: zarr.Group, neurons: int, photos: int) -> None:
    stream = np.random.default_rng(1)
    image = stream.integers(0, photos, (neurons, RANKS))
    # a third of a neuron's references are of one class
    image[:, ::3] = (image[:, :1] % LABELS + LABELS * stream.integers(0, photos, (neurons, RANKS // 3))) % photos
    box = np.empty((neurons, RANKS, 4), np.int32)
    box[..., :2], box[..., 2:] = stream.integers(0, SIDE - 64, (neurons, RANKS, 2)), 64
    score = -np.sort(-stream.gamma(3, 2, (neurons, RANKS)), 1).astype(np.float32)
    store = Statistics("", statistics)
    references = References(image, score, np.zeros((neurons, RANKS), np.int32), box)
    store.write_references(LAYER, references, sample=SAMPLE)
    drawn = np.sort(stream.choice(photos, min(SAMPLE, photos), replace=False))
    peaks = stream.gamma(2, 1, (len(drawn), neurons)).astype(np.float32)
    store.write_sample(LAYER, Sample(drawn, peaks), SAMPLE)
    statistics.attrs[f"references/{LAYER}"] = f"synthetic/{RANKS}"
    declare(statistics, layer_specs(LAYER, neurons, 8, LayerSums.meanings()))
    write_layer(
        statistics,
        LAYER,
        {name: stream.beta(1, 4, neurons).astype(np.float32) for name in ("active", "peak_mean", "mean")},
    )


def _write_targets(statistics: zarr.Group, neurons: int) -> None:
    nodes = nodes_of(neurons)
    inner = [node for node in nodes if node != "input"]
    kinds = {"quantiles": "float16", "relevant": "float16"}
    settings = VariantSettings().model_dump(mode="json", exclude={"nodes"})
    targets = Targets.of(statistics, LAYER, VARIANT)
    targets.claim({**settings, "nodes": list(nodes), "block": BLOCK})
    levels = {node: np.linspace(0, 1, count) for node, (_, count) in nodes.items()} | {"own": np.linspace(0, 1, 49)}
    sizes = {node: size for node, (size, _) in nodes.items()}
    targets.declare(levels, sizes, TargetArrays(neurons, BLOCK, inner, kinds))
    for block in range(-(-neurons // BLOCK)):
        stream = np.random.default_rng((2, block))
        count = min(BLOCK, neurons - block * BLOCK)
        arrays: dict[str, np.ndarray] = {
            "own": np.zeros((count, 49), np.float32), "count": np.full(count, RANKS),
            "status": np.ones(count, np.uint8),
        }  # fmt: skip
        for node, (channels, size) in nodes.items():
            rows = np.sort(stream.gamma(1, 1, (count, channels, 1)) * np.linspace(0, 1, size) ** 3, 2)
            arrays[f"{node}/quantiles"] = rows.astype(np.float16)
            if node in inner:
                arrays[f"{node}/relevant"] = (rows * 0.4).astype(np.float16)
                arrays[f"{node}/importance"] = stream.beta(0.3, 4, (count, channels)).astype(np.float32)
        targets.write(block, arrays)


def _write_pictures(atlas: zarr.Group, neurons: int, side: int) -> None:
    levels = {node: size for node, (_, size) in nodes_of(neurons).items()}
    declare(atlas, picture_specs(LAYER, side, PictureArrays(neurons, BLOCK, RECORDS, levels)))
    settings = PictureSettings(side=side).model_dump(mode="json")
    claim(group_at(atlas, LAYER), "atlas", {"variant": VARIANT, **settings})
    pictures = [photograph(np.random.default_rng((3, row)), side, side) for row in range(min(neurons, MADE))]
    for block in range(-(-neurons // BLOCK)):
        made = [pictures[row % MADE] for row in range(block * BLOCK, min((block + 1) * BLOCK, neurons))]
        count, stream = len(made), np.random.default_rng((4, block))
        arrays: dict[str, np.ndarray] = {
            "pixels": np.stack(made), "alpha": np.stack([255 - picture[..., 1] for picture in made]),
            "loss": np.sort(stream.gamma(2, 1, (count, RECORDS)), 1)[:, ::-1].astype(np.float32),
            "seed": np.zeros(count, np.int64), "status": np.ones(count, np.uint8),
        }  # fmt: skip
        for node, size in levels.items():
            target = np.sort(stream.normal(0, 3, (count, size)), 1).astype(np.float32)
            arrays[f"reached/{node}/target"] = target
            arrays[f"reached/{node}/picture"] = target + stream.normal(0, 0.1, (count, size)).astype(np.float32)
        AtlasLayer(atlas, LAYER).write(block, arrays)
    stream = np.random.default_rng(5)
    # what `vital evaluate` writes with one judge
    values = {name: stream.beta(2, 2, neurons).astype(np.float32) for name in METRICS}
    AtlasLayer(atlas, LAYER).write_metrics(values, dict.fromkeys(METRICS, ("a made-up metric", "")))
    AtlasLayer(atlas, LAYER).write_naming(_naming(neurons, stream))


def _naming(neurons: int, stream: np.random.Generator) -> Naming:
    """Three words for each neuron; three quarters have a name."""
    score = -np.sort(-stream.beta(2, 3, (neurons, 3)), 1).astype(np.float32)
    bound = np.where(stream.random(neurons) < 0.75, 0, 1).astype(np.float32)
    return Naming(
        words(WORDS)[stream.integers(0, WORDS, (neurons, 3))], score, score, score, bound, bound, score[:, 0] > bound,
        np.zeros((neurons, 0), np.int64), np.zeros((neurons, 0), np.float32),
        {"words": WORDS, "source": "a made-up vocabulary", "images_that_chose": 250, "images_that_scored": 250},
    )  # fmt: skip
