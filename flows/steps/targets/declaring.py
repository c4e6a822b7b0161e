"""What targets of a layer are to be: settled, claimed and declared before any task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from flows.jobs import BLOCK, TargetsJob
from flows.running.process import LoadedModel
from flows.steps.targets.graded import learnt_from
from stores import Statistics, Targets
from stores.dataset.kept.references import live_of
from stores.dataset.targets import TREND, TargetArrays
from stores.errors import SchemaMismatch
from vital.errors import UnsuitableInput
from vital.measuring.rows import stored_levels
from vital.measuring.targets import FEWEST_GRADED
from vital.network.nodes import matched_nodes
from vital.network.probe import CLASSES, INPUT
from vital.settings import VariantSettings

ROW_STEPS = 256
"""Steps from the least to the greatest value of a stored row, at least: benchmarks/dictionary.py has what they cost."""
HALF_LIMIT = 6e4
"""Activations beyond this do not fit float16."""
TREND_RULE = 2
"""Version of how a neuron's trend is found; targets of another version are not added to."""
FACET_RULE = 2
"""Version of how a neuron's facets are found; targets of another version are not added to. Of version 2 patches tell
references apart, where targets are of whole images, too."""


def planned_nodes(statistics: Statistics, job: TargetsJob, loaded: LoadedModel) -> tuple[str, ...]:
    """The nodes that are matched, in the order in which they run; nothing is written. Refuses another model than the
    store's, and nodes that come too late."""
    statistics.check(loaded.model.identity)
    nodes = matched_nodes(loaded.survey, job.layer, job.variant.nodes, loaded.model.name)
    if job.variant.most_facets > 1 and nodes[-1] == INPUT:
        raise UnsuitableInput(
            f"facets of layer {job.layer!r} were asked for, which no layer comes before that could tell its references "
            "apart: leave out --facets"
        )
    return nodes


def declare_targets(statistics: Statistics, job: TargetsJob, loaded: LoadedModel, fly: bool = False) -> Targets:
    """Claim the variant, then create its arrays and write their levels: once, before any task. Other settings under
    the same name are refused by the field that differs. On the ``fly`` the arrays are in this process's memory, and the
    statistics keep of them what they are measured with."""
    nodes, classes, levels = planned_nodes(statistics, job, loaded), job.layer == CLASSES, statistics.levels
    side, survey = loaded.model.preprocessing.side, loaded.survey
    sites = {node: side**2 if node == INPUT else survey.layer(node).sites for node in nodes}
    channels = {
        node: loaded.model.preprocessing.colours if node == INPUT else survey.layer(node).channels for node in nodes
    }
    at = {node: stored_levels(sites[node], levels) for node in nodes}
    at["own"] = stored_levels(survey.layer(job.layer).sites, levels)
    targets = statistics.targets(job.layer, job.variant.label(classes))
    # What was chosen first stays: the greatest activation may grow with the data set.
    half = all(_largest(statistics, node) < HALF_LIMIT for node in nodes)
    dtype = (targets.claimed or {}).get("type") or ("float16" if half else "float32")
    # So do rows as they are, of a version that did not round them.
    steps = {"row_steps": ROW_STEPS} if targets.claimed is None or "row_steps" in targets.claimed else {}
    learns = learns_trend(statistics, job, targets)
    trend = {TREND: TREND_RULE} if learns else {}
    _check_precision(job, targets, "--target-precision" if fly else "--precision")
    targets.claim({**_identity(job, nodes), "type": dtype, **steps, **trend})
    targets = targets.in_memory() if fly else targets
    dtypes = dict.fromkeys(("quantiles", TREND, "relevant"), str(dtype))
    neurons, most = survey.layer(job.layer).channels, job.variant.most_facets
    ranks = job.variant.references or statistics.ranked()[job.layer]
    facets = (most, ranks) if most > 1 else None
    arrays = TargetArrays(neurons, BLOCK, () if classes else nodes[1:], dtypes, facets, learns)
    targets.declare(at, channels, arrays)
    return targets


def learns_trend(statistics: Statistics, job: TargetsJob, targets: Targets) -> bool:
    """Whether a job's targets learn from images of every strength: those that were begun keep to how they were. These
    images are whole; of a facet's references it is not known how strongly others excite it; and references of a class
    are its labelled images, not the strongest."""
    if targets.claimed is not None:
        return TREND in targets.claimed
    of_neurons = job.layer != CLASSES and job.variant.crop == "image" and job.variant.most_facets == 1
    return of_neurons and len(learnt_from(statistics, job.layer)) >= FEWEST_GRADED


def _check_precision(job: TargetsJob, targets: Targets, option: str) -> None:
    """Refuse another precision than the one that these targets were begun in."""
    begun = (targets.claimed or {"precision": job.precision}).get("precision", "float32")
    if begun != job.precision:
        raise SchemaMismatch(
            f"targets {targets.variant} of layer {job.layer!r} were begun in {begun} but now it is {job.precision}: "
            f"repeat {option} {begun}, or write to another store"
        )


def _identity(job: TargetsJob, nodes: Sequence[str]) -> dict[str, Any]:
    left_out = {"nodes", "crop", "relevance"} if job.layer == CLASSES else {"nodes"}
    # Left out where there are none, and named with the rule that finds them where there are: see precision.
    several = job.variant.most_facets > 1
    left_out |= set() if several else {"facets"}
    left_out |= set() if several and job.variant.split == "always" else {"split"}
    fields = job.variant.model_dump(mode="json", exclude=left_out)
    fields |= {"facet_rule": FACET_RULE} if several else {}
    # Left out where it is exact: targets that were measured before there was a choice are of the same variant.
    rough = {} if job.precision == "float32" else {"precision": job.precision}
    return {**fields, **rough, "nodes": list(nodes), "block": BLOCK}


def _largest(statistics: Statistics, node: str) -> float:
    if node == INPUT:
        return 0.0
    try:
        ends = [statistics.statistic(node, name) for name in ("minimum", "maximum")]
    except SchemaMismatch:
        return np.inf  # a node that the pass over the shards did not measure
    return float(max(np.abs(end).max() for end in ends))


def variant_of(targets: Targets) -> VariantSettings:
    """The settings that targets were measured with."""
    fields = targets.settings
    return VariantSettings(**{name: value for name, value in fields.items() if name in VariantSettings.model_fields})


def live_neurons(statistics: Statistics, targets: Targets) -> Bool[np.ndarray, "neuron"]:
    """Neurons with enough references to be measured: what the blocks of a task depend on, for targets and pictures
    alike."""
    variant = variant_of(targets)
    return live_of(statistics.reference(targets.layer, "image", variant.references), variant.fewest)
