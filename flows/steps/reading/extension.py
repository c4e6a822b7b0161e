"""New shards for a store that has read others: what it keeps becomes the beginning of the sum, and nothing old is read
again.

The sum of old and new is written to the run folder before anything in the store changes. A run that is killed while it
writes is finished by the next one, from that file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flows.jobs import BLOCK, Running
from flows.running.process import LoadedModel
from flows.steps.dataset import write_gathered
from flows.steps.reading.merging import Tree, index_rows, joined_partials, remove_partials
from flows.steps.reading.turns import await_tasks
from stores import Statistics
from stores.arrays.provenance import ShardIdentity, check_extension
from stores.dataset.kept.references import read_reference
from stores.errors import ForeignStore, SchemaMismatch
from stores.files import list_runs, read_arrays, remove_arrays, write_arrays
from stores.shards.finding import ShardFile
from vital.measuring.gathering import LOWEST, Gathered, Plan
from vital.measuring.image_sums import ImageSums
from vital.measuring.kept.ranking import NOBODY, Ranking
from vital.measuring.kept.sampling import Sample, sample_size, unit_hash
from vital.measuring.sums import ROWS, LayerSums
from vital.network.probe import CLASSES

PENDING = "extension"
KEPT = ("references", "queries", "sample")
"""What a store says how much it keeps of, layer by layer."""


def check_shards(statistics: Statistics, shards: Sequence[ShardFile]) -> None:
    """Refuse shards of which the first are not those that the store has read; they are asked for by name, size and
    order.

    Raises:
        ForeignStore: one is missing, differs, or is new and would come before a shard that was read.
    """
    known = statistics.shards().identities()
    names = {shard.name for shard in known}
    given = [shard.name for shard in shards]
    early = [name for name in given[: len(known)] if name not in names]
    if early and names <= set(given):
        raise ForeignStore(
            f"new shard {early[0]} sorts before {known[-1].name}, which the store has read: image ids follow the order "
            "of the names, so name new shards such that they come last, or make another store"
        )
    check_extension(known, [ShardIdentity(shard.name, shard.size) for shard in shards])


def known_digests(statistics: Statistics, shards: Sequence[ShardFile]) -> list[ShardFile]:
    """The shards, those that the store has read with the digest that their bytes then had."""
    kept = {shard.name: shard.digest or "" for shard in statistics.shards().identities()}
    return [replace(shard, digest=kept.get(shard.name, "")) for shard in shards]


def kept_plan(statistics: Statistics) -> Plan:
    """Everything that a store has gathered: what new shards are asked for."""
    kept = [statistics.claimed_kept(name) or {} for name in statistics.ranked()]
    ranks, queries, sample = (max((one[what] for one in kept), default=0) for what in KEPT)
    layers = tuple(statistics.ranked()), tuple(statistics.measured())
    return Plan(*layers, max(ranks, 1), statistics.levels, statistics.base["precision"], queries, sample)


def kept_sums(statistics: Statistics, plan: Plan) -> Gathered:
    """What the store has gathered, with every sum as exact as when it was written."""
    sums = {name: _kept_layer(statistics, name) for name in plan.measured}
    rankings = {name: _kept_ranking(statistics, name) for name in plan.ranked}
    samples = {name: drawn for name in plan.sampled if (drawn := _kept_sample(statistics, name)) is not None}
    return Gathered(rankings, sums, ImageSums.from_stored(statistics.image_sums()), samples)


def _kept_layer(statistics: Statistics, name: str) -> LayerSums:
    arrays = {} if statistics.lacks_layer(name) else statistics.layer(name)
    rows = any(path.rpartition("/")[2] in (ROWS, "level") for path in arrays)
    for path in LayerSums.read_from(rows):
        if path not in arrays:
            statistics.statistic(name, path)  # says that it is gone
    return LayerSums.from_stored(arrays)


def _kept_sample(statistics: Statistics, name: str) -> Sample | None:
    asked = (statistics.claimed_kept(name) or {})["sample"]
    if not asked:
        return None
    kept = statistics.sample(name)
    lots = np.array([unit_hash(key) for key in statistics.keys(kept.image.tolist())])
    return Sample(lots, kept.image, kept.peak, sample_size(kept.peak.shape[1], asked))


def _kept_ranking(statistics: Statistics, name: str) -> Ranking:
    references = statistics.references(name)
    if (statistics.claimed_kept(name) or {})["queries"]:
        references = references.and_then(statistics.queries(name))
    scores = references.score.astype(np.float64)
    if name == CLASSES:  # what is stored is rounded, the key is not
        taken = references.image != NOBODY
        scores[taken] = [-unit_hash(key) for key in statistics.keys(references.image[taken].tolist())]
    elif name.endswith(LOWEST):
        scores = -scores
    sites = references.site.astype(np.int64)
    return Ranking(np.where(references.image == NOBODY, -np.inf, scores), references.image, sites)


def check_plan(statistics: Statistics, plan: Plan) -> None:
    """Refuse to add shards by a ``plan`` that does not have all that the store has gathered meanwhile.

    Raises:
        SchemaMismatch: another run has brought more; it is named.
    """
    now = kept_plan(statistics)
    if now != plan:
        more = [name for name in now.ranked if name not in plan.ranked] or set(now.measured) - set(plan.measured)
        raise SchemaMismatch(
            f"another run has brought {', '.join(sorted(more)) or 'more of a layer'} to the store while new shards "
            "were read: run the same command again, which reads them for all its layers"
        )


def extend(statistics: Statistics, loaded: LoadedModel, plan: Plan, tree: Tree, running: Running) -> None:
    """Add what new shards have added, as the partials of ``tree``, to what the store keeps, and remove the partials."""
    shards, images = statistics.shard_count(), statistics.image_count()
    await_tasks(statistics, running)  # while the store is whole: what they ask for next is there
    added, _ = joined_partials(statistics.url, tree.top)
    whole = kept_sums(statistics, plan) + added.shifted(images)
    names = {"leaves": np.asarray(tree.read), "partials": np.asarray(tree.names)}
    write_arrays(statistics.url, PENDING, {**whole.arrays(), **names, "before": np.asarray(shards)})
    finish_extension(statistics, loaded, running)


def pending(statistics: Statistics) -> bool:
    """Whether an extension was summed but perhaps not written."""
    return f"{PENDING}.npz" in list_runs(statistics.url)


def finish_extension(statistics: Statistics, loaded: LoadedModel, running: Running) -> None:
    """Write an extension that was summed but perhaps not written; nothing happens where there is none."""
    arrays = read_arrays(statistics.url, PENDING)
    if arrays is None:
        return
    before = int(arrays.pop("before"))
    leaves, partials = ([str(name) for name in arrays.pop(names)] for names in ("leaves", "partials"))
    whole = Gathered.from_arrays(arrays)
    statistics.unmark(list(whole.sums), list(whole.rankings))  # first: no task is to measure what is about to change
    await_tasks(statistics, running)  # those that began before would say that they are done after it is forgotten
    for name, ranking in whole.rankings.items():
        if not name.endswith(LOWEST):
            _forget_targets(statistics, name, ranking)
    if statistics.shard_count() == before:
        statistics.append_parts(index_rows(statistics.url, leaves, before))
    # how much is kept of each layer the store knows
    plan = Plan(tuple(whole.rankings), tuple(whole.sums), 1, statistics.levels)
    write_gathered(statistics, whole, loaded.survey, loaded.model.preprocessing, plan)
    remove_partials(statistics.url, partials, leaves)
    remove_arrays(statistics.url, PENDING)


def _forget_targets(statistics: Statistics, layer: str, ranking: Ranking) -> None:
    """Blocks of targets with a neuron whose references change are to be measured again."""
    every = list(statistics.all_targets(layer))
    if not every:
        return
    before = read_reference(statistics.root, layer, "image")
    changed = before != ranking.images[:, : before.shape[1]]
    for targets in every:
        used = targets.settings.get("references") or changed.shape[1]
        targets.forget({int(neuron) // BLOCK for neuron in np.flatnonzero(changed[:, :used].any(1))})
