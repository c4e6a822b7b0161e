"""The statistics store as the flows see it: claimed before work, merged into after it, asked for its model and its
images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import zarr
from jaxtyping import Bool

from flows.jobs import ReferencesJob
from flows.running.process import Worker
from stores.arrays.provenance import claim, claimed, dataset_fingerprint
from stores.arrays.schema import declare, group_at, open_store
from stores.dataset.index import index_specs, read_shards
from stores.dataset.layers import layer_specs, write_layer, write_light, write_light_sums
from stores.dataset.references import (
    References,
    read_matrix,
    read_references,
    reference_specs,
    write_directions,
    write_references,
)
from stores.errors import SchemaMismatch, UnreadableShard
from stores.shards.reading import ShardFile
from vital.measuring.gathering import LOWEST, Gathered, Plan, ranked_layer
from vital.measuring.rows import stored_levels
from vital.measuring.sums import NOBODY, LayerSums, Ranking
from vital.network.layers import Survey
from vital.network.nodes import default_nodes
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES

ALGORITHM = 1
"""Version of what the numbers mean; a store of another version is refused."""


def claim_statistics(job: ReferencesJob, here: Worker) -> zarr.Group:
    """The store, made or found to be of the same base; its model's settings are kept for later commands."""
    group = open_store(job.store, "statistics", "a")
    base = {**here.model.identity, "levels": job.statistics.levels, "precision": "float32", "algorithm": ALGORITHM}
    claim(group, "base", base)
    if "model" not in group.attrs:
        group.attrs["model"] = job.model.model_copy(update={"download": False}).model_dump(mode="json")
    declare(group, index_specs())
    for name, matrix in here.found.directions.items():
        write_directions(group, name, matrix)
    return group


def given_directions(job: ReferencesJob) -> dict[str, np.ndarray]:
    """The matrices that a job names; two of one name are refused."""
    found: dict[str, np.ndarray] = {}
    for location in job.directions:
        name, matrix = read_matrix(location)
        if name in found:
            raise SchemaMismatch(f"two files of directions bear the name {name!r}: give one of them another")
        found[name] = matrix
    return found


def base_levels(group: zarr.Group) -> int:
    """Levels kept of a row."""
    return int((claimed(group, "base") or {})["levels"])


def plan_for(job: ReferencesJob, found: Survey, model: str) -> Plan:
    """Everything the asked layers need: their rankings, and sums of themselves and of their nodes."""
    measured: list[str] = []
    ranked: list[str] = []
    for layer in job.layers:
        ranked += [layer, f"{layer}{LOWEST}"] if job.statistics.lowest and layer != CLASSES else [layer]
        measured += [*default_nodes(found, layer, model), found.layer(layer).reads.layer]
    return Plan(tuple(ranked), tuple(dict.fromkeys(measured)), job.statistics.references, job.statistics.levels)


def missing_of(group: zarr.Group, plan: Plan, shards: Sequence[ShardFile]) -> Plan:
    """The part of a plan that the store does not have for exactly these shards; raises SchemaMismatch for more
    shards, and for another number of references."""
    known = read_shards(group)
    if not len(known):
        return plan
    if len(shards) != len(known):
        raise SchemaMismatch(
            f"the store was made from {len(known)} shards and {len(shards)} are given: add --extend to read the new "
            f"ones ({shards[len(known)].name}, …) and add them to the store, or write to another store"
        )
    now = dataset_fingerprint(known.identities())
    for name in plan.ranked:
        found = group.get(f"references/{name}")
        ranks = (claimed(found, "references") or {}).get("references") if isinstance(found, zarr.Group) else None
        if ranks not in (None, plan.ranks):
            raise SchemaMismatch(
                f"the store keeps {ranks} references of layer {name!r} and {plan.ranks} were asked for: "
                f"repeat --references {ranks}, or write to another store"
            )
    ranked = [name for name in plan.ranked if f"references/{name}" not in group.attrs]
    measured = [name for name in plan.measured if group.attrs.get(f"layers/{name}") != now]
    return Plan(tuple(ranked), tuple(measured), plan.ranks, plan.levels)


def refuse_short(group: zarr.Group, allowed: float) -> None:
    """Raise UnreadableShard when more than the allowed share of shards ended too early; what they held is in the
    store."""
    known = read_shards(group)
    short = [f"{name}: {why}" for name, why in zip(known.name, known.short, strict=True) if why]
    if len(short) > allowed * len(known):
        raise UnreadableShard(
            f"{len(short)} of {len(known)} shards ended too early ({short[0]}); what was read is kept and usable: "
            "replace the shards and start a new store, or accept them with --allow-rejected"
        )


def write_gathered(
    group: zarr.Group, gathered: Gathered, found: Survey, preprocessing: Preprocessing, plan: Plan
) -> None:
    """Rankings as references with their patches, sums as layer statistics, light. What is complete is noted last."""
    now = dataset_fingerprint(read_shards(group).identities())
    for name, sums in gathered.sums.items():
        levels = stored_levels(found.layer(name).sites, plan.levels)
        declare(group, layer_specs(name, *sums.quantiles.shape))
        write_layer(group, name, {"level": levels, **_layer_arrays(sums)})
    for name, ranking in gathered.rankings.items():
        module = found.layer(found.layer(ranked_layer(name)).reads.layer)
        # Claimed before the arrays are there: another number is refused by name, also after a killed run.
        claim(group.require_group(f"references/{name}"), "references", {"references": ranking.scores.shape[1]})
        declare(group, reference_specs(name, *ranking.scores.shape))
        write_references(
            group,
            name,
            _as_references(name, ranking, module.sites, preprocessing, module.leading_tokens),
        )
    colours = gathered.image_sums.colours()
    write_light(
        group, gathered.image_sums.spectrum / max(gathered.image_sums.count, 1), colours.mean, colours.covariance
    )
    write_light_sums(group, *(getattr(gathered.image_sums, part.name) for part in fields(gathered.image_sums)))
    ranks = {name: ranking.scores.shape[1] for name, ranking in gathered.rankings.items()}
    done = {f"layers/{name}": now for name in gathered.sums}
    done |= {f"references/{name}": f"{now}/{count}" for name, count in ranks.items()}
    # Sorted behind the rest: the bytes do not tell in which order layers came to the store.
    kept = dict(group.attrs)
    noted = {name: value for name, value in kept.items() if name.startswith(("layers/", "references/"))} | done
    group.attrs.put({name: value for name, value in kept.items() if name not in noted} | dict(sorted(noted.items())))


def _layer_arrays(sums: LayerSums) -> dict[str, np.ndarray]:
    return _shown(sums) | _sums(sums)


def _shown(sums: LayerSums) -> dict[str, np.ndarray]:
    """Means over images, for people. Channels that overflow stay infinite or undefined: their targets say so."""
    count = max(sums.count, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        mean, peak = sums.total / count, sums.peaks / count
        shown = {
            "quantiles": sums.quantiles / count,
            "mean": mean,
            "deviation": np.sqrt(np.maximum(sums.squares / count - mean**2, 0)),
            "minimum": sums.minimum,
            "maximum": sums.maximum,
            "active": sums.active / count,
            "peak_mean": peak,
            "peak_deviation": np.sqrt(np.maximum(sums.peak_squares / count - peak**2, 0)),
        }
        return {name: np.asarray(value, np.float32) for name, value in shown.items()}


def _sums(sums: LayerSums) -> dict[str, np.ndarray]:
    names = ("quantiles", "total", "squares", "active", "peaks", "peak_squares")
    added = {f"sums/{name}": getattr(sums, name) for name in names}
    return added | {"sums/count": np.asarray(sums.count)}


def _as_references(name: str, ranking: Ranking, sites: int, preprocessing: Preprocessing, leading: int) -> References:
    whole = (0, 0, preprocessing.side, preprocessing.side)
    # A single site sees the whole image, not its middle.
    square = name != CLASSES and sites - leading > 1 and round((sites - leading) ** 0.5) ** 2 == sites - leading
    boxes = np.array(
        [preprocessing.box(site, sites - leading) for site in range(sites - leading)] if square else [whole], np.int32
    )
    empty = ranking.images == NOBODY
    box = boxes[np.where(empty, 0, ranking.sites) if square else np.zeros_like(ranking.sites)]
    box[empty] = 0
    scores = -ranking.scores if name.endswith(LOWEST) else ranking.scores
    score = np.where(empty, np.nan, scores).astype(np.float32)
    return References(ranking.images, score, np.where(empty, -1, ranking.sites).astype(np.int32), box)


def references_of(group: zarr.Group, layer: str, count: int | None) -> References:
    """A layer's references, the best ``count``; raises SchemaMismatch with the way out when the layer has none."""
    try:
        group_at(group, f"references/{layer}")
        if f"references/{layer}" not in group.attrs:  # written last: a killed run left them unfinished
            raise SchemaMismatch(layer)
    except SchemaMismatch:
        kept = [name.removeprefix("references/") for name in group.attrs if name.startswith("references/")]
        raise SchemaMismatch(
            f"the store has no references of layer {layer!r}, it has those of {', '.join(kept) or 'none'}: "
            f"run `vital references … --layer {layer}` on the same shards first"
        ) from None
    found = read_references(group, layer)
    if count is None:
        return found
    if count > found.image.shape[1]:
        raise SchemaMismatch(
            f"{count} references were asked for and the store keeps {found.image.shape[1]} of layer {layer!r}: "
            f"ask for fewer, or make the store with --references {count}"
        )
    return found.best(count)


def live_neurons(references: References, fewest: int) -> Bool[np.ndarray, "neuron"]:
    """Neurons with enough references to be measured."""
    live: np.ndarray = (references.image != NOBODY).sum(1) >= fewest
    return live
