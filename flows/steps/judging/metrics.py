"""The metrics of a layer's pictures: what the network itself and judges say of them, and how near their references
they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from flows.jobs import EvaluateJob
from flows.running.process import LoadedModel, judges_at, load_at_side, load_stored, stored_model
from flows.running.progress import tick
from flows.steps.judging.measured import USUAL, Measured
from flows.steps.judging.photographs import (
    CHUNK,
    Asked,
    JudgedReferences,
    Questions,
    questions_of,
    references_of,
    why_unasked,
)
from flows.steps.judging.rarity import as_rare
from flows.steps.judging.steering import steering
from stores import open_atlas
from vital.judging.clarity import measures_of_facets, measures_of_references
from vital.judging.judges import Judge, own_judge
from vital.judging.metrics import (
    clipped,
    curve_distance,
    diversity,
    frechet_distance,
    nearest_similarity,
    peak_ranks,
    variation,
)
from vital.judging.names import OWN_NETWORK, classification_metrics, is_anew, meaning_of, metric_name
from vital.judging.readability import FEW, mean_explanations, means_of, readability, standardised
from vital.judging.trust.findings import OTHERS_ASKED, QUERIES_ASKED, is_of_neuron
from vital.judging.trust.processing import joined, passed, processing_gap
from vital.network.arithmetic import rounding
from vital.network.probe import CLASSES

logger = logging.getLogger(__name__)

FEWEST_CLIPPED = 1e-3
"""Share of clipped values that references are taken to have at least."""


@rounding()
def evaluate(job: EvaluateJob, layer: str) -> None:
    """Measure one layer's pictures and write what was found; neurons without a picture have NaN.

    What is of a picture is kept of each facet, and of a neuron as the mean over its pictures. How readable a neuron is
    follows from all its pictures together.
    """
    atlas = open_atlas(job.atlas)
    part = Measured.of(atlas, atlas.statistics(job.store), layer)
    loaded = load_stored(part.statistics, job.running)
    judges = judges_at(job.judges, loaded, job.running, job.download)
    at_side = load_at_side(stored_model(part.statistics), job.running, part.side)
    mine, judged = own_judge(at_side.model), _Judged(layer == CLASSES, part.shown)
    nodes, way = part.statistics.targets(layer, part.pictures.variant).nodes, []
    for pixels in part.pixels():
        shown = _tensor(pixels, at_side)
        judged.add({OWN_NETWORK: mine, **judges}, shown)
        way.append(passed(at_side.model, nodes, shown, loaded.survey.layouts()))
        tick(len(pixels))
    of_pictures: dict[str, np.ndarray] = {"curve_distance": _distances(part)}
    for name in (OWN_NETWORK, *judges):
        of_pictures |= judged.named(name)
    if layer != CLASSES:
        of_pictures |= _activated(part, loaded, at_side)
    unnamed = job.model_copy(update={"atlas": "", "layers": (), "siblings": ()})
    made_of = tuple(part.statistics.provenance.values())
    asked = Asked(part.statistics.url, made_of, layer, part.pictures.variant, tuple(part.neurons), part.divided)
    photos = references_of(unnamed, asked, part.side)
    of_pictures |= _beside_references(part, judged.features(OWN_NETWORK), joined(way), photos)
    questions = questions_of(unnamed, asked)
    looking = {OWN_NETWORK: mine, **(judges if questions is not None else {})}
    siblings = _siblings(job, part, looking, at_side)
    if job.siblings:
        of_pictures["diversity"] = diversity(np.stack([judged.features(OWN_NETWORK), *siblings[OWN_NETWORK]]))
    of_neurons = {name: part.means(values) for name, values in of_pictures.items()}
    if job.steering:
        of_neurons |= _known(steering(part, loaded, at_side))
    if judges and (why := why_unasked(layer, questions)):
        logger.warning("%s", why)
    if questions is not None and judges:
        of_neurons |= _counted(questions)
        for name in judges:
            of_neurons |= _readable(name, judged.features(name), part.together(), photos, questions)
            if job.siblings:
                seen = [judged.features(name), *siblings[name]]
                of_neurons |= _readable_together(name, seen, part.together(), questions)
            each = readability(
                standardised(judged.features(name)), questions.features[name], [questions.of[row] for row in part.rows]
            )
            of_pictures |= _known({metric_name("readability", name): each})
    of_neurons |= _known(as_rare(of_neurons, part.counts, part.scores, photos, questions))
    if part.pictures.most_facets > 1:
        alone = of_pictures | {name: values[part.rows] for name, values in of_neurons.items() if is_of_neuron(name)}
        of_pictures |= _known(as_rare(alone, np.ones_like(part.counts), part.scores, photos, questions, part.rows))
    for name in judges:
        meant, meant_by_facet = _meant(name, photos, part.pictures.most_facets > 1)
        of_neurons |= meant
        of_pictures |= meant_by_facet
    apart = {
        metric_name("frechet", name): frechet_distance(judged.features(name), photos.features[name])
        for name in (OWN_NETWORK, *judges)
    }
    meanings = {name: meaning_of(name, (OWN_NETWORK, *judges)) for name in (*of_neurons, *apart)}
    open_atlas(job.atlas, "r+").layer(layer).write_metrics(
        {name: part.over_layer(values) for name, values in of_neurons.items()},
        {name: (meaning.text, meaning.units) for name, meaning in meanings.items()},
        apart,
        {name: str(judge.identity.get("weights", "")) for name, judge in judges.items()},
        {name: part.by_facet(values) for name, values in of_pictures.items()},
        anew=lambda name: is_anew(name, tuple(judges)),
    )


class _Judged:
    """What networks say of a layer's pictures, chunk by chunk."""

    def __init__(self, classes: bool, neurons: Int[np.ndarray, "picture"]) -> None:
        self._classes, self._neurons = classes, neurons
        self._features: dict[str, list[np.ndarray]] = {}
        self._named: dict[str, list[dict[str, np.ndarray]]] = {}

    def add(self, judges: Mapping[str, Judge], pixels: UInt8[Tensor, "picture colour row column"]) -> None:
        """Have every judge look at some pictures."""
        for name, judge in judges.items():
            seen = self._features.setdefault(name, [])
            before = sum(map(len, seen))
            output = judge.outputs(pixels)
            seen.append(output.features.float().numpy(force=True))
            if self._classes:
                own = self._neurons[before : before + len(pixels)]
                self._named.setdefault(name, []).append(
                    classification_metrics(output.logits.float().numpy(force=True), own, name)
                )

    def features(self, name: str) -> Float[np.ndarray, "picture feature"]:
        """A judge's features of all pictures that were added, in their order."""
        return np.concatenate(self._features[name])

    def named(self, name: str) -> dict[str, np.ndarray]:
        """How a judge names the classes; nothing for other layers."""
        parts = self._named.get(name, [])
        return {metric: np.concatenate([part[metric] for part in parts]) for metric in (parts[0] if parts else ())}


def _tensor(pixels: np.ndarray, loaded: LoadedModel) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).to(loaded.device)


def _distances(part: Measured) -> Float[np.ndarray, "picture"]:
    distances = curve_distance(part.pictures.reached(part.shown.tolist(), part.facets.tolist()))
    return np.full(len(part.rows), np.nan) if distances is None else distances


def _activated(part: Measured, loaded: LoadedModel, at_side: LoadedModel) -> dict[str, np.ndarray]:
    """What the pictures do to their own neuron, against what natural images do."""
    scores = part.scores[part.rows]
    # As the statistics have it: pictures of another side are read at the same place.
    reads = loaded.survey.layer(part.layer).reads
    usual = [part.statistics.statistic(part.layer, name) for name in USUAL]
    peaks, ranks = [], []
    for start, pixels in zip(range(0, len(part.rows), CHUNK), part.pixels(), strict=True):
        neurons = part.shown[start : start + CHUNK].tolist()
        one = peak_ranks(at_side.model, reads, neurons, pixels, loaded.survey.layouts(), (usual[0], usual[1]))
        peaks.append(one.peak)
        ranks.append(one.rank)
    peak, rank = np.concatenate(peaks), np.concatenate(ranks)
    best, mean = np.nanmax(scores, axis=1), np.nanmean(_of_facets(part, scores), axis=1)
    return {
        "peak": peak,
        "peak_ratio": np.where(best > 0, peak / np.where(best > 0, best, 1), np.nan),
        "mean_peak_ratio": np.where(mean > 0, peak / np.where(mean > 0, mean, 1), np.nan),
        "references_reached": 100 * (scores <= peak[:, None]).sum(1) / np.isfinite(scores).sum(1),
        "rank": rank,
        "most_activated": rank == 0,
    }


def _of_facets(part: Measured, scores: Float[np.ndarray, "picture rank"]) -> Float[np.ndarray, "picture _rank"]:
    """Scores of references, NaN for those that are of another facet than the picture."""
    of = part.reference_facets(part.shown.tolist())
    return scores if of is None else np.where(of == part.facets[:, None], scores[:, : of.shape[1]], np.nan)


def _beside_references(
    part: Measured,
    features: Float[np.ndarray, "picture feature"],
    way: Mapping[str, Float[np.ndarray, "picture _channel"]],
    photos: JudgedReferences,
) -> dict[str, np.ndarray]:
    """How pictures compare with their neurons' references: in the network's own ``features``, at the nodes on the
    ``way`` to the neurons, and in their pixels."""
    references = [photos.rows[row] for row in part.rows]
    near = nearest_similarity(features, [photos.features[OWN_NETWORK][rows] for rows in references])
    natural = np.array([photos.variation[rows].mean() if len(rows) else np.nan for rows in references])
    of_pixels = [(variation(pixels), clipped(pixels)) for pixels in part.pixels()]
    varied, lost = (np.concatenate(each) for each in zip(*of_pixels, strict=True))
    # of one neuron they may have next to none
    lost_beside = lost / max(photos.clipped.mean(), FEWEST_CLIPPED)
    gap = _known({"processing_gap": processing_gap(way, photos.passed, photos.rows, part.rows)})
    return {"nearest_reference": near, "variation": varied / natural, "clipped": lost_beside, **gap}


def _meant(
    judge: str, photos: JudgedReferences, divided: bool
) -> tuple[dict[str, Float[np.ndarray, "neuron"]], dict[str, Float[np.ndarray, "picture"]]]:
    """How far a judge sees one meaning in the references of each neuron, and, where they are ``divided``, in those of
    each facet."""
    of_neurons = measures_of_references(photos.features[judge], photos.rows)
    named = {metric_name(metric, judge): values for metric, values in of_neurons.items()}
    if not (named and divided):
        return named, {}
    apart, clear = measures_of_facets(photos.features[judge], photos.rows, photos.facets)
    named |= _known({metric_name("facets_apart", judge): apart})
    return named, _known({metric_name("clarity", judge): clear})


def _readable(
    judge: str,
    pictures: Float[np.ndarray, "picture feature"],
    together: Sequence[Int[np.ndarray, "_picture"]],
    photos: JudgedReferences,
    questions: Questions,
) -> dict[str, np.ndarray]:
    """What a judge can tell from the pictures of each neuron, from as many photographs, from a few, and from all
    references. Of a few there are none of a neuron with fewer references."""
    features = photos.features[judge]
    as_photographs = standardised(features, questions.sample[judge])
    few = {name: [own[:count] if len(own) >= count else own[:0] for own in photos.rows] for name, count in FEW.items()}
    explanations = {
        "readability": mean_explanations(pictures, together),
        "readability_as_many": mean_explanations(features, photos.leading),
        "readability_as_pictures": mean_explanations(features, photos.rows),
        "readability_references": means_of(as_photographs, photos.rows),
        **{name: means_of(as_photographs, rows) for name, rows in few.items()},
    }
    return _known(
        {
            metric_name(metric, judge): readability(given, questions.features[judge], questions.of)
            for metric, given in explanations.items()
        }
    )


def _counted(questions: Questions) -> dict[str, np.ndarray]:
    """Of how many photographs what is asked of each neuron is."""
    return {
        QUERIES_ASKED: np.array([len(one.exciting) for one in questions.of], np.float64),
        OTHERS_ASKED: np.array([len(one.others) for one in questions.of], np.float64),
    }


def _known(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those that are known of any neuron."""
    return {name: values for name, values in columns.items() if np.isfinite(values).any()}


def _siblings(
    job: EvaluateJob, part: Measured, judges: Mapping[str, Judge], loaded: LoadedModel
) -> dict[str, list[Float[np.ndarray, "picture feature"]]]:
    """Every judge's features of the same neurons' pictures in each atlas of another seed; NaN where it has none."""
    features: dict[str, list[np.ndarray]] = {name: [] for name in judges}
    for url in job.siblings:
        other = Measured.of(open_atlas(url), part.statistics, part.layer)
        there, judged = np.isin(part.shown, other.neurons), _Judged(False, part.shown)
        for pixels in part.pixels(other.pictures):
            judged.add(judges, _tensor(pixels, loaded))
        for name, seen in features.items():
            seen.append(np.where(there[:, None], judged.features(name), np.nan))
    return features


def _readable_together(
    judge: str,
    seen: Sequence[Float[np.ndarray, "picture feature"]],
    together: Sequence[Int[np.ndarray, "_picture"]],
    questions: Questions,
) -> dict[str, np.ndarray]:
    """What a judge can tell from the pictures of each neuron in all of several atlases: each atlas's features are
    standardised among its own pictures, and their mean is the explanation. NaN for a neuron that one of them lacks."""
    mean = np.mean([standardised(each, each[np.isfinite(each).all(1)]) for each in seen], axis=0)
    whole = [rows if np.isfinite(mean[rows]).all() else rows[:0] for rows in together]
    told = readability(mean_explanations(mean, whole), questions.features[judge], questions.of)
    return _known({metric_name("readability_together", judge): told})
