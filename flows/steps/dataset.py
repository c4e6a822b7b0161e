"""One pass over shards and the statistics store: planned and claimed before it, written after it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flows.jobs import ReferencesJob
from flows.running.process import LoadedModel
from stores import References, Sample, Statistics, open_statistics
from stores.arrays.display import counted
from stores.arrays.names import placed
from stores.arrays.provenance import JSON
from stores.dataset.directions import StoredDictionary, read_matrix
from stores.dataset.directions import read_dictionary as read_stored
from stores.errors import STATUS_MEANINGS, USED, MissingStore, SchemaMismatch, Status, UnreadableShard
from stores.files import local_path, safe_url
from stores.shards.finding import ShardFile
from vital.measuring.exact import LIMIT
from vital.measuring.gathering import LOWEST, Gathered, Plan, levels_of, ranked_layer
from vital.measuring.kept.ranking import NOBODY, Ranking
from vital.measuring.sums import LayerSums
from vital.network.layers import Survey
from vital.network.neurons import Dictionary
from vital.network.nodes import asked_nodes, default_nodes
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES
from vital.network.sources.dictionaries.files import read_dictionary

ALGORITHM = 3
"""Version of what the numbers mean; a store of another version is refused. 2: images are resized and cropped as the
network's weights were evaluated, and leading tokens are found from the network. 3: images of more than bytes
keep it."""


def claim_statistics(job: ReferencesJob, loaded: LoadedModel) -> Statistics:
    """The store, made or found to be of the same base; its model's settings are kept for later commands."""
    statistics = open_statistics(job.store, "a")
    base = {
        **loaded.model.identity,
        "levels": job.statistics.levels,
        "jpeg": job.statistics.jpeg,
        "precision": job.precision,
        "algorithm": ALGORITHM,
    }
    statistics.claim(base, job.model.model_copy(update={"download": False}).model_dump(mode="json"))
    for name, given in loaded.survey.directions.items():
        if isinstance(given, Dictionary):
            settings: dict[str, JSON] = {"k": given.k, "normalisation": given.normalisation, "source": given.source}
            statistics.write_dictionary(name, StoredDictionary(given.weight, given.bias, given.threshold, settings))
        else:
            statistics.write_directions(name, given)
    return statistics


def given_directions(matrices: Sequence[str], dictionaries: Sequence[str] = ()) -> dict[str, np.ndarray | Dictionary]:
    """The matrices and dictionaries of some files, by name; two of one name are refused."""
    given: dict[str, np.ndarray | Dictionary] = {}
    for read, locations in ((read_matrix, matrices), (_given_dictionary, dictionaries)):
        for location in locations:
            name, matrix = read(location)
            if name in given:
                raise SchemaMismatch(f"two files of directions bear the name {name!r}: give one of them another")
            given[name] = matrix
    return given


def _given_dictionary(location: str) -> tuple[str, Dictionary]:
    """As another program wrote it, or as a store keeps it."""
    if kept := read_stored(location):
        name, stored = kept
        return name, Dictionary(stored.weight, stored.bias, stored.threshold, **stored.settings)  # type: ignore[arg-type]
    path = local_path(location)
    if path is None:
        raise MissingStore(f"no dictionary at {safe_url(location)}: one that is not a store's own must be a local file")
    return read_dictionary(path)


def plan_for(job: ReferencesJob, survey: Survey, model: str) -> Plan:
    """Everything the asked layers need: their rankings, and sums of themselves, of their default nodes and of those
    that are asked for. Directions or a dictionary that none of them reads are refused: whoever gave them would look for
    neurons that are not there."""
    measured: list[str] = []
    ranked: list[str] = []
    for layer in job.layers:
        if layer.endswith(LOWEST):
            raise SchemaMismatch(
                f"layer {layer!r} ends in {LOWEST}, which the least activations of another layer would be kept under: "
                "give the module another name"
            )
        ranked += [layer, f"{layer}{LOWEST}"] if job.statistics.lowest and layer != CLASSES else [layer]
        measured += [*default_nodes(survey, layer, model), survey.layer(layer).reads.layer, layer]
    measured += asked_nodes(survey, job.layers, job.nodes)
    for name in survey.directions:
        if not any(layer.endswith(f"~{name}") for layer in job.layers):
            raise SchemaMismatch(
                f"no layer reads the directions or dictionary {name!r}: a layer of them is written LAYER~{name}, such "
                f"as --layer {job.layers[0].partition('~')[0]}~{name}"
            )
    for name in (*job.layers, *measured):
        placed(name)  # refuses what a store cannot hold, before there is one
    kept = job.statistics
    every = tuple(dict.fromkeys(measured))
    return Plan(tuple(ranked), every, kept.references, kept.levels, job.precision, kept.queries, kept.sample)


def missing_of(statistics: Statistics, plan: Plan, shards: Sequence[ShardFile]) -> Plan:
    """The part of a plan that the store does not have for exactly these shards; raises SchemaMismatch for more
    shards, and for another number of references, queries or images of a sample."""
    known = statistics.shards()
    if not len(known):
        return plan
    if len(shards) != len(known):
        raise SchemaMismatch(
            f"the store was made from {len(known)} shards and {len(shards)} are given: add --extend (extend=True) "
            "to read the new "
            f"ones ({shards[len(known)].name}, …) and add them to the store, or write to another store"
        )
    for name in plan.ranked:
        asked = {"references": plan.ranks, "queries": plan.queries, "sample": plan.sample}
        for what, kept in (statistics.claimed_kept(name) or {}).items():
            if kept != asked[what]:
                called = "images in the sample" if what == "sample" else what
                raise SchemaMismatch(
                    f"the store keeps {kept} {called} of layer {name!r} and {asked[what]} were asked for: "
                    f"repeat --{what} {kept}, or write to another store"
                )
    complete, measured = statistics.ranked(), set(statistics.measured())
    return replace(
        plan,
        ranked=tuple(name for name in plan.ranked if name not in complete or statistics.lacks_references(name)),
        measured=tuple(name for name in plan.measured if name not in measured or statistics.lacks_layer(name)),
    )


def refuse_short(statistics: Statistics, allowed: float) -> None:
    """Raise UnreadableShard when more than the allowed share of shards ended too early or held no sample; what they
    held is in the store."""
    known = statistics.shards()
    short = [f"{name}: {why}" for name, why in zip(known.name, known.short, strict=True) if why]
    if len(short) > allowed * len(known):
        kept = "what was read is kept and usable" if statistics.image_count() else "nothing of them could be read"
        raise UnreadableShard(
            f"{len(short)} of {len(known)} shards are not as they should be ({short[0]}); {kept}: replace the shards "
            "and start a new store, or accept them with --allow-rejected"
        )


USABLE = 0.5
"""Share of images that must be usable where nothing else was allowed: below, something is wrong with all of them."""


def refuse_unusable(statistics: Statistics, allowed: float) -> None:
    """Raise UnreadableShard when no image was usable, or more than half were not, or lost their labels, and more than
    the allowed share; says why by the number of images."""
    status = statistics.image_status()
    used, apart = int(np.isin(status, USED).sum()), int((status == Status.APART).sum())
    limit = max(allowed, 1 - USABLE)
    few = len(status) - used > limit * len(status) or apart > limit * max(used, 1)
    if allowed < 1 and (few or not used):
        why = counted(status, STATUS_MEANINGS) if len(status) else "the shards hold none"
        raise UnreadableShard(
            f"{used} of {len(status)} images could be used: {why}; what was read is kept: mend the data and start a "
            "new store, or accept it with --allow-rejected"
        )


def write_gathered(
    statistics: Statistics, gathered: Gathered, survey: Survey, preprocessing: Preprocessing, plan: Plan
) -> None:
    """Rankings as references with their patches and the queries behind them, samples, and all sums as statistics. What
    is complete is marked last. How many are kept of a layer ``plan`` says where the store does not yet know."""
    for name, sums in gathered.sums.items():
        sys.stderr.writelines(
            f"layer {name}: {count} channels have left what is exact in the {meaning}, {LIMIT:.1e}: right to 16 "
            "digits, but the last bits depend on the order of tasks\n"
            for meaning, count in sums.beyond().items()
        )
        statistics.write_layer(name, levels_of(survey.layer(name), plan.levels), sums.stored(), LayerSums.meanings())
    ranks: dict[str, int] = {}
    for name, ranking in gathered.rankings.items():
        kept = statistics.claimed_kept(name) or {"queries": plan.queries, "sample": plan.sample}
        module = survey.layer(survey.layer(ranked_layer(name)).reads.layer)
        references = _as_references(name, ranking, module.own_sites, preprocessing)
        statistics.write_references(name, references, kept["queries"], kept["sample"])
        ranks[name] = ranking.scores.shape[1] - kept["queries"]
    for name, drawn in gathered.samples.items():
        statistics.write_sample(name, Sample(drawn.images, drawn.peaks), drawn.most)
    images = gathered.image_sums
    colours = images.colours()
    statistics.write_images(images.mean_spectrum(), colours.mean, colours.covariance, images.stored())
    statistics.mark(list(gathered.sums), ranks)


def _as_references(name: str, ranking: Ranking, sites: int, preprocessing: Preprocessing) -> References:
    """``sites`` are those of the map that can be ranked."""
    empty = ranking.images == NOBODY
    box = preprocessing.boxes(sites)[np.where(empty, 0, ranking.sites)]
    box[empty] = 0
    scores = -ranking.scores if name.endswith(LOWEST) else ranking.scores
    score = np.where(empty, np.nan, scores).astype(np.float32)
    return References(ranking.images, score, np.where(empty, -1, ranking.sites).astype(np.int32), box)
