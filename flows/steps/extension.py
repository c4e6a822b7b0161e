"""New shards for a store that has read others: what it keeps becomes the beginning of the sum, and nothing old is read
again.

The sum of old and new is written to the run folder before anything in the store changes. A run that is killed while it
writes is finished by the next one, from that file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import zarr

from flows.jobs import BLOCK
from flows.running.process import Worker
from flows.steps.dataset import base_levels, write_gathered
from flows.steps.shards import Partial, joined
from stores.arrays.blocks import DONE
from stores.arrays.provenance import ShardIdentity, check_extension, claimed, dataset_fingerprint
from stores.arrays.schema import array_at, group_at
from stores.dataset.index import append_index, read_index, read_shards
from stores.dataset.layers import read_layer, read_light_sums
from stores.dataset.references import read_references
from stores.dataset.targets import target_path
from stores.errors import ForeignStore
from stores.files import read_arrays, remove_arrays, write_arrays
from stores.shards.reading import ShardFile
from vital.measuring.gathering import LOWEST, Gathered, Plan
from vital.measuring.sums import NOBODY, ImageSums, LayerSums, Ranking, unit_hash
from vital.network.probe import CLASSES

PENDING = "extension"
NODE, REFERENCES = "layers/", "references/"
SUMS = ("quantiles", "total", "squares", "active", "peaks", "peak_squares")


def check_shards(group: zarr.Group, shards: Sequence[ShardFile]) -> None:
    """Refuse shards of which the first are not those that the store has read; they are asked for by name, size and
    order.

    Raises:
        ForeignStore: one is missing, differs, or is new and would come before a shard that was read.
    """
    known = read_shards(group).identities()
    names = {shard.name for shard in known}
    given = [shard.name for shard in shards]
    early = [name for name in given[: len(known)] if name not in names]
    if early and names <= set(given):
        raise ForeignStore(
            f"new shard {early[0]} sorts before {known[-1].name}, which the store has read: image ids follow the order "
            "of the names, so name new shards such that they come last, or make another store"
        )
    check_extension(known, [ShardIdentity(shard.name, shard.size) for shard in shards])


def known_digests(group: zarr.Group, shards: Sequence[ShardFile]) -> list[ShardFile]:
    """The shards, those that the store has read with the digest that their bytes then had."""
    kept = {shard.name: shard.digest or "" for shard in read_shards(group).identities()}
    return [replace(shard, digest=kept.get(shard.name, "")) for shard in shards]


def kept_plan(group: zarr.Group) -> Plan:
    """Everything that a store has gathered: what new shards are asked for."""
    now = dataset_fingerprint(read_shards(group).identities())
    measured = [
        name.removeprefix(NODE) for name, value in group.attrs.items() if name.startswith(NODE) and value == now
    ]
    ranked = [name.removeprefix(REFERENCES) for name in group.attrs if name.startswith(REFERENCES)]
    ranks = max((array_at(group, f"{REFERENCES}{name}/image").shape[1] for name in ranked), default=1)
    return Plan(tuple(ranked), tuple(measured), ranks, base_levels(group))


def kept_sums(group: zarr.Group, plan: Plan) -> Gathered:
    """What the store has gathered, with every sum as exact as when it was written."""
    sums = {}
    for name in plan.measured:
        arrays = read_layer(group, name)
        ends = {end: np.asarray(arrays[end], np.float64) for end in ("minimum", "maximum")}
        added = {part: arrays[f"sums/{part}"] for part in SUMS}
        sums[name] = LayerSums(**added, **ends, count=int(arrays["sums/count"]))
    spectrum, colour, products, count = read_light_sums(group)
    keys = read_index(group).key
    rankings = {name: _kept_ranking(group, name, keys) for name in plan.ranked}
    return Gathered(rankings, sums, ImageSums(spectrum, colour, products, count))


def _kept_ranking(group: zarr.Group, name: str, keys: np.ndarray) -> Ranking:
    found = read_references(group, name)
    scores = found.score.astype(np.float64)
    if name == CLASSES:  # what is stored is rounded, the key is not
        scores = np.array([[-unit_hash(str(keys[image])) for image in row] for row in found.image]).reshape(
            scores.shape
        )
    elif name.endswith(LOWEST):
        scores = -scores
    return Ranking(np.where(found.image == NOBODY, -np.inf, scores), found.image, found.site.astype(np.int64))


def extend(store: str, group: zarr.Group, here: Worker, plan: Plan, parts: Iterable[Partial]) -> None:
    """Add the partials of new shards, in their order, to what the store keeps."""
    shards, images = len(read_shards(group)), len(read_index(group))
    whole = joined(Partial.none(kept_sums(group, plan)), parts, images, shards)
    write_arrays(store, PENDING, {**whole.arrays(), "before": np.asarray(shards)})
    finish_extension(store, group, here)


def finish_extension(store: str, group: zarr.Group, here: Worker) -> None:
    """Write an extension that was summed but perhaps not written; nothing happens where there is none."""
    arrays = read_arrays(store, PENDING)
    if arrays is None:
        return
    before = int(arrays.pop("before"))
    whole = Partial.from_arrays(arrays)
    for name, ranking in whole.gathered.rankings.items():
        if not name.endswith(LOWEST):
            _forget_targets(group, name, ranking)
    noted = {f"{NODE}{name}" for name in whole.gathered.sums}
    noted |= {f"{REFERENCES}{name}" for name in whole.gathered.rankings}
    if noted & set(group.attrs):  # what is being rewritten is not for readers
        group.attrs.put({name: value for name, value in group.attrs.items() if name not in noted})
    if len(read_shards(group)) == before:
        append_index(group, whole.samples, whole.shards)
    levels = base_levels(group)
    plan = Plan(tuple(whole.gathered.rankings), tuple(whole.gathered.sums), 0, levels)
    write_gathered(group, whole.gathered, here.found, here.model.preprocessing, plan)
    remove_arrays(store, PENDING)


def _forget_targets(group: zarr.Group, layer: str, ranking: Ranking) -> None:
    """Blocks of targets with a neuron whose references change are to be measured again."""
    if f"targets/{layer}" not in group:
        return
    changed = read_references(group, layer).image != ranking.images
    for variant, part in group_at(group, f"targets/{layer}").groups():
        if DONE not in part:
            continue
        used = (claimed(part, "variant") or {}).get("references") or changed.shape[1]
        done = array_at(group, f"{target_path(layer, variant)}/{DONE}")
        for block in {int(neuron) // BLOCK for neuron in np.flatnonzero(changed[:, :used].any(1))}:
            done[block] = 0
