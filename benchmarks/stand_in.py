"""Stand-in data for benchmarks/scale.py: rows of an index as shards have them, and what their images would add."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from flows.steps.reading.shards import Partial
from stores.dataset.index import SampleRows, ShardRows
from vital.measuring.gathering import Gathered, Plan
from vital.measuring.image_sums import ImageSums
from vital.measuring.kept.ranking import Ranking
from vital.measuring.sums import LayerSums
from vital.network.layers import Layer, Survey

RANKS, LEVELS = 50, 128


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    images: int = 5_000_000
    per_shard: int = 1000
    shards: int = 1281
    nodes: tuple[tuple[str, int, int], ...] = (
        ("conv1", 64, 12544), ("layer1", 256, 3136), ("layer2", 512, 784), ("layer3", 1024, 196), ("layer4", 2048, 49),
    )  # fmt: skip
    """Name, channels and sites of resnet50's nodes at 224 px; the last is ranked."""
    side: int = 224
    layers: tuple[int, int] = (1000, 100_000)
    """Neurons of the layers whose requests are counted."""
    ranked: int = 100_000


FULL = Size()
SMALL = Size(4_000, 50, 36, (("a", 4, 9), ("b", 8, 4)), 16, (100, 400), 500)


def rows_of(shard: int, images: int, before: int = 0) -> tuple[SampleRows, ShardRows]:
    """The index rows of a shard of images of about 110 kB, as far from regular as real ones."""
    stream = np.random.default_rng(shard)
    size = stream.integers(20_000, 200_000, images)
    end = np.cumsum(1024 + size // 512 * 512)
    columns = {
        "shard": np.full(images, shard - before), "offset": np.append(0, end)[:-1] + 512, "size": size,
        "label": stream.integers(0, 1000, images), "status": np.zeros(images),
        "key": [f"n{wordnet:08d}_{number}" for wordnet, number in stream.integers(10**6, 10**7, (images, 2))],
        "checksum": stream.integers(0, 2**32, images),
    }  # fmt: skip
    table = {"name": f"{shard:06d}.tar", "url": f"/shards/{shard:06d}.tar", "size": int(end[-1]), "images": images}
    more = {"rejected": 0, "digest": f"{shard:064x}", "short": ""}
    return SampleRows.from_columns(columns), ShardRows.from_columns({k: [v] for k, v in (table | more).items()})


def bytes_below(folder: Path) -> int:
    """Of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@dataclass(frozen=True)
class StandIn:
    """What stands in for a network and its shards."""

    size: Size

    @property
    def plan(self) -> Plan:
        """The last node ranked, all measured."""
        return Plan((self.size.nodes[-1][0],), tuple(name for name, _, _ in self.size.nodes), RANKS, LEVELS)

    @property
    def survey(self) -> Survey:
        """The layers of the nodes."""
        return Survey(
            {
                name: Layer(name, channels, sites, "channels-first", True, number, number)
                for number, (name, channels, sites) in enumerate(self.size.nodes)
            }
        )

    def template(self) -> Gathered:
        """What one shard adds: the sums of four random images, the best of ``per_shard`` random scores."""
        torch.manual_seed(0)
        sums = {
            name: LayerSums.of(torch.randn(4, channels, sites), LEVELS) for name, channels, sites in self.size.nodes
        }
        name, channels, _ = self.size.nodes[-1]
        scores = np.random.default_rng(0).normal(size=(self.size.per_shard, channels)).astype(np.float32)
        ranking = Ranking.of(scores, np.arange(len(scores)), np.zeros(scores.shape, np.int64), RANKS)
        pixels = torch.randint(0, 256, (4, 3, self.size.side, self.size.side), dtype=torch.uint8)
        return Gathered({name: ranking}, sums, ImageSums.of(pixels))

    def partial(self, template: Gathered, shard: int, before: int) -> Partial:
        """A shard's: the template with the scores of other neurons, so that each shard has some of the best."""
        ((name, ranking),) = template.rankings.items()
        turned = Ranking(*(np.roll(part, 37 * shard, 0) for part in (ranking.scores, ranking.images, ranking.sites)))
        rows, table = rows_of(shard, self.size.per_shard, before=shard)
        return Partial(replace(template, rankings={name: turned}), rows, table)
