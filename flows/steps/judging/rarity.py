"""How rare a neuron's figures would be, were its picture one of the photographs that excite it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from flows.steps.judging.photographs import JudgedReferences, Questions
from vital.judging.names import metric_name
from vital.judging.readability import held_out_readability
from vital.judging.trust.findings import AS_UNLIKE, AS_UNREADABLE, AS_WEAK, competent, held_out_peaks, in_turn, shares
from vital.judging.trust.processing import held_out_gaps


def as_rare(
    known: Mapping[str, Float[np.ndarray, "shown"]],
    counts: Int[np.ndarray, "neuron"],
    scores: Float[np.ndarray, "neuron rank"],
    photos: JudgedReferences,
    questions: Questions | None,
    rows: Int[np.ndarray, "shown"] | None = None,
) -> dict[str, Float[np.ndarray, "shown"]]:
    """By how many of the photographs, each taken for a picture of its neuron, neurons with so many pictures are not
    outdone: in what is ``known`` of them, metrics by name. ``scores`` are the peaks of all references.

    Where ``rows`` are given, what is known is of single pictures, and of the neurons in these rows.
    """
    rare, rows = {}, np.arange(len(counts)) if rows is None else rows
    if "mean_peak_ratio" in known:
        rare[AS_WEAK] = shares(known["mean_peak_ratio"], in_turn(held_out_peaks(scores), counts))
    if "processing_gap" in known:
        gaps = in_turn(held_out_gaps(photos.passed, photos.rows), counts)
        rare[AS_UNLIKE] = shares(-known["processing_gap"], -gaps)
    judges = [name for name in (questions.features if questions else ()) if metric_name("readability", name) in known]
    if questions is None or not judges:
        return rare
    own, references = (
        np.mean([known[metric_name(kind, name)] for name in judges], 0)
        for kind in ("readability", "readability_references")
    )
    drawn = [
        held_out_readability(
            photos.features[name], photos.rows, counts, questions.features[name], questions.sample[name], questions.of
        )
        for name in judges
    ]
    able = competent(references)
    asked = [np.mean([by_judge[neuron] for by_judge in drawn], 0) for neuron in np.unique(rows[able])]
    unread = shares(own - references, np.concatenate([np.empty(0), *asked]))
    return {**rare, AS_UNREADABLE: np.where(able, unread, np.nan)}
