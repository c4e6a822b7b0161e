"""What pictures are judged beside: their neurons' references, and images that ask what an explanation tells.

Both are read from their shards once for all atlases of the same neurons, and looked at by every judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num
from torch import Tensor

from flows.jobs import EvaluateJob
from flows.running.process import LoadedModel, decoders_of, judges_at, load_at_side, load_stored, stored_model
from flows.steps.images import StoredImages, moved_urls, read_placed, reference_crops
from flows.steps.targets import variant_of
from flows.steps.targets.graded import learnt_from
from stores import References, Statistics, open_statistics
from vital.judging.judges import Judge, own_judge
from vital.judging.metrics import clipped, variation
from vital.judging.names import OWN_NETWORK
from vital.judging.readability import ASKED, FEWEST, FEWEST_ASKED, Question, lower_half, standardised
from vital.judging.trust.processing import joined, passed
from vital.measuring.kept.ranking import NOBODY

CHUNK = 32
"""Images in memory at a time."""
COMPARED = 10
"""References of a neuron that its picture is compared with, the best first."""


@dataclass(frozen=True)
class Asked:
    """Which photographs are meant: those of some neurons of a layer, by the variant of their targets. ``made_of``, the
    store's fingerprints, tells apart a store that was made anew."""

    store: str
    made_of: tuple[str, ...]
    layer: str
    variant: str
    neurons: tuple[int, ...]
    facets: tuple[tuple[int, ...], ...] | None = None
    """The facet of each of their references, where these are divided."""


@dataclass(frozen=True)
class JudgedReferences:
    """A layer's references: rows of each neuron's among all that were looked at, `COMPARED` of each and the strongest
    of each facet; these in every judge's features, what they give at the nodes on the way to the neurons, how much
    their neighbouring pixels differ, and the share of their values that are clipped: all at the pictures' side, save
    what judges see."""

    rows: Sequence[Int[np.ndarray, "_reference"]]
    """Of each neuron, the best first."""
    facets: Sequence[Int[np.ndarray, "_reference"]]
    """The facet of each of these, 0 where they are not divided."""
    leading: Sequence[Int[np.ndarray, "_facet"]]
    """The strongest of each facet of a neuron among them: as many photographs as there are pictures of it."""
    features: Mapping[str, Float[np.ndarray, "image _feature"]]
    passed: Mapping[str, Float[np.ndarray, "image _channel"]]
    variation: Float[np.ndarray, "image"]
    clipped: Float[np.ndarray, "image"]


@lru_cache(maxsize=2)
def references_of(job: EvaluateJob, asked: Asked, side: int) -> JudgedReferences:
    """Each image and crop is judged once. Of ``job`` only what does not name an atlas counts: the same for all atlases
    of the same neurons, so it is kept."""
    statistics = open_statistics(asked.store)
    loaded = load_stored(statistics, job.running)
    at_side, layouts = load_at_side(stored_model(statistics), job.running, side).model, loaded.survey.layouts()
    judges = {OWN_NETWORK: own_judge(loaded.model), **judges_at(job.judges, loaded, job.running, job.download)}
    targets = statistics.targets(asked.layer, asked.variant)
    used, nodes = variant_of(targets).references, targets.nodes
    references = statistics.references(asked.layer, used, asked.neurons)
    undivided = np.where(references.image == NOBODY, -1, 0)
    of = undivided if asked.facets is None else np.array(asked.facets, np.int8).reshape(undivided.shape)
    first = leading_ranks(of)
    looked_at = np.tile(np.arange(references.image.shape[1]) < COMPARED, (len(first), 1))
    for position, leading in enumerate(first):
        looked_at[position, leading] = True
    images = np.where(looked_at, references.image, NOBODY)
    neurons, ranks = images.shape
    # each reference by itself, so that it is known which rank has which row
    alone = References(
        images.reshape(-1, 1), references.score.reshape(-1, 1), references.site.reshape(-1, 1),
        references.box.reshape(-1, 1, 4),
    )  # fmt: skip
    places = statistics.reference_places(asked.layer, asked.neurons, ranks).of(images)
    source = _stored_images(statistics, job, loaded)
    crops = reference_crops(source, alone, places, whole=asked.variant.startswith("image"))
    row = np.full(neurons * ranks, -1, np.int64)

    def noted() -> Iterator[Tensor]:
        for number, (pixels, positions) in enumerate(crops):
            row[list(positions)] = number
            yield pixels

    seen: list[Mapping[str, np.ndarray]] = []
    flat: list[np.ndarray] = []
    lost: list[np.ndarray] = []
    way = []
    for shown, features in _judged(noted(), judges):
        seen.append(features)
        smaller = F.interpolate(shown, (side, side), mode="bilinear", antialias=True)
        way.append(passed(at_side, nodes, smaller, layouts))
        pixels = smaller.permute(0, 2, 3, 1).numpy()
        flat.append(variation(pixels))
        lost.append(clipped(pixels))
    row = row.reshape(neurons, ranks)
    return JudgedReferences(
        [own[own >= 0] for own in row],
        [facet[own >= 0].astype(np.int64) for own, facet in zip(row, of, strict=True)],
        [own[chosen] for own, chosen in zip(row, first, strict=True)],
        _in_a_row(seen),
        joined(way),
        np.concatenate(flat),
        np.concatenate(lost),
    )


def leading_ranks(facets: Int[np.ndarray, "neuron rank"]) -> list[Int[np.ndarray, "_facet"]]:
    """The rank of the strongest reference of each facet of every neuron, from the facets of its references, the best
    first; −1 is no reference."""
    leading = []
    for own in facets:
        _, first = np.unique(own, return_index=True)
        leading.append(first[own[first] >= 0])
    return leading


@dataclass(frozen=True)
class Questions:
    """One question a neuron; the images that they are about in every judge's features, standardised over the sample;
    and the sample's features as they are."""

    of: Sequence[Question]
    features: Mapping[str, Float[np.ndarray, "image _feature"]]
    sample: Mapping[str, Float[np.ndarray, "member _feature"]]


@lru_cache(maxsize=2)
def questions_of(job: EvaluateJob, asked: Asked) -> Questions | None:
    """What is asked of any explanation of some neurons; None where the store keeps no queries or no sample.

    Targets may have learnt from half of the sample (`flows.steps.targets.graded`): nothing of it is asked about.
    Images are whole, also where targets are of patches: of a sample no patches are known, and queries that were cut
    would be told apart by that. As `references_of`, it is kept.
    """
    statistics = open_statistics(asked.store)
    kept = statistics.claimed_kept(asked.layer) or {}
    if not (kept.get("queries") and kept.get("sample")):
        return None
    references = statistics.references(asked.layer, None, asked.neurons)
    used = variant_of(statistics.targets(asked.layer, asked.variant)).references or references.image.shape[1]
    ranks = references.and_then(statistics.queries(asked.layer, asked.neurons)).image
    sample = statistics.sample(asked.layer)
    learnt = np.isin(sample.image, learnt_from(statistics, asked.layer))
    lower = [sample.image[~learnt][lower_half(sample.peak[~learnt, neuron])] for neuron in asked.neurons]
    exciting = [
        row[(row != NOBODY) & ~np.isin(row, np.append(sample.image[learnt], weak))][:ASKED]
        for row, weak in zip(ranks[:, used:], lower, strict=True)
    ]
    others = [np.setdiff1d(weak, row[:used]) for row, weak in zip(ranks, lower, strict=True)]
    images = np.unique(np.concatenate([sample.image, *exciting]))
    features = _features_of(job, asked, images)
    drawn = np.searchsorted(images, sample.image)
    questions = [
        Question(np.searchsorted(images, mine), np.searchsorted(images, theirs))
        for mine, theirs in zip(exciting, others, strict=True)
    ]
    sampled = {name: every[drawn] for name, every in features.items()}
    over = {name: standardised(every, sampled[name]) for name, every in features.items()}
    return Questions(questions, over, sampled)


def why_unasked(layer: str, questions: Questions | None) -> str:
    """Why judges cannot be asked about the pictures of some neurons of a layer, in a sentence with the way out; empty
    where they can about all."""
    if questions is None:
        return (
            f"what pictures of layer {layer!r} tell other networks is not known, since the store keeps no queries or "
            "no sample to ask about: make statistics with --queries and --sample"
        )
    neurons, unfair = len(questions.of), sum(not one.fair for one in questions.of)
    if neurons < FEWEST:
        return (
            f"what pictures of layer {layer!r} tell other networks is not known, since {neurons} are too few to tell "
            f"their style from what they show: make pictures of {FEWEST} neurons or more"
        )
    if not unfair:
        return ""
    sampled = len(next(iter(questions.sample.values()), ()))
    return (
        f"what pictures of {unfair} of {neurons} neurons of layer {layer!r} tell other networks is not known, since "
        f"fewer than {FEWEST_ASKED} queries or weak images of a sample of {sampled} are left beside those that targets "
        "learn from: make statistics of more images, or with more --queries and a larger --sample"
    )


def _features_of(
    job: EvaluateJob, asked: Asked, images: Int[np.ndarray, "image"]
) -> dict[str, Float[np.ndarray, "image _feature"]]:
    """Whole images, given in ascending order, in the features of every judge."""
    statistics = open_statistics(asked.store)
    loaded = load_stored(statistics, job.running)
    judges = judges_at(job.judges, loaded, job.running, job.download)
    places = statistics.places(images.tolist())
    photographs = read_placed(_stored_images(statistics, job, loaded), places, range(len(places)))
    return _in_a_row([features for _, features in _judged((pixels for _, pixels in photographs), judges)])


def _stored_images(statistics: Statistics, job: EvaluateJob, loaded: LoadedModel) -> StoredImages:
    urls, decoders = moved_urls(statistics, job.shards), decoders_of(job.running, loaded.device)
    return StoredImages(statistics, loaded.model.preprocessing, urls, decoders)


def _judged(
    images: Iterator[Num[Tensor, "colour side side"]], judges: Mapping[str, Judge]
) -> Iterator[tuple[Num[Tensor, "image colour side side"], Mapping[str, Float[np.ndarray, "image _feature"]]]]:
    """Images as many as are in memory at a time, and these in the features of every judge."""
    while part := list(islice(images, CHUNK)):
        shown = torch.stack(part)
        yield shown, {name: judge.features(shown) for name, judge in judges.items()}


def _in_a_row(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Float[np.ndarray, "image _feature"]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
