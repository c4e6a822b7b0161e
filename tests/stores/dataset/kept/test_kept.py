"""What a store keeps of neurons beside their references: queries and a sample, which come back or are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import stores
from stores.dataset.index import SampleRows, ShardRows
from stores.errors import SchemaMismatch, Status

NEURONS, IMAGES, LAYER = 3, 6, "a/b"


@pytest.fixture
def statistics(tmp_path: Path) -> stores.Statistics:
    """A store of six images without references."""
    made = stores.open_statistics(str(tmp_path / "s.zarr"), "a")
    made.claim({"model": "m", "levels": 4}, {"name": "m"})
    rows: dict[str, Sequence[object]] = {
        "shard": [0] * IMAGES, "offset": [512 * row for row in range(IMAGES)], "size": [7] * IMAGES,
        "label": [-1] * IMAGES, "key": [f"k{row}" for row in range(IMAGES)], "status": [int(Status.OK)] * IMAGES,
        "checksum": range(IMAGES),
    }  # fmt: skip
    shard = {"name": ["x.tar"], "url": ["/x.tar"], "size": [9], "images": [IMAGES], "rejected": [0], "digest": ["d"]}
    made.append(
        SampleRows.from_columns({name: list(column) for name, column in rows.items()}),
        ShardRows.from_columns({**shard, "short": [""]}),
    )
    return made


def ranked(ranks: int) -> stores.References:
    image = (np.arange(NEURONS)[:, None] + np.arange(ranks)) % IMAGES
    image[-1, 3:] = -1
    return stores.References(
        image, -image.astype(np.float32), image.astype(np.int32), np.repeat(image[..., None], 4, 2).astype(np.int32)
    )


def test_ranks_beyond_the_references_are_queries(statistics: stores.Statistics) -> None:
    every = ranked(5)
    statistics.write_references(LAYER, every, queries=3)
    statistics.mark([], {LAYER: 2})
    again = statistics.again()
    assert again.ranked() == {LAYER: 2}
    assert again.references(LAYER).image.tolist() == every.image[:, :2].tolist()
    assert again.reference(LAYER, "score", 1, [2, 0]).tolist() == every.score[[2, 0], :1].tolist()
    assert again.reference(LAYER, "box").tolist() == every.box[:, :2].tolist()
    queries = again.queries(LAYER, [2, 0])
    assert queries.image.tolist() == every.image[[2, 0], 2:].tolist()
    assert queries.score.tolist() == every.score[[2, 0], 2:].tolist()
    assert queries.box.shape == (2, 3, 4)
    assert again.query_places(LAYER, [2, 0]).image.tolist() == sorted({*every.image[0, 2:], every.image[2, 2]})
    assert again.query_places(LAYER, [2]).offset.tolist() == [512 * int(every.image[2, 2])]
    assert again.claimed_kept(LAYER) == {"references": 2, "queries": 3, "sample": 0}
    joined = again.references(LAYER).and_then(again.queries(LAYER))
    for name, values in vars(every).items():
        assert getattr(joined, name).tolist() == values.tolist()


@pytest.mark.parametrize("drawn", [0, 3, 4])
def test_a_sample_comes_back_as_it_was_drawn(statistics: stores.Statistics, drawn: int) -> None:
    peak = np.random.default_rng(0).normal(size=(drawn, NEURONS)).astype(np.float32) * 1e6
    statistics.write_references(LAYER, ranked(2), sample=4)
    statistics.write_sample(LAYER, stores.Sample(np.arange(drawn), peak), 4)
    with pytest.raises(SchemaMismatch, match="no references of layer 'a/b'"):
        statistics.sample(LAYER)  # not marked: a run was killed, or goes on
    statistics.mark([], {LAYER: 2})
    found = statistics.again().sample(LAYER)
    assert found.image.tolist() == list(range(drawn))
    np.testing.assert_array_equal(found.peak, peak)
    np.testing.assert_array_equal(statistics.again().sample(LAYER, [2, 0]).peak, peak[:, [2, 0]])
    grown = np.concatenate([peak, np.zeros((4 - drawn, NEURONS), np.float32)])
    statistics.write_sample(LAYER, stores.Sample(np.arange(4), grown), 4)  # an extension has more
    np.testing.assert_array_equal(statistics.again().sample(LAYER).peak, grown)


def test_a_store_without_them_says_how_to_make_one_with_them(statistics: stores.Statistics) -> None:
    statistics.write_references(LAYER, ranked(2))
    statistics.mark([], {LAYER: 2})
    again = statistics.again()
    with pytest.raises(SchemaMismatch, match=r"keeps no queries of layer 'a/b': make it anew .* without --queries 0"):
        again.queries(LAYER)
    with pytest.raises(SchemaMismatch, match=r"keeps no sample of images of layer 'a/b': .* without --sample 0"):
        again.sample(LAYER)
