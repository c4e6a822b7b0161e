"""The same commands against ``s3://``: shards read, stores written, references read by range and nothing more."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import s3fs

from flows.steps.targets import images_learnt
from stores import AtlasLayer, open_statistics
from stores.arrays.opening import open_store
from stores.arrays.schema import array_at
from stores.dataset.index import read_index
from stores.dataset.kept.references import read_references
from stores.shards.reading import GAP
from tests.flows import tiny
from tests.flows.command import Result, vital
from tests.flows.steps.test_inputs import done, refused
from tests.object_storage import bucket

pytestmark = pytest.mark.slow

LAYER = "1"
MODEL = ("--model", "tests.flows.tiny:two_layers", "--input-size", tiny.SIDE, "--references", 3, "--levels", 16)
NAMES = ("tiny-000000.tar", "tiny-000001.tar")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with contextlib.contextmanager(bucket)() as url:
        yield url


@pytest.fixture(scope="module")
def here(_server: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, references and targets on a disk."""
    folder = tmp_path_factory.mktemp("here")
    tiny.shards(folder / "shards")
    store = ("--store", folder / "stats.zarr", "--layer", LAYER)
    done(vital("references", folder / "shards", *store, "--layer", "classes", *MODEL))
    done(vital("targets", *store, "--neurons", "0:32", "--node", "0"))
    return folder


def put(folder: Path, prefix: str, *names: str) -> None:
    client = boto3.client("s3")
    for name in names:
        client.put_object(Bucket="atlas", Key=f"{prefix}/{name}", Body=(folder / name).read_bytes())


@dataclass(frozen=True)
class Grown:
    """A store in the bucket that was made of one shard, and what it is given then: another without ``--extend``, and
    with it."""

    url: str
    alone: Result
    extended: Result


@pytest.fixture(scope="module")
def grown(here: Path, s3: str) -> Grown:
    store, one, both = f"{s3}/stats.zarr", f"{s3}/shards/*.tar", f"{s3}/shards/tiny-{{000000..000001}}.tar"
    rest = ("--store", store, "--layer", LAYER, "--layer", "classes", *MODEL)
    put(here / "shards", "shards", NAMES[0])
    done(vital("references", one, *rest))
    put(here / "shards", "shards", NAMES[1])
    return Grown(store, vital("references", both, *rest), vital("references", both, *rest, "--extend"))


def test_the_commands_work_in_a_bucket_and_give_what_they_give_on_a_disk(
    here: Path, s3: str, grown: Grown, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, atlas = grown.url, f"{s3}/atlas.zarr"
    local, remote = (open_store(str(url), "statistics", "r") for url in (here / "stats.zarr", store))
    near, there = read_references(local, LAYER), read_references(remote, LAYER)
    for part in ("image", "score", "site", "box"):
        np.testing.assert_array_equal(getattr(there, part), getattr(near, part))

    reads: list[tuple[str, Any, Any]] = []
    real = s3fs.S3FileSystem._cat_file

    async def watched(self: Any, path: str, *rest: Any, start: Any = None, end: Any = None, **options: Any) -> Any:
        reads.append((path, start, end))
        return await real(self, path, *rest, start=start, end=end, **options)

    def opened(self: Any, path: str, *rest: Any, **options: Any) -> Any:
        raise AssertionError(f"{path} was opened as a whole")

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_cat_file", watched)
        patch.setattr(s3fs.S3FileSystem, "_open", opened)
        done(vital("targets", "--store", store, "--layer", LAYER, "--neurons", "0:32", "--node", "0"))
    index = read_index(remote)
    wanted = np.unique(there.image[:32][there.image[:32] >= 0])  # one block
    statistics = open_statistics(store)
    learnt = images_learnt(statistics, statistics.targets(LAYER, "image-lrp"))
    times = Counter([*wanted.tolist(), *learnt.tolist()])  # as a reference, and for what goes with a neuron
    spans = {(f"atlas/shards/tiny-{index.shard[i]:06d}.tar", *_span(index, i)): times[i] for i in times}
    asked = [read for read in reads if read[0].endswith(".tar")]
    for path, start, end in asked:  # from the first byte of an image to the last of one
        assert {start, end} <= {edge for name, *edges in spans if name == path for edge in edges}
    covering = [[read for read in asked if read[0] == name and read[1] <= a and b <= read[2]] for name, a, b in spans]
    assert all(len(reads) >= count for reads, count in zip(covering, spans.values(), strict=True))
    read = sum(end - start for _, start, end in asked)
    needed = sum((end - start) * count for (_, start, end), count in spans.items())
    assert len(asked) < times.total()
    assert read - needed <= GAP * (times.total() - len(asked))  # what lies between neighbours

    name = f"targets/{LAYER}/image-lrp/0/quantiles"
    np.testing.assert_array_equal(
        np.asarray(array_at(open_store(store, "statistics", "r"), name)[:32]),
        np.asarray(array_at(local, name)[:32]),
    )
    size = ("--side", 24, "--steps", 2, "--neurons", "0:2")
    done(vital("atlas", "--store", store, "--layer", LAYER, "--out", atlas, *size))
    assert AtlasLayer(open_store(atlas, "atlas", "r"), LAYER).made()[:32].any()
    assert "1 of 2 blocks" in done(vital("info", atlas))


def _span(index: Any, image: int) -> tuple[int, int]:
    return int(index.offset[image]), int(index.offset[image] + index.size[image])


def test_a_store_in_a_bucket_grows(here: Path, grown: Grown) -> None:
    refused(grown.alone, "made from 1 shards and 2 are given", "--extend", "tiny-000001.tar")
    assert "shards: 2, images: 20, 20 read and used" in done(grown.extended)
    near, there = (
        read_references(open_store(str(url), "statistics", "r"), LAYER) for url in (here / "stats.zarr", grown.url)
    )
    for part in ("image", "score", "site", "box"):
        np.testing.assert_array_equal(getattr(there, part), getattr(near, part))


def test_shards_and_stores_that_are_not_in_the_bucket_are_refused(s3: str, tmp_path: Path) -> None:
    refused(vital("references", f"{s3}/none.tar", "--store", tmp_path / "s.zarr", "--layer", LAYER, *MODEL), "no shard")
    refused(vital("targets", "--store", f"{s3}/none.zarr", "--layer", LAYER), "no statistics store", "none.zarr")
