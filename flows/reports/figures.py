"""The figures of a comparison: metrics of every method over neurons and seeds, and how far apart the methods are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flows.reports.controls import COSTS, PHOTOGRAPHS, read_record
from flows.reports.plan import ABLATIONS, VITAL, Case, Comparison
from stores import open_atlas
from stores.errors import PICTURE_STATUS_MEANINGS, PictureStatus
from vital.judging.intervals import Interval, interval, paired
from vital.judging.names import EVERY_JUDGE, OWN_NETWORK, meaning_of, metric_name, split_name
from vital.judging.readability import FEW
from vital.network.probe import CLASSES

REAL = "photographs"
"""The label of held-out photographs, which are scored as if they were pictures."""
TRANSFER = {"top1": 1.0, "top5": 1.0, "surprise": 0.0, "readability": 1.0, "readability_together": 1.0}
"""Metrics of a judge that say whether pictures mean to it what they mean to the network, and their best value."""
LIKENESS = {"processing_gap": 0.0, "clipped": 0.0}
"""Metrics that say whether pictures are like photographs, and their best value."""
YARDSTICKS = {
    "as many photographs": "readability_as_many",
    "four references": "readability_four",
    "all references as pictures": "readability_as_pictures",
    "all references": "readability_references",
}
"""Stand for a baseline where a neuron's own photographs are compared with its pictures, by their metric."""
OF_PHOTOGRAPHS = tuple(dict.fromkeys([*FEW, *YARDSTICKS.values()]))
"""What photographs tell: the same for every method."""
HELD_AGAINST = {
    "readability": tuple(YARDSTICKS),
    # as many are of one seed's pictures
    "readability_together": ("four references", "all references as pictures", "all references"),
}
"""The photographs that pictures are compared with, by metric."""
OVER_JUDGES = ("surprise", "readability", "readability_together", *OF_PHOTOGRAPHS)
"""Metrics of which the mean over the judges is given as well: what one network sees alone is partly its own."""
Values = Mapping[str, Float[np.ndarray, "neuron seed"]]


@dataclass(frozen=True)
class MethodFigures:
    """What one method reached on one layer: values by metric, of the same neurons in the same order, seeds side by
    side; ``of_layer`` are the metrics of all its pictures together. ``failed`` has a line for every picture that became
    undefined, ``seconds`` is what a picture took, NaN where that is not known."""

    label: str
    neurons: Sequence[int]
    values: Values
    of_layer: Mapping[str, Float[np.ndarray, "seed"]]
    failed: Sequence[str]
    seconds: float
    cases: Sequence[Case]

    def intervals(self) -> dict[str, Interval]:
        """A mean with its interval for every metric; of the layer as a whole over seeds alone."""
        of_neurons = {name: interval(values) for name, values in self.values.items()}
        return of_neurons | {name: interval(values[None]) for name, values in self.of_layer.items()}


@dataclass(frozen=True)
class Lead:
    """How far the method is from the best baseline in one metric, neuron by neuron and seed by seed: its values less
    the other's. ``sums`` of both are over all pictures compared; ``reachable`` is whether pictures with the metric's
    best value, all of them, would be ahead and clear of zero: not where the baseline itself is nearly there."""

    metric: str
    baseline: str
    difference: Interval
    sums: tuple[float, float]
    reachable: bool

    @property
    def pictures(self) -> int:
        """How many pictures of each of the two were compared."""
        return self.difference.neurons * self.difference.seeds

    @property
    def standing(self) -> str:
        """What the interval says: ahead, behind, or neither."""
        low, high = _gain(self.metric, self.difference)
        return "ahead, clear of zero" if low > 0 else "not clear of zero" if high >= 0 else "behind, clear of zero"


def _gain(metric: str, difference: Interval) -> tuple[float, float]:
    """The bounds of a difference, turned so that more is better."""
    sign = better_sign(metric)
    low, high = sorted((sign * difference.low, sign * difference.high))
    return low, high


def better_sign(metric: str) -> int:
    """What a metric is multiplied by so that more is better; 0 where neither end is.

    >>> better_sign("top1_squeezenet"), better_sign("rank"), better_sign("variation")
    (1, -1, 0)
    """
    return {"high": 1, "low": -1, "": 0}[meaning_of(metric).better]


def methods_of(comparison: Comparison, layer: str) -> list[MethodFigures]:
    """Every method's values on a layer; a method's neurons are those with a picture under every seed."""
    cases = [case for case in comparison.cases() if case.layer == layer]
    costs = read_record(comparison.folder / COSTS)
    return [
        _method(comparison, [case for case in cases if case.label == label], costs)
        for label in dict.fromkeys(case.label for case in cases)
    ]


def _method(comparison: Comparison, cases: Sequence[Case], costs: Mapping[str, Mapping[str, float]]) -> MethodFigures:
    layer = cases[0].layer
    atlases = [open_atlas(comparison.atlas(case)).layer(layer) for case in cases]
    pictured = np.logical_and.reduce([atlas.made() for atlas in atlases])
    tables = [atlas.metrics() for atlas in atlases]
    values = {
        name: np.stack([table[name][pictured] for table in tables], 1).astype(np.float64)
        for name in tables[0]
        if all(name in table for table in tables)
    }
    whole = [atlas.layer_metrics() for atlas in atlases]
    of_layer = {
        name: np.array([np.nan if one[name]["value"] is None else one[name]["value"] for one in whole])
        for name in whole[0]
        if all(name in one for one in whole)
    }
    failed = []
    for case, atlas in zip(cases, atlases, strict=True):
        for neuron in np.flatnonzero(atlas.status() == PictureStatus.NON_FINITE):
            reason = PICTURE_STATUS_MEANINGS[PictureStatus.NON_FINITE]
            failed.append(f"{case.label}, seed {case.seed}: {layer} {neuron}, {reason}")
    known = [costs[key] for case in cases if (key := f"{layer}/{case.name}") in costs]
    pictures = sum(cost["pictures"] for cost in known)
    seconds = sum(cost["seconds"] for cost in known) / pictures if pictures else float("nan")
    neurons = np.flatnonzero(pictured).tolist()
    return MethodFigures(cases[0].label, neurons, {**values, **over_judges(values)}, of_layer, failed, seconds, cases)


def over_judges(values: Values) -> Values:
    """The mean over the judges of what each says (`OVER_JUDGES`), where there are two or more; unknown where it is not
    known of one.

    >>> of_two = {"surprise_a": np.ones((1, 1)), "surprise_b": 3 * np.ones((1, 1)), "surprise_own": np.zeros((1, 1))}
    >>> over_judges(of_two)
    {'surprise_all': array([[2.]])}
    """
    found: dict[str, list[np.ndarray]] = {}
    for name, of_one in values.items():
        metric, judge = split_name(name)
        if metric in OVER_JUDGES and judge not in ("", OWN_NETWORK):
            found.setdefault(metric_name(metric, EVERY_JUDGE), []).append(of_one)
    return {name: np.mean(each, axis=0) for name, each in found.items() if len(each) > 1}


def real_figures(comparison: Comparison) -> dict[str, Interval]:
    """What held-out photographs score, class by class."""
    record = read_record(comparison.folder / PHOTOGRAPHS)
    if not record:
        return {}
    classes = record["classes"].values()
    names = sorted({name for scores in classes for name in scores})
    values = {name: np.array([[scores[name]] for scores in classes], np.float64) for name in names}
    of_classes = {name: interval(each) for name, each in {**values, **over_judges(values)}.items()}
    return of_classes | {name: interval(np.array([[value]])) for name, value in record["layer"].items()}


def photograph_count(comparison: Comparison) -> tuple[int, int]:
    """Held-out photographs that were looked at, and their classes."""
    record = read_record(comparison.folder / PHOTOGRAPHS)
    return (int(record["count"]), len(record["classes"])) if record else (0, 0)


def leads(methods: Sequence[MethodFigures]) -> list[Lead]:
    """The method against the baseline with the best mean: by transfer under each judge, and by likeness to photographs;
    and its readability against that of the neurons' own photographs, as many and all. What is known of no baseline is
    left out."""
    ours, others = _sides(methods)
    if ours is None or not others:
        return []
    ahead = []
    for name, best_value in _compared(ours):
        measured = _measured(name, others)
        if measured:
            best = max(measured, key=lambda method: better_sign(name) * float(np.nanmean(method.values[name])))
            ahead.append(_paired(name, ours, best, best_value))
    for name in sorted(ours.values):
        metric, judge = split_name(name)
        ahead.extend(
            _lead(name, baseline, ours.values[name], ours.values[yardstick], TRANSFER[metric])
            for baseline in HELD_AGAINST.get(metric, ())
            if (yardstick := metric_name(YARDSTICKS[baseline], judge)) in ours.values
        )
    return ahead


def against_each(methods: Sequence[MethodFigures]) -> list[Lead]:
    """The method against every baseline, by the same metrics: the best of several by their means is lucky, too."""
    ours, others = _sides(methods)
    if ours is None:
        return []
    return [
        _paired(name, ours, other, best_value)
        for name, best_value in _compared(ours)
        for other in _measured(name, others)
    ]


def _sides(methods: Sequence[MethodFigures]) -> tuple[MethodFigures | None, list[MethodFigures]]:
    """The method and the baselines."""
    ours = next((method for method in methods if method.label == VITAL), None)
    return ours, [method for method in methods if method.label != VITAL and method.label not in ABLATIONS]


def _compared(ours: MethodFigures) -> list[tuple[str, float]]:
    """Metrics in which the method is held against baselines, with their best values."""
    known = {name: split_name(name) for name in sorted(ours.values)}
    return [
        (name, best_value)
        for wanted, best_value in {**TRANSFER, **LIKENESS}.items()
        for name, (metric, judge) in known.items()
        if metric == wanted and (judge not in ("", OWN_NETWORK) or wanted in LIKENESS)
    ]


def _measured(metric: str, methods: Sequence[MethodFigures]) -> list[MethodFigures]:
    """Those of which the metric is known."""
    return [method for method in methods if np.isfinite(method.values.get(metric, np.nan)).any()]


def _paired(metric: str, ours: MethodFigures, other: MethodFigures, best_value: float) -> Lead:
    """Of the neurons that both have."""
    shared = sorted(set(ours.neurons) & set(other.neurons))
    mine, theirs = (
        method.values[metric][[list(method.neurons).index(neuron) for neuron in shared]] for method in (ours, other)
    )
    return _lead(metric, other.label, mine, theirs, best_value)


def _lead(
    metric: str,
    baseline: str,
    mine: Float[np.ndarray, "neuron seed"],
    theirs: Float[np.ndarray, "neuron seed"],
    best_value: float,
) -> Lead:
    """Of values of the same neurons; those that are not known of both are left out."""
    both = np.isfinite(mine).all(1) & np.isfinite(theirs).all(1)
    mine, theirs = mine[both], theirs[both]
    ideal = paired(np.full_like(theirs, best_value), theirs)
    sums = float(mine.sum()), float(theirs.sum())
    return Lead(metric, baseline, paired(mine, theirs), sums, _gain(metric, ideal)[0] > 0)


def badness(method: MethodFigures, layer: str) -> Float[np.ndarray, "neuron"]:
    """By what the median and the worst cases are chosen, under the first seed: for classes the mean over judges of how
    many classes they prefer; else how many neurons are activated more, then how little the neuron is."""
    if layer == CLASSES:
        judged = [values[:, 0] for name, values in method.values.items() if name.startswith("rank_")]
        foreign = [
            values[:, 0]
            for name, values in method.values.items()
            if name.startswith("rank_") and OWN_NETWORK not in name
        ]
        chosen = foreign or judged
        return np.mean(chosen, axis=0) if chosen else np.zeros(len(method.neurons))
    ratio = np.nan_to_num(method.values["peak_ratio"][:, 0])
    worst: np.ndarray = method.values["rank"][:, 0] - ratio / (1 + np.abs(ratio).max(initial=0.0))
    return worst
