"""The tree of tasks that joins what shards add: the same bytes whatever its shape, and nothing made twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.steps.reading.merging import (
    FAN,
    TASKS,
    Tree,
    index_rows,
    join_partials,
    joined_partials,
    remove_partials,
    write_partial,
    written_partials,
)
from flows.steps.reading.shards import Partial
from stores.dataset.index import SampleRows, ShardRows
from stores.errors import SchemaMismatch
from stores.shards.finding import ShardFile
from vital.measuring.gathering import Gathered, Plan
from vital.measuring.image_sums import ImageSums
from vital.measuring.kept.ranking import Ranking
from vital.measuring.kept.sampling import Sample, unit_hash
from vital.measuring.sums import LayerSums

PLAN = Plan(("layer",), ("layer",), 3, 4)
STORES = count()


def files(number: int) -> list[ShardFile]:
    return [ShardFile(f"{one:04d}.tar", f"/{one:04d}.tar", 1000 + one) for one in range(number)]


def partial_of(shard: int) -> Partial:
    """What a shard of one to four random images adds; values of very different sizes, which float64 rounds."""
    stream = torch.Generator().manual_seed(shard)
    images = shard % 4 + 1
    maps = torch.randn(images, 5, 6, generator=stream) * 10.0 ** torch.randint(-6, 5, (images, 5, 1), generator=stream)
    peaks, sites = maps.max(2)
    ranking = Ranking.of(peaks.numpy(), np.arange(images), sites.numpy(), PLAN.ranks)
    sums = LayerSums.of(maps, PLAN.levels)
    lots = np.array([unit_hash(f"{shard}/{row}") for row in range(images)])
    sample = Sample(lots, np.arange(images), peaks.numpy(), 4) + Sample.none(5, 4)
    pixels = torch.randint(0, 256, (images, 3, 4, 4), generator=stream).to(torch.uint8)
    rows = {
        "shard": [0] * images, "offset": range(images), "size": [shard] * images, "label": [-1] * images,
        "key": [f"{shard}/{row}" for row in range(images)], "status": [0] * images, "checksum": [7] * images,
    }  # fmt: skip
    table = {"name": f"{shard:04d}.tar", "url": "/", "size": 9, "images": images, "rejected": 0, "digest": "d"}
    return Partial(
        Gathered({"layer": ranking}, {"layer": sums}, ImageSums.of(pixels), {"layer": sample}),
        SampleRows.from_columns({name: list(values) for name, values in rows.items()}),
        ShardRows.from_columns({**{name: [value] for name, value in table.items()}, "short": [""]}),
    )


def joined(parts: Iterable[Partial]) -> Partial:
    """What some shards in order add together, each counted from the first image of the first."""
    first, *rest = parts
    total, images, samples = first.gathered, len(first.samples), [first.samples]
    for number, part in enumerate(rest, 1):
        total += part.gathered.shifted(images)
        images += len(part.samples)
        samples.append(replace(part.samples, shard=(part.samples.shard + number).astype(np.int32)))
    tables = [part.shards for part in (first, *rest)]
    return Partial(total, SampleRows.concat(samples), ShardRows.concat(tables))


def scanned(tree: Tree, url: str) -> None:
    """What the tasks of the leaves write."""
    for leaf in tree.leaves:
        write_partial(url, leaf.name, joined(partial_of(int(shard.name[:4])) for shard in leaf.shards))


def same(one: Gathered, other: Gathered) -> bool:
    mine, theirs = one.arrays(), other.arrays()
    return mine.keys() == theirs.keys() and all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)


@settings(deadline=None, max_examples=10)
@given(shards=st.integers(1, 16), tasks=st.integers(1, 16), fan=st.integers(2, 4))
@pytest.mark.slow
def test_what_shards_add_is_the_same_to_the_bit_whatever_the_tree(shards: int, tasks: int, fan: int) -> None:
    url, tree = f"memory://tree-{next(STORES)}", Tree.of(PLAN, files(shards), tasks, fan)
    expected = joined(map(partial_of, range(shards)))
    scanned(tree, url)
    for level in tree.levels:
        for branch in level:
            assert 2 <= len(branch.parts) <= fan
            join_partials(url, branch)
    assert len(tree.top) <= fan
    found, images = joined_partials(url, tree.top)
    assert images == len(expected.samples)
    assert same(found, expected.gathered)
    samples, tables = zip(*index_rows(url, tree.read, before=5), strict=True)
    rows, table = SampleRows.concat(samples), ShardRows.concat(tables)
    assert (rows.shard - 5).tolist() == expected.samples.shard.tolist()
    assert rows.key.tolist() == expected.samples.key.tolist()
    assert table.name.tolist() == expected.shards.name.tolist()
    remove_partials(url, tree.names, tree.read)
    assert written_partials(url) == set()


def test_a_data_set_of_the_size_of_imagenet_takes_256_tasks_and_one_level() -> None:
    tree = Tree.of(PLAN, files(1281))
    assert len(tree.leaves) <= TASKS
    assert [shard for leaf in tree.leaves for shard in leaf.shards] == files(1281)
    assert len(tree.levels) == 1
    assert len(tree.top) <= FAN
    assert len(set(tree.names)) == len(tree.names)
    few = Tree.of(PLAN, files(FAN))
    assert few.levels == ()
    assert few.top == few.read


@settings(deadline=None, max_examples=25)
@given(shards=st.integers(1, 40), fan=st.integers(2, 5), data=st.data())
def test_what_is_there_is_not_made_again_nor_what_only_went_into_it(shards: int, fan: int, data: st.DataObject) -> None:
    tree = Tree.of(PLAN, files(shards), shards, fan)
    assert tree.missing([]) == tree
    assert tree.missing(tree.top).names == ()
    there = set(data.draw(st.lists(st.sampled_from(tree.names))))
    left = tree.missing(there)
    assert not there & set(left.names)
    parts = {branch.name: branch.parts for level in tree.levels for branch in level}

    def asked(name: str) -> set[str]:
        return set() if name in there else {name}.union(*map(asked, parts.get(name, ())))

    assert set(left.names) == set().union(*map(asked, tree.top))


def test_a_partial_is_of_its_plan_and_of_shards_as_they_were_found() -> None:
    [leaf] = Tree.of(PLAN, files(1)).leaves
    other = Plan(("layer",), ("layer",), 4, 4)
    shard = {part.name: getattr(files(1)[0], part.name) for part in fields(ShardFile)}
    for change in (
        {"name": "b.tar"}, {"size": 1}, {"version": "changed"}, {"stated": 3}, {"part": (0, 9)}, {"label": 3},
    ):  # fmt: skip
        assert Tree.of(PLAN, [ShardFile(**{**shard, **change})]).read != (leaf.name,)
    for change in ({"digest": "told later"}, {"url": "https://me:secret@elsewhere/0000.tar"}):
        assert Tree.of(PLAN, [ShardFile(**{**shard, **change})]).read == (leaf.name,)
    assert Tree.of(other, files(1)).read != (leaf.name,)


def test_a_branch_that_is_there_is_left_alone_and_its_parts_are_cleared_away(tmp_path: Path) -> None:
    tree, url = Tree.of(PLAN, files(4), 4, 2), str(tmp_path)
    scanned(tree, url)
    branch = tree.levels[0][0]
    join_partials(url, branch)
    path = tmp_path / "runs" / f"{branch.name}.npz"
    kept = path.read_bytes()
    scanned(tree, url)  # of a run that was killed after it had written the branch, and before it cleared away
    join_partials(url, branch)
    assert path.read_bytes() == kept
    assert not set(branch.parts) & written_partials(url)


def test_a_partial_that_another_run_has_removed_is_one_sentence(tmp_path: Path) -> None:
    tree, url = Tree.of(PLAN, files(4), 4, 2), str(tmp_path)
    scanned(tree, url)
    remove_partials(url, [tree.read[1]])
    with pytest.raises(SchemaMismatch, match=r"was to be joined but is no longer in .*: run the same command again"):
        join_partials(url, tree.levels[0][0])
    with pytest.raises(SchemaMismatch, match="-rows was to be joined"):
        list(index_rows(url, ["partials/none"]))


def test_what_was_read_is_removed_even_where_a_disk_does_not_list_it_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network's disk may on one machine, seconds after another has written."""
    url, tree = f"memory://tree-{next(STORES)}", Tree.of(PLAN, files(5), fan=4)
    scanned(tree, url)
    [level] = tree.levels
    with monkeypatch.context() as stale:
        stale.setattr("flows.steps.reading.merging.written_partials", lambda url: set())
        for branch in level:
            join_partials(url, branch)
        rows = {f"{name}-rows" for name in tree.read}
        assert written_partials(url) == {*tree.top, *rows}
        remove_partials(url, tree.names, tree.read, tree.top)
    assert written_partials(url) == set()
