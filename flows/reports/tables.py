"""Figures of a comparison as tables: methods by metrics, what each part contributes, and the lead over the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from flows.reports.figures import OF_PHOTOGRAPHS, REAL, YARDSTICKS, Lead, better_sign
from flows.reports.plan import ABLATIONS, VITAL
from stores.pages.report import Table, TableCell, TableColumn
from vital.judging.intervals import Interval
from vital.judging.names import OF_REFERENCES, OWN_NETWORK, meaning_of, split_name

Figures = Mapping[str, Mapping[str, Interval]]
"""A mean with its interval by label of a method and name of a metric."""
ORDER = (
    "top1", "top5", "rank", "surprise", "readability", "readability_together", "readability_as_many",
    "readability_as_pictures", "readability_one", "readability_two", "readability_four", "readability_references",
    "processing_gap", "most_activated", "peak", "peak_ratio", "mean_peak_ratio", "references_reached", "frechet",
    "clipped",
)  # fmt: skip
"""Metrics from left to right; others follow by name."""
UNKNOWN = "–"


def tables(
    judges: Sequence[str],
    figures: Figures,
    seconds: Mapping[str, float],
    ahead: Sequence[Lead],
    each: Sequence[Lead] = (),
) -> list[Table]:
    """A layer's tables; ``seconds`` is what a picture took by label, ``ahead`` the lead over the best baseline and
    ``each`` that over every one."""
    compared = {label: metrics for label, metrics in figures.items() if label not in ABLATIONS}
    note = "Mean over neurons and seeds; below it the 95 % interval, where there is more than one value."
    shown = [_methods_by_metrics("Methods", judges, compared, seconds, note)]
    without = {label: metrics for label, metrics in figures.items() if label in (*ABLATIONS, VITAL, REAL)}
    if len(without) > 2 or (len(without) == 2 and REAL not in without):
        note = "Each row leaves one part of the method out; these have pictures under the first seed alone."
        shown.append(_methods_by_metrics("What each part contributes", judges, without, seconds, note))
    if ahead:
        columns = [
            TableColumn("best baseline", "the one with the best mean"),
            TableColumn("difference", "vital less it; of surprise, gap and clipped values less is better"),
        ]
        rows = {
            f"{lead.metric}, against {lead.baseline}" if lead.baseline in YARDSTICKS else lead.metric: [
                TableCell(lead.baseline), _cell(lead.difference, False)
            ]
            for lead in ahead
        }  # fmt: skip
        shown.append(Table("vital against the best baseline, paired by neuron and seed", columns, rows))
    baselines = list(dict.fromkeys(lead.baseline for lead in each))
    if len(baselines) > 1:
        found = {(lead.metric, lead.baseline): lead.difference for lead in each}
        columns = [TableColumn(name, f"vital less {name}, of the neurons that both have") for name in baselines]
        rows = {
            metric: [_cell(found.get((metric, name)), False) for name in baselines]
            for metric in dict.fromkeys(lead.metric for lead in each)
        }
        shown.append(Table("vital less each baseline, paired by neuron and seed", columns, rows))
    return shown


def _methods_by_metrics(
    title: str, judges: Sequence[str], figures: Figures, seconds: Mapping[str, float], note: str
) -> Table:
    def order(name: str) -> tuple[int, int, str]:
        metric, judge = split_name(name, judges)
        return _index(ORDER, metric), _index((OWN_NETWORK, *judges), judge), name

    given = {name for metrics in figures.values() for name in metrics}
    names = sorted((name for name in given if split_name(name, judges)[0] not in OF_REFERENCES), key=order)
    meanings = [meaning_of(name, judges) for name in names]
    columns = [
        TableColumn(name.replace("_", " "), meaning.text, meaning.better)
        for name, meaning in zip(names, meanings, strict=True)
    ]
    columns.append(TableColumn("seconds", "wall time of a picture in this run, with everything around it", "low"))
    best = {name: _best(name, figures) for name in names}
    rows = {}
    for label, metrics in figures.items():
        cells = [_cell(metrics.get(name), label in best[name]) for name in names]
        cost = seconds.get(label, math.nan)
        rows[label] = [*cells, TableCell(f"{cost:.2f}" if math.isfinite(cost) else UNKNOWN)]
    return Table(title, columns, rows, note)


def _index(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _best(metric: str, figures: Figures) -> set[str]:
    """The methods with the best mean; none where no end is better, only one method has the metric, or it is of the
    neurons' photographs and so the same for all."""
    means = {
        label: better_sign(metric) * metrics[metric].mean
        for label, metrics in figures.items()
        if label != REAL and metric in metrics and math.isfinite(metrics[metric].mean)
    }
    of_photographs = split_name(metric)[0] in OF_PHOTOGRAPHS
    if better_sign(metric) == 0 or len(means) < 2 or of_photographs:
        return set()
    return {label for label, mean in means.items() if mean == max(means.values())}


def _cell(figure: Interval | None, best: bool) -> TableCell:
    if figure is None or not math.isfinite(figure.mean):
        return TableCell(UNKNOWN)
    interval = f"{_short(figure.low)} to {_short(figure.high)}" if figure.bounded else ""
    return TableCell(_short(figure.mean), interval, best)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
