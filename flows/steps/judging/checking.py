"""Whether an atlas can be measured, asked before any work."""

from __future__ import annotations

from collections.abc import Sequence

from flows.jobs import EvaluateJob
from flows.running.process import judges_at, load_stored
from flows.steps.judging.measured import USUAL, Measured
from stores import Atlas, open_atlas
from stores.errors import SchemaMismatch
from stores.files import safe_url
from vital.errors import nearest
from vital.network.probe import CLASSES


def asked_layers(atlas: Atlas, layers: Sequence[str]) -> Sequence[str]:
    """The layers that a job names, or all of the atlas where it names none.

    Raises:
        SchemaMismatch: the atlas has no such layer.
    """
    present = atlas.layers
    for layer in layers:
        if layer not in present:
            raise SchemaMismatch(
                f"{safe_url(atlas.url)} has no layer {layer!r}; the nearest are {nearest(layer, present)}: "
                "choose from these, or leave out --layer for all"
            )
    return layers or present


def check_evaluation(job: EvaluateJob) -> dict[str, int]:
    """How many pictures each asked layer has. Whatever the metrics need is asked for here, before any work.

    Raises:
        SchemaMismatch: the atlas has no such layer or no picture, or its statistics or references are out of reach; a
            sibling is not one.
        UnsuitableInput: a judge knows other classes than the network.
    """
    atlas = open_atlas(job.atlas)
    layers, statistics = asked_layers(atlas, job.layers), atlas.statistics(job.store)
    parts = [Measured.of(atlas, statistics, layer) for layer in layers]
    counts = {part.layer: len(part.rows) for part in parts}
    if not any(counts.values()):
        raise SchemaMismatch(f"{safe_url(job.atlas)} holds no finished picture yet: `vital info` says how far it is")
    for part in parts:
        statistics.reference(part.layer, "image")
        if part.layer != CLASSES:
            for name in USUAL:
                statistics.statistic(part.layer, name)
        for url in job.siblings:
            _check_sibling(part, url)
    loaded = load_stored(statistics, job.running.of_flow)
    judges_at(job.judges, loaded, job.running.of_flow, job.download, counts)
    return {layer: count for layer, count in counts.items() if count}


def _check_sibling(part: Measured, url: str) -> None:
    settings, others = part.pictures.settings, open_atlas(url).require_layer(part.layer).settings
    different = [name for name in sorted(others.keys() | settings.keys()) if others.get(name) != settings.get(name)]
    if different != ["seed"]:
        raise SchemaMismatch(
            f"{safe_url(url)} differs from the atlas in {', '.join(different) or 'nothing'} of layer {part.layer!r} "
            "but a sibling differs in its seed alone: give an atlas made with the same settings and another --seed"
        )
