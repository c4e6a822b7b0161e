"""Names of the metrics, and what they mean: one table for stores, pages and reports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from vital.judging.metrics import ranks, surprise
from vital.judging.readability import FEW

OWN_NETWORK = "own"
"""Stands for the network that the pictures were made for, where others stand as judges."""
EVERY_JUDGE = "all"
"""Stands for the mean over the judges, where one stands."""
_CALLED = {OWN_NETWORK: "the network itself", EVERY_JUDGE: "each judge on average"}


class Meaning(NamedTuple):
    """What a metric means, its unit, and which end is the better one, where there is one."""

    text: str
    units: str = ""
    better: Literal["high", "low", ""] = ""


_OF_JUDGE = {
    "top1": Meaning("1 where {judge} classifies the picture as its class, else 0", "", "high"),
    "top5": Meaning("1 where the picture's class is among the first five of {judge}, else 0", "", "high"),
    "rank": Meaning("how many classes {judge} prefers to the picture's; 0 is best", "", "low"),
    "surprise": Meaning(
        "cross-entropy of the picture's class under {judge}; it tells pictures apart that are all classified right",
        "nat",
        "low",
    ),
    "readability_references": Meaning(
        "the same question as readability, of all the neuron's references that are looked at, up to ten or so, instead "
        "of its pictures: what photographs tell {judge}",
        "",
        "high",
    ),
    **{
        few: Meaning(
            f"the same question as readability, of the neuron's {strongest} as photographs, instead of its pictures: "
            "what so few tell {judge}",
            "",
            "high",
        )
        for few, strongest in zip(
            FEW, ("strongest reference", "two strongest references", "four strongest references"), strict=True
        )
    },
    "readability_as_many": Meaning(
        "the same question as readability, of as many of the neuron's references as it has pictures, the strongest of "
        "each facet: what {judge} tells from no more photographs, compared as pictures are",
        "",
        "high",
    ),
    "readability_as_pictures": Meaning(
        "the same question as readability, of the references that are looked at, compared as pictures are: what a "
        "picture would tell {judge} that were the mean of them",
        "",
        "high",
    ),
    "readability_together": Meaning(
        "the same question as readability, of the pictures of all seeds together: of the mean of what {judge} sees in "
        "them",
        "",
        "high",
    ),
    "readability": Meaning(
        "how well {judge} tells photographs that excite the neuron from others by their likeness to its pictures, of "
        "several facets to their mean: area under the curve, 0.5 is chance",
        "",
        "high",
    ),
    "clarity": Meaning(
        "mean cosine between two references of the neuron in the features of {judge}, less what references of all "
        "neurons share: 1 where all show the same, about 0 where they are as unlike as those of different neurons",
    ),
    "redundancy": Meaning(
        "greatest cosine between the neuron's references and another neuron's, their means in the features of {judge}; "
        "1 is a twin, and more neurons make it larger",
    ),
    "polysemanticity": Meaning(
        "one less the cosine between the two groups that the neuron's references best fall into, in the features of "
        "{judge}: 0 is one meaning; it says nothing where clarity is low",
    ),
    "facets_apart": Meaning(
        "one less the mean cosine between the centres of the facets into which the network divides the neuron's "
        "references, in the features of {judge}: 0 is one meaning, as that sees it",
    ),
    "frechet": Meaning(
        "Fréchet distance of the layer's pictures from their references in the features of {judge}; few pictures make "
        "it larger",
        "",
        "low",
    ),
}
OF_REFERENCES = ("clarity", "redundancy", "polysemanticity", "facets_apart", "queries_asked", "others_asked", "steered")
"""Metrics of neurons, which say nothing of their pictures: they are the same for every method."""
_WHERE_ASKED = ("as_unreadable", "queries_asked", "others_asked")
"""Metrics that are there only where judges were asked, and bear the name of none."""
_OF_NETWORK = ("steered",)
"""Metrics that no picture changes: what an evaluation found stays, until another one is asked for it."""
_OF_PICTURE = {
    "peak": Meaning("greatest activation of the neuron on its picture, moved by 8 and blurred by 1 of 224 pixels"),
    "peak_ratio": Meaning("the picture's peak over the neuron's peak on its best natural reference", "", "high"),
    "mean_peak_ratio": Meaning("the picture's peak over the mean of the neuron's peaks on its references", "", "high"),
    "references_reached": Meaning(
        "share of the neuron's references whose peak the picture reaches; 100: it excites the neuron more than any "
        "natural image does",
        "percent",
        "high",
    ),
    "rank": Meaning(
        "how many neurons of the layer the picture activates more than its own, each measured by its peaks over the "
        "data set; 0 is best",
        "",
        "low",
    ),
    "most_activated": Meaning("1 where the picture activates its own neuron the most of the layer, else 0", "", "high"),
    "curve_distance": Meaning(
        "distance of the picture's sorted rows from the target's, over the target's length, mean over nodes", "", "low"
    ),
    "nearest_reference": Meaning(
        "greatest cosine between the picture and one of its references in the network's features; 1 would be a copy"
    ),
    "variation": Meaning(
        "mean difference of neighbouring pixels over that of the neuron's references; natural pictures have about 1"
    ),
    "clipped": Meaning(
        "share of values at 0 or 255 over that of the layer's references; natural pictures have about 1", "", "low"
    ),
    "processing_gap": Meaning(
        "how unlike its references the network treats the picture on the way to the neuron: 0 as they are to each "
        "other, 1 as images of other neurons are",
        "",
        "low",
    ),
    "as_weak": Meaning(
        "share of the layer's references, each taken for a picture of its neuron, whose peak over the mean of the "
        "others is no more than mean_peak_ratio",
        "",
        "high",
    ),
    "as_unreadable": Meaning(
        "share of the layer's references, each taken for a picture of its neuron, that are no more readable against "
        "the others than the neuron's pictures are against all, mean over the judges of the last evaluation",
        "",
        "high",
    ),
    "as_unlike": Meaning(
        "share of the layer's references, each taken for a picture of its neuron, whose processing gap is no less",
        "",
        "high",
    ),
    "steered": Meaning(
        "how much more alike pictures are that begin differently and in which the neuron's activation alone is raised "
        "than those of the layer's neurons usually: 1 is one picture, to which somebody may have made the network lead",
        "",
        "low",
    ),
    "queries_asked": Meaning(
        "photographs that excite the neuron, of those that judges were asked to tell from others: ten at the most"
    ),
    "others_asked": Meaning("photographs that do not excite the neuron, from which judges were asked to tell those"),
    "diversity": Meaning(
        "1 less the mean cosine, in the network's features, between pictures of the neuron made with other seeds",
        "",
        "high",
    ),
}


def metric_name(metric: str, judge: str = "") -> str:
    """A metric's name in stores and reports.

    >>> metric_name("top1", "open_clip:ViT-B-32/laion2b"), metric_name("rank")
    ('top1_open_clip_ViT-B-32_laion2b', 'rank')
    """
    return f"{metric}_{re.sub(r'[^A-Za-z0-9.-]+', '_', judge)}" if judge else metric


def classification_metrics(
    logits: Float[np.ndarray, "picture class"], classes: Sequence[int] | Int[np.ndarray, "picture"], judge: str
) -> dict[str, Shaped[np.ndarray, "picture"]]:
    """The metrics of how a judge classifies pictures, from its logits and the class of each picture."""
    preferred = ranks(logits, classes)
    return {
        metric_name("top1", judge): preferred < 1,
        metric_name("top5", judge): preferred < 5,
        metric_name("rank", judge): preferred,
        metric_name("surprise", judge): surprise(logits, classes),
    }


def split_name(name: str, judges: Sequence[str] = ()) -> tuple[str, str]:
    """The metric and the judge of a name as `metric_name` gives it; as far as the name alone tells, where the judge is
    not among ``judges``.

    >>> split_name("top1_squeezenet"), split_name("most_activated")
    (('top1', 'squeezenet'), ('most_activated', ''))
    """
    for metric in _OF_JUDGE:
        if name.startswith(f"{metric}_"):
            known = {metric_name(metric, judge): judge for judge in judges}
            return metric, known.get(name, name.removeprefix(f"{metric}_"))
    return name, ""


def is_anew(name: str, judges: Sequence[str]) -> bool:
    """Whether an evaluation that asks these ``judges`` finds out anew what a metric of this name says, or that it is
    not known any more. What other judges said of the pictures stays as it was, and so do metrics that are none of ours.

    >>> [is_anew(name, ["a"]) for name in ("diversity", "top1_own", "readability_together_a", "clarity_b", "mine")]
    [True, True, True, False, False]
    >>> [is_anew(name, []) for name in ("diversity", "readability_a", "queries_asked", "steered")]
    [True, False, False, False]
    """
    metric, judge = split_name(name)
    if judge:
        return name in (metric_name(metric, asked) for asked in (OWN_NETWORK, *judges))
    return metric in _OF_PICTURE and metric not in _OF_NETWORK and (bool(judges) or metric not in _WHERE_ASKED)


def meaning_of(name: str, judges: Sequence[str] = ()) -> Meaning:
    """Text, unit and better end of the metric of this name; ``judges`` are those that it may be of."""
    metric, judge = split_name(name, judges)
    if not judge:
        return _OF_PICTURE[metric]
    meaning = _OF_JUDGE[metric]
    return meaning._replace(text=meaning.text.format(judge=_CALLED.get(judge, judge)))
