"""What shards add, joined as a tree of tasks, and the files that its parts are in the store's run folder.

Every name is known before anything is read: it is the fingerprint of what goes in. So a run that was killed goes on
with what is there, and asks for nothing below it. What images add is joined from task to task; the rows of the index
stay with the task that read them until all are appended, so that no task ever holds those of the whole data set.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Shaped

from flows.steps.dataset import write_gathered
from flows.steps.reading.shards import Partial
from stores import Statistics
from stores.arrays.provenance import JSON, fingerprint
from stores.dataset.index import SampleRows, ShardRows
from stores.errors import SchemaMismatch
from stores.files import list_arrays, read_arrays, remove_arrays, safe_url, write_arrays
from stores.shards.finding import ShardFile
from stores.together import ahead, together
from vital.measuring.gathering import Gathered, Plan
from vital.network.layers import Survey
from vital.network.preprocessing import Preprocessing

PARTIALS = "partials"
ROWS = "-rows"
"""Ends the name of the file with the index rows of a leaf."""
TASKS = 256
"""Tasks of a pass, at most: each costs the server some milliseconds, on Dask a tenth of a second."""
FAN = 16
"""Partials that a task joins, at most: 256 take two levels."""
AHEAD = 4
"""Partials that are read before they are added: of ResNet-50 40 MB."""


@dataclass(frozen=True)
class Leaf:
    """Neighbouring shards that one task reads; what they add is joined before it is written as ``name``."""

    name: str
    shards: tuple[ShardFile, ...]


@dataclass(frozen=True)
class Branch:
    """Neighbouring partials that one task joins, by their names in order, and the name of the result."""

    name: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """The tasks of a pass: leaves in the order of their shards, levels of branches above them, and the partials on
    ``top``, which together are everything, in order."""

    leaves: tuple[Leaf, ...]
    levels: tuple[tuple[Branch, ...], ...]
    top: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan, shards: Sequence[ShardFile], tasks: int = TASKS, fan: int = FAN, labels: str = "") -> Tree:
        """The tree of some shards in their order: at most ``tasks`` leaves, and ``fan`` parts of a branch. What the
        shards add in the end does not depend on it, but on how their ``labels`` are read."""
        parts = [tuple(shards[some]) for some in _groups(len(shards), min(tasks, len(shards)))]
        leaves = tuple(Leaf(_name("leaf", repr(plan), labels, *map(_said, part)), part) for part in parts)
        levels: list[tuple[Branch, ...]] = []
        names = [leaf.name for leaf in leaves]
        while len(names) > fan:
            groups = [tuple(names[some]) for some in _groups(len(names), -(-len(names) // fan))]
            joins = {group: Branch(_name("branch", *group), group) for group in groups if len(group) > 1}
            levels.append(tuple(joins.values()))
            names = [joins[group].name if group in joins else group[0] for group in groups]
        return cls(leaves, tuple(levels), tuple(names))

    @property
    def shards(self) -> tuple[ShardFile, ...]:
        """All of them, in order."""
        return tuple(shard for leaf in self.leaves for shard in leaf.shards)

    @property
    def read(self) -> tuple[str, ...]:
        """The partials of the leaves, in order."""
        return tuple(leaf.name for leaf in self.leaves)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all partials: what is read from shards first, then what is joined from these, level by level."""
        return (*self.read, *(branch.name for level in self.levels for branch in level))

    def missing(self, there: Collection[str]) -> Tree:
        """What is still to be made where the partials ``there`` are: nothing that only went into one of them."""
        wanted = set(self.top) - set(there)
        levels: list[tuple[Branch, ...]] = []
        for level in reversed(self.levels):
            left = tuple(branch for branch in level if branch.name in wanted)
            levels.insert(0, left)
            wanted |= {part for branch in left for part in branch.parts} - set(there)
        return Tree(tuple(leaf for leaf in self.leaves if leaf.name in wanted), tuple(levels), self.top)


def written_partials(url: str) -> set[str]:
    """The partials that the store at ``url`` has in its run folder."""
    return {f"{PARTIALS}/{name}" for name in list_arrays(url, PARTIALS)}


def write_partial(url: str, name: str, partial: Partial) -> None:
    """Write what the shards of a leaf add: the rows first, so that they are there where the rest is."""
    rows = {f"samples/{column}": values for column, values in partial.samples.columns().items()}
    tables = {f"shards/{column}": values for column, values in partial.shards.columns().items()}
    write_arrays(url, f"{name}{ROWS}", rows | tables)
    _write(url, name, partial.gathered, len(partial.samples))


def join_partials(url: str, branch: Branch) -> None:
    """Write a branch, unless it is there, and remove its parts."""
    if branch.name not in written_partials(url):
        _write(url, branch.name, *joined_partials(url, branch.parts))
    remove_partials(url, sure=branch.parts)


def joined_partials(url: str, names: Sequence[str]) -> tuple[Gathered, int]:
    """What partials have gathered, joined in their order, and the number of their images. While one is added, `AHEAD`
    others are read. Image ids count from the first row of the first."""
    total, images = None, 0
    for part, more in ahead(lambda name: _read(url, name), names, AHEAD):
        total, images = part if total is None else total + part.shifted(images), images + more
    assert total is not None  # a branch has parts
    return total, images


def merge_partials(
    statistics: Statistics, survey: Survey, preprocessing: Preprocessing, plan: Plan, tree: Tree
) -> None:
    """Write all that shards add into a store of these shards or of none, and remove the partials."""
    whole, _ = joined_partials(statistics.url, tree.top)
    if not statistics.shard_count():
        statistics.append_parts(index_rows(statistics.url, tree.read))
    write_gathered(statistics, whole, survey, preprocessing, plan)
    remove_all(statistics, tree, sure=tree.top)


def remove_all(statistics: Statistics, tree: Tree, sure: Sequence[str] = ()) -> None:
    """Remove the partials of a tree that is not wanted any more, and the rows of its leaves; ``sure`` as for
    `remove_partials`."""
    remove_partials(statistics.url, tree.names, tree.read, sure)


def index_rows(url: str, names: Sequence[str], before: int = 0) -> Iterator[tuple[SampleRows, ShardRows]]:
    """The rows of the leaves ``names``, one leaf after the other; ``before`` shards are in the index already."""
    for arrays in ahead(lambda name: _present(url, f"{name}{ROWS}"), names, AHEAD):
        samples, tables = (
            {path.removeprefix(folder): array for path, array in arrays.items() if path.startswith(folder)}
            for folder in ("samples/", "shards/")
        )
        rows, shards = SampleRows.from_columns(samples), ShardRows.from_columns(tables)
        yield replace(rows, shard=(rows.shard + before).astype(np.int32)), shards
        before += len(shards)


def remove_partials(url: str, names: Sequence[str] = (), rows: Sequence[str] = (), sure: Sequence[str] = ()) -> None:
    """Remove those of the partials ``names`` that are listed and those that are ``sure`` to be there, and then the rows
    of the leaves ``rows``. What was read just now is sure: a network's disk may list what other machines have written
    only seconds later."""
    there = written_partials(url) & set(names) if names else set()
    together(lambda name: remove_arrays(url, name), sorted(there | set(sure)))
    together(lambda name: remove_arrays(url, f"{name}{ROWS}"), rows)


def _write(url: str, name: str, gathered: Gathered, images: int) -> None:
    write_arrays(url, name, {**gathered.arrays(), "images": np.asarray(images)})


def _read(url: str, name: str) -> tuple[Gathered, int]:
    arrays = _present(url, name)
    images = int(arrays.pop("images"))
    return Gathered.from_arrays(arrays), images


def _present(url: str, name: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    arrays = read_arrays(url, name)
    if arrays is None:
        raise SchemaMismatch(
            f"{name} was to be joined but is no longer in {safe_url(url)}, since another run on this store has removed "
            "it: run the same command again, which makes what is missing"
        )
    return arrays


def _groups(count: int, groups: int) -> list[slice]:
    """Neighbours in so many groups, whose lengths differ by one at most."""
    edges = [count * group // groups for group in range(groups + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _said(shard: ShardFile) -> JSON:
    """What makes a shard's partial another one: not where it is, nor its digest, which is known once it was read."""
    return {name: value for name, value in asdict(shard).items() if name not in ("url", "digest")}


def _name(*parts: JSON) -> str:
    return f"{PARTIALS}/{fingerprint({'parts': parts})}"
