"""Which channels of Lite0 have several facets among the embedded photographs, and which sums of two channels do.

    python benchmarks/facets.py --references 20

Sums are of the pairs whose references come from one channel or the other most clearly: even of these few do by much,
since the channels of a linear bottleneck are seldom silent. A facet is right for a reference where most references in
it come from the same channel.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from importlib import resources
from itertools import combinations
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import ShardReader
from vital.measuring.targets import Attribution, Crop, Facets, chance_of, find_facets, reference_vectors
from vital.network.layers import survey
from vital.network.models import load_model
from vital.network.neurons import Readout
from vital.network.nodes import default_nodes
from vital.network.probe import probe
from vital.settings import MOST_FACETS, ModelSettings

BATCH = 8


@dataclass(frozen=True)
class Chosen:
    """A neuron as a direction, its best photographs, where in them, and which of two channels each comes from."""

    name: str
    direction: Float[np.ndarray, "channel"]
    photos: Int[np.ndarray, "reference"]
    sites: Int[np.ndarray, "reference"]
    first: Bool[np.ndarray, "reference"]
    clear: float = 0.0
    """How much more one channel gives than the other, of both: least of the clearest four fifths."""


def choose(maps: Float[np.ndarray, "photo channel site"], channels: tuple[int, ...], references: int) -> Chosen:
    """The neuron that sums some channels, each of unit deviation."""
    direction = np.zeros(maps.shape[1], np.float32)
    direction[list(channels)] = 1 / maps[:, list(channels)].max(2).std(0)
    parts = maps[:, list(channels)] * direction[list(channels), None]
    photos = np.argsort(-parts.sum(1).max(1), kind="stable")[:references]
    sites = parts.sum(1)[photos].argmax(1)
    given = parts[photos, :, sites]
    first, last = given[:, 0], given[:, -1]
    apart = np.sort(np.abs(first - last) / (np.abs(first) + np.abs(last) + 1e-9))
    name = " + ".join(map(str, channels))
    return Chosen(name, direction, photos, sites, first > last, float(apart[references // 5]))


def right(found: Facets, first: Bool[np.ndarray, "reference"]) -> float:
    """Share of the references that come from the channel that most of their facet do."""
    facets = [first[found.of == facet] for facet in range(found.count)]
    return sum(max(int(part.sum()), int((~part).sum())) for part in facets) / len(first)


def main() -> None:
    """Print the facets of every neuron."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", default="_blocks.13")
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--channels", type=int, default=16, help="single channels, spread over the layer")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--crop", choices=("patch", "image"), default="patch", help="what references are grouped by")
    asked = parser.parse_args()
    model = load_model(ModelSettings())
    layers = survey(model)
    node = default_nodes(layers, asked.layer, model.name)[-1]
    shards = expand((str(resources.files("flows.demo")),))
    images = [sample.image for shard in shards for sample in ShardReader(shard) if sample.image]
    photos = torch.stack([model.preprocessing.crop(decode(image)) for image in images])
    with torch.no_grad(), probe(model.network, [asked.layer], layers.layouts()) as run:
        maps = np.concatenate(
            [run(model.preprocessing.normalise(part))[asked.layer].numpy() for part in photos.split(BATCH)]
        )
    single = [
        choose(maps, (int(one),), asked.references)
        for one in np.linspace(0, maps.shape[1] - 1, asked.channels).astype(int)
    ]
    sums = (choose(maps, pair, asked.references) for pair in combinations(range(maps.shape[1]), 2))
    fair = [one for one in sums if 0.35 <= one.first.mean() <= 0.65]
    neurons = single + sorted(fair, key=lambda one: -one.clear)[: asked.pairs]
    boxes = model.preprocessing.boxes(maps.shape[2])
    if asked.crop == "image":
        boxes = np.tile([0, 0, *photos.shape[2:]], (len(boxes), 1))
    crops = [
        Crop(model.preprocessing.cut(photos[photo], boxes[site]), (row * asked.references + rank,))
        for row, one in enumerate(neurons)
        for rank, (photo, site) in enumerate(zip(one.photos, one.sites, strict=True))
    ]
    readout = Readout(asked.layer, directions=np.stack([one.direction for one in neurons]))
    started = time.process_time()
    of = np.repeat(np.arange(len(neurons)), asked.references).tolist()
    attribution = Attribution("sums", layouts=layers.layouts(), readout=readout)
    vectors = reference_vectors(model, attribution, of, crops, node, batch=BATCH)
    measured = time.process_time() - started
    for row, one in enumerate(neurons):
        rows = vectors[row * asked.references : (row + 1) * asked.references]
        found = find_facets(rows, chance_of("sums", row), MOST_FACETS)
        said = f", {right(found, one.first):.2f} right" if row >= len(single) else ""
        print(f"{one.name:<10} facets {np.bincount(found.of).tolist()}, p {found.p:.3f}{said}")
    grouped = time.process_time() - started - measured
    print(f"vectors {measured:.1f} s of processor, facets {grouped:.1f} s, of {len(neurons)} neurons")


if __name__ == "__main__":
    main()
