"""How far a picture can be trusted to show what its neuron responds to: findings from metrics, in one sentence.

A picture can excite its neuron and yet be nothing that the neuron sees in photographs: noise, or what somebody hid in
the network (Geirhos et al., "Don't trust your eyes", ICML 2024; Bareeva et al., "Manipulating feature visualizations
with gradient slingshots", 2025). Each finding looks at another side of this, and none of them alone is enough. A
fourth, which costs nearly what pictures do, is there where it was asked for (`vital.judging.trust.steering`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vital.judging.names import OWN_NETWORK, metric_name
from vital.judging.readability import chance_error

ALARMS = 0.05
"""Share of neurons that the three findings together doubt at most, were their own photographs shown as their pictures:
each finding may doubt a third of it (Bonferroni)."""
FEWEST = 60
"""Photographs of a layer by which so rare a one can be told."""
COMPETENT = 0.6
"""Least readability of a neuron's own photographs for a judge to be asked about its picture: one that cannot tell these
apart by other photographs of the same neuron, for which 0.5 is chance, would call every picture unreadable."""
REACHED, AS_READABLE, LIKE_PHOTOGRAPHS = 0.9, 0.1, 0.5
"""Bounds where too few photographs were measured to know how these differ: the least share of the references' mean
peak; the most by which a picture may be less readable than all references, which is about the standard error of one
neuron's area under the curve with ten queries, and grows to that of fewer (`chance_error`); and the greatest processing
gap, half way from the neuron's own photographs to images of other neurons."""

LED = 0.5
"""Least share of the way from the layer's usual to one picture at which a neuron counts as led to one."""

LOOKED_AT = ("reached", "readable", "treated like photographs")
"""The findings in their order, as adjectives of a picture."""
STEERED = "steered"
"""Name of the metric that a fourth finding is of, where it was asked for."""
NOT_STEERED = "not steered"
"""That finding as an adjective."""
_PICTURE, _PHOTOGRAPHS, _AS_MANY = "readability_", "readability_references_", "readability_as_many_"
"""Begin the names of these metrics; a judge's name follows."""
AS_WEAK, AS_UNREADABLE, AS_UNLIKE = "as_weak", "as_unreadable", "as_unlike"
"""Names of metrics: which share of photographs, shown as pictures of their neurons, would do no better."""
QUERIES_ASKED, OTHERS_ASKED = "queries_asked", "others_asked"
"""Names of metrics: how many photographs that excite the neuron, and how many others, its readability is an area of."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it ``holds``, None where that is not known, and a clause that says so."""

    holds: bool | None
    text: str


@dataclass(frozen=True)
class Trust:
    """What is known of a picture: whether it excites its neuron as photographs do, whether other networks can read it,
    and whether its own network treats it like photographs on the way to the neuron."""

    reached: Finding
    readable: Finding
    natural: Finding
    free: Finding | None = None
    """That the network does not lead to one picture whatever it begins as; None where it was not asked for."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was looked at, in the order of `LOOKED_AT`; a fourth where it was asked for."""
        return (self.reached, self.readable, self.natural, *((self.free,) if self.free else ()))

    @property
    def level(self) -> int:
        """How many hold: all of a picture that nothing speaks against, 0 of one that nothing speaks for."""
        return sum(finding.holds is True for finding in self.findings)

    @property
    def known(self) -> int:
        """How many were measured, whether they hold or not."""
        return sum(finding.holds is not None for finding in self.findings)

    @property
    def doubtful(self) -> bool:
        """Whether one of them is known not to hold."""
        return any(finding.holds is False for finding in self.findings)

    @property
    def sentence(self) -> str:
        """All of them, with the numbers that they follow from."""
        clauses = ", ".join(finding.text for finding in self.findings)
        return f"{clauses[0].upper()}{clauses[1:]}."


def trust(metrics: Mapping[str, float], asked: bool = False) -> Trust:
    """The findings of one neuron from its metrics by name, as `vital evaluate` writes them; NaN is not measured, or,
    where a judge was ``asked`` about the neuron's pictures, cannot be.

    ``mean_peak_ratio`` tells whether it was reached, or ``top1_own`` of a class; ``readability_JUDGE`` against
    ``readability_references_JUDGE``, means over judges, whether it can be read, by so many photographs as
    ``queries_asked`` and ``others_asked`` say; ``processing_gap`` whether it is treated like photographs. Each is held
    against photographs by its `shares`. ``steered`` tells whether its network leads to one picture.

    >>> found = trust({"mean_peak_ratio": 1.02, "as_weak": 0.6, "processing_gap": 0.8, "as_unlike": 0.004})
    >>> found.reached.text
    'reaches its references (1.02 of their mean peak; 60 % of photographs have no more)'
    >>> found.readable.holds, found.natural.text
    (None, 'not treated like photographs (gap 0.80; 0.4 % of photographs have as much)')
    """
    known = {name: float(value) for name, value in metrics.items() if not math.isnan(value)}
    measured = asked and bool(known)
    return Trust(_reached(known), _readable(known, measured), _natural(known, measured), _free(known))


def trust_of_layer(
    metrics: Mapping[str, Float[np.ndarray, "neuron"]], neurons: Sequence[int], asked: bool = False
) -> list[Trust]:
    """`trust` of some neurons, from a layer's metrics."""
    return [trust({name: float(values[neuron]) for name, values in metrics.items()}, asked) for neuron in neurons]


def is_of_neuron(metric: str) -> bool:
    """Whether a metric is of a neuron or its photographs rather than of a picture of it: the same for all pictures."""
    return metric.startswith(_PHOTOGRAPHS) or metric in (QUERIES_ASKED, OTHERS_ASKED, STEERED)


def shares(
    values: Float[np.ndarray, "neuron"], photographs: Float[np.ndarray, "photograph"]
) -> Float[np.ndarray, "neuron"]:
    """Which share of photographs, and of the neuron's own pictures as one of them, has no more than a neuron's value:
    its p-value, were the picture a photograph. NaN where a value is not known, and for all where fewer than `FEWEST`
    photographs are.

    >>> shares(np.array([0.5, 70.0]), np.arange(79.0))
    array([0.025, 0.9  ])
    """
    known = np.sort(photographs[np.isfinite(photographs)])
    if len(known) < FEWEST:
        return np.full(len(values), np.nan)
    share: np.ndarray = (1 + np.searchsorted(known, values, "right")) / (1 + len(known))
    return np.where(np.isfinite(values), share, np.nan)


def held_out_peaks(scores: Float[np.ndarray, "neuron rank"]) -> list[Float[np.ndarray, "_reference"]]:
    """The peak of each reference of every neuron over the mean of its others, whose peaks are ``scores``, NaN where
    there is no reference. NaN where there is no other, and where their mean is not above zero."""
    ratios = []
    for row in scores.astype(np.float64):
        own = row[np.isfinite(row)]
        others = (own.sum() - own) / max(len(own) - 1, 1)
        ratios.append(np.where(others > 0, own / np.where(others > 0, others, 1), np.nan))
    return ratios


def in_turn(
    values: Sequence[Float[np.ndarray, "_reference"]], counts: Sequence[int] | Int[np.ndarray, "neuron"]
) -> Float[np.ndarray, "photograph"]:
    """Values of all neurons' references, each averaged with those after it: as many as the neuron has pictures, whose
    values are averaged, too.

    >>> in_turn([np.array([1.0, 3.0, 5.0]), np.array([7.0])], [2, 1])
    array([2., 4., 3., 7.])
    """
    parts = [np.mean([np.roll(own, -by) for by in range(count)], 0) for own, count in zip(values, counts, strict=True)]
    return np.concatenate([np.empty(0), *parts])


def competent(photographs: Float[np.ndarray, "*neuron"]) -> Bool[np.ndarray, "*neuron"]:
    """Of which neurons judges can be asked, by the readability of all their references."""
    able: np.ndarray = photographs >= COMPETENT
    return able


def _reached(known: Mapping[str, float]) -> Finding:
    own_class = metric_name("top1", OWN_NETWORK)
    if own_class in known:
        holds = known[own_class] >= 0.5  # of several pictures most
        return Finding(holds, f"its own network sees {'its' if holds else 'another'} class in it")
    if "mean_peak_ratio" in known:
        ratio = known["mean_peak_ratio"]
        holds, share = _as_photographs(known, AS_WEAK, ratio >= REACHED)
        more = f"; {share} have no more" if share else ""
        said = "reaches" if holds else "does not reach"
        return Finding(holds, f"{said} its references ({_told(ratio)} of their mean peak{more})")
    return Finding(None, "how far it excites the neuron not measured")


def _readable(known: Mapping[str, float], asked: bool) -> Finding:
    judges = [name.removeprefix(_PHOTOGRAPHS) for name in known if name.startswith(_PHOTOGRAPHS)]
    pairs = [
        (known[_PICTURE + judge], known[_PHOTOGRAPHS + judge])
        for judge in judges
        if judge != OWN_NETWORK and _PICTURE + judge in known
    ]
    if not pairs:
        few = "unknown since too few photographs are kept to ask about, or too few neurons have pictures"
        return Finding(None, f"readability {few if asked else 'not measured'}")
    own, photographs = np.mean(pairs, axis=0).tolist()
    if photographs < COMPETENT:
        return Finding(None, f"readability unknown since photographs of the neuron have {photographs:.2f} themselves")
    counts = [known.get(name, math.inf) for name in (QUERIES_ASKED, OTHERS_ASKED)]
    bound = max(AS_READABLE, chance_error(*counts))
    holds, share = _as_photographs(known, AS_UNREADABLE, own >= photographs - bound)
    equal = [known[_AS_MANY + judge] for judge in judges if judge != OWN_NETWORK and _AS_MANY + judge in known]
    as_many = f"as many photographs {np.mean(equal):.2f}, " if equal else ""
    more = ""
    if share:
        more = f"; {share} do no better"
    elif bound > AS_READABLE:
        queries, others = counts
        more = f"; of {queries:.0f} queries and {others:.0f} other photographs, whose standard error is {bound:.2f}"
    beside = f"{as_many}all references {photographs:.2f}{more}"
    return Finding(holds, f"{'' if holds else 'not '}readable ({own:.2f}, {beside})")


def _natural(known: Mapping[str, float], asked: bool) -> Finding:
    if "processing_gap" not in known:
        few = "unknown since its photographs are too few or too unlike"
        return Finding(None, f"whether it is treated like photographs {few if asked else 'not measured'}")
    gap = known["processing_gap"]
    holds, share = _as_photographs(known, AS_UNLIKE, gap < LIKE_PHOTOGRAPHS)
    more = f"; {share} have as much" if share else ""
    return Finding(holds, f"{'' if holds else 'not '}treated like photographs (gap {_told(gap)}{more})")


def _free(known: Mapping[str, float]) -> Finding | None:
    if STEERED not in known:
        return None
    share = known[STEERED]
    if share < LED:
        return Finding(True, f"not led to one picture ({_told(share)})")
    return Finding(
        False,
        f"led to one picture whatever it begins as ({_told(share)}, where the layer's usual is 0 and the same picture "
        "1), as by a network that somebody has manipulated",
    )


def _told(value: float) -> str:
    """Two digits behind the point, and a minus as the pages have it."""
    return f"{value:.2f}".replace("-", "−")


def _as_photographs(known: Mapping[str, float], name: str, otherwise: bool) -> tuple[bool, str]:
    """Whether photographs that do no better are not too rare, and their share in words; ``otherwise`` where it is not
    known how photographs differ."""
    if name not in known:
        return otherwise, ""
    percent = 100 * known[name]
    return known[name] > ALARMS / 3, f"{percent:.{0 if percent >= 9.5 else 1}f} % of photographs"
