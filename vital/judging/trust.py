"""How far a picture can be trusted to show what its neuron responds to: three findings from metrics, in one sentence.

A picture can excite its neuron and yet be nothing that the neuron sees in photographs: noise, or what somebody hid in
the network (Geirhos et al., "Don't trust your eyes", ICML 2024; Bareeva et al., "Manipulating feature visualizations
with gradient slingshots", 2025). Each finding looks at another side of this, and none of them alone is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vital.judging.names import OWN_NETWORK, metric_name

REACHED = 0.9
"""Least share of the references' mean peak. The references themselves lie on both sides of their mean, so that a
picture just below it is one of them; and the picture was moved and blurred before it was measured."""
COMPETENT = 0.6
"""Least readability of a neuron's own photographs for a judge to be asked about its picture: one that cannot tell these
apart by other photographs of the same neuron, for which 0.5 is chance, would call every picture unreadable."""
AS_READABLE = 0.1
"""Most by which a picture may be less readable than as many photographs. It is about the standard error of one neuron's
area under the curve with ten queries that excite it: √(1 / (12 · 10)) = 0.09 (Hanley and McNeil, 1982)."""
LIKE_PHOTOGRAPHS = 0.5
"""Greatest processing gap: half way from the neuron's own photographs (0) to images of other neurons (1)."""


LOOKED_AT = ("reached", "readable", "treated like photographs")
"""The findings in their order, as adjectives of a picture."""
_PICTURE, _PHOTOGRAPHS = "readability_", "readability_references_"
"""Begin the names of these metrics; a judge's name follows."""


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

    @property
    def findings(self) -> tuple[Finding, Finding, Finding]:
        """All three, in this order."""
        return self.reached, self.readable, self.natural

    @property
    def level(self) -> int:
        """How many hold: 3 is a picture that nothing speaks against, 0 one that nothing speaks for."""
        return sum(finding.holds is True for finding in self.findings)

    @property
    def known(self) -> int:
        """How many were measured."""
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


def trust(metrics: Mapping[str, float]) -> Trust:
    """The findings of one neuron from its metrics by name, as `vital evaluate` writes them; NaN is not measured.

    ``mean_peak_ratio`` tells whether it was reached, or ``top1_own`` of a class; ``readability_JUDGE`` against
    ``readability_references_JUDGE``, means over judges, whether it can be read; ``processing_gap`` whether it is
    treated like photographs.

    >>> found = trust({"mean_peak_ratio": 1.02, "processing_gap": 0.8})
    >>> found.reached.text, found.readable.holds, found.natural.text
    ('reaches its references (1.02 of their mean peak)', None, 'not treated like photographs (gap 0.80)')
    """
    known = {name: float(value) for name, value in metrics.items() if not math.isnan(value)}
    return Trust(_reached(known), _readable(known), _natural(known))


def trust_of_layer(metrics: Mapping[str, Float[np.ndarray, "neuron"]], neurons: Sequence[int]) -> list[Trust]:
    """`trust` of some neurons, from a layer's metrics."""
    return [trust({name: float(values[neuron]) for name, values in metrics.items()}) for neuron in neurons]


def _reached(known: Mapping[str, float]) -> Finding:
    own_class = metric_name("top1", OWN_NETWORK)
    if own_class in known:
        holds = known[own_class] > 0
        return Finding(holds, f"its own network sees {'its' if holds else 'another'} class in it")
    if "mean_peak_ratio" in known:
        ratio = known["mean_peak_ratio"]
        said = "reaches" if ratio >= REACHED else "does not reach"
        return Finding(ratio >= REACHED, f"{said} its references ({ratio:.2f} of their mean peak)")
    return Finding(None, "how far it excites the neuron not measured")


def _readable(known: Mapping[str, float]) -> Finding:
    judges = [name.removeprefix(_PHOTOGRAPHS) for name in known if name.startswith(_PHOTOGRAPHS)]
    pairs = [
        (known[_PICTURE + judge], known[_PHOTOGRAPHS + judge])
        for judge in judges
        if judge != OWN_NETWORK and _PICTURE + judge in known
    ]
    if not pairs:
        return Finding(None, "readability not measured")
    own, photographs = np.mean(pairs, axis=0).tolist()
    if photographs < COMPETENT:
        return Finding(None, f"readability unknown since photographs of the neuron have {photographs:.2f} themselves")
    holds = own >= photographs - AS_READABLE
    return Finding(holds, f"{'' if holds else 'not '}readable ({own:.2f}, photographs {photographs:.2f})")


def _natural(known: Mapping[str, float]) -> Finding:
    if "processing_gap" not in known:
        return Finding(None, "whether it is treated like photographs not measured")
    gap = known["processing_gap"]
    holds = gap < LIKE_PHOTOGRAPHS
    return Finding(holds, f"{'' if holds else 'not '}treated like photographs (gap {gap:.2f})")
