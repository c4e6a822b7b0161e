"""A comparison written out: report.json, details.json, plots, strips of pictures, and the page that shows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flows.pages.atlas import neuron_name
from flows.reports.figures import REAL, Lead, Method, badness, leads, methods_of, photograph_count, real_figures
from flows.reports.plan import ABLATIONS, VITAL, Comparison
from stores.arrays.provenance import claimed, fingerprint
from stores.arrays.schema import open_store
from stores.atlas import read_pictures
from stores.pages.report import Bar, Cell, Column, Image, Report, Section, Table, bars_png, page_html
from stores.pages.sheets import Strip, sheet_png, strips_sheet
from vital.judging.intervals import Interval
from vital.judging.names import OWN_NETWORK, meaning_of, metric_name, split_name
from vital.network.probe import CLASSES

SHOWN = 5
"""Median and worst pictures of each method on a strip."""
PLOTTED = {
    CLASSES: ("top1_own", "top1", "frechet", "nearest_reference"),
    "": ("peak_ratio", "references_reached", "rank", "frechet"),
}


def write_report(comparisons: Sequence[Comparison]) -> str:
    """Write it into the comparison's folder; returns the path of its page."""
    job = comparisons[0].job
    out = Path(job.out).absolute()
    figures: dict[str, dict[str, Interval]] = {}
    details: dict[str, Any] = {"job": json.loads(job.model_dump_json()), "layers": {}}
    sections, failures, verdict = [], [], []
    facts: dict[str, str] = {}
    for comparison in comparisons:
        failures += [f"{comparison.model.name}: {method}: {why}" for method, why in comparison.left_out.items()]
        facts |= _facts(comparison)
        for layer in job.layers:
            name = _name(comparison, layer, len(comparisons))
            methods = methods_of(comparison, layer)
            rows = {method.label: method.figures() for method in methods}
            if layer == CLASSES and (real := real_figures(comparison)):
                rows[REAL] = real
            for label, found in rows.items():
                figures.setdefault(label, {}).update({f"{name}/{metric}": one for metric, one in found.items()})
            ahead = leads(methods)
            verdict += [line for one in ahead for line in _sentences(name, one, rows)]
            failures += [line for method in methods for line in method.failed]
            images = _images(out, comparison, name, layer, methods, rows)
            sections.append(
                Section(
                    _title(comparison, layer),
                    _lines(comparison, layer, methods),
                    _tables(job.judges, methods, rows, ahead),
                    images,
                )
            )
            details["layers"][name] = _details(comparison, layer, methods, ahead)
    _json(out / "report.json", _plain(figures))
    _json(out / "details.json", details)
    page = Report("Methods compared", verdict, sections, failures, facts)
    (out / "index.html").write_text(page_html(page), "utf-8")
    return str(out / "index.html")


def _name(comparison: Comparison, layer: str, networks: int) -> str:
    return f"{comparison.model.name}/{layer}" if networks > 1 else layer


def _title(comparison: Comparison, layer: str) -> str:
    return f"{comparison.model.name}, {'class neurons' if layer == CLASSES else f'channels of {layer}'}"


def _plain(figures: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """{method: {metric: {mean, low, high}}}; JSON has no NaN."""
    return {
        label: {
            metric: {part: _number(getattr(one, part)) for part in ("mean", "low", "high")}
            for metric, one in sorted(found.items())
        }
        for label, found in figures.items()
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _sentences(name: str, lead: Lead, rows: Mapping[str, Mapping[str, Interval]]) -> list[str]:
    """What a metric says of the method against the best baseline; nothing of those that only the tables show."""
    (metric, judge), one = split_name(lead.metric), lead.difference
    basis = f"{lead.standing}; {one.neurons} classes, {one.seeds} seeds"
    if metric == "top1":
        ours, theirs = (f"{total:.0f}" for total in lead.sums)
        real = rows.get(REAL, {}).get(lead.metric)
        natural = f" Of held-out photographs it names {100 * real.mean:.0f} %." if real else ""
        ceiling = f" {lead.baseline} leaves too few to gain: were all of vital's named, it would not be clear either."
        rest = natural if lead.reachable else natural + ceiling
        return [
            f"{name}, {judge} as judge: it names {ours} of vital's {lead.pictures} pictures first and {theirs} of "
            f"{lead.baseline}'s, the best baseline: {100 * one.mean:+.1f} points "
            f"(95 % interval {100 * one.low:+.1f} to {100 * one.high:+.1f}, {basis}).{rest}"
        ]
    if metric == "surprise":
        return [
            f"{name}, {judge} as judge: its surprise at vital's pictures less that at {lead.baseline}'s, the best "
            f"baseline: {one.mean:+.2f} nats (95 % interval {one.low:+.2f} to {one.high:+.2f}, {basis})."
        ]
    return []


def _lines(comparison: Comparison, layer: str, methods: Sequence[Method]) -> list[str]:
    job = comparison.job
    counts = sorted({len(method.neurons) for method in methods})
    shown = " to ".join(map(str, counts[:: max(1, len(counts) - 1)])) if counts else "no"
    lines = [
        f"{shown} neurons, {job.seeds} seeds (what each part contributes: the first seed alone), {job.steps} steps, "
        f"{job.side} pixels, {job.references} references at most."
    ]
    if layer == CLASSES:
        photos, classes = photograph_count(comparison)
        lines.append(
            f"{photos} held-out photographs of {classes} classes are scored as if they were pictures; none of them is "
            "a reference."
        )
    return lines


def _tables(
    judges: Sequence[str], methods: Sequence[Method], rows: Mapping[str, Mapping[str, Interval]], ahead: Sequence[Lead]
) -> list[Table]:
    compared = {label: found for label, found in rows.items() if label not in ABLATIONS}
    without = {label: found for label, found in rows.items() if label in ABLATIONS or label in (VITAL, REAL)}
    seconds = {method.label: method.seconds for method in methods}
    note = "Mean over neurons and seeds; below it the 95 % interval, where there is more than one value."
    tables = [_table("Methods", judges, compared, seconds, note)]
    if len(without) > 2 or (len(without) == 2 and REAL not in without):
        note = "Each row leaves one part of the method out; these have pictures under the first seed alone."
        tables.append(_table("What each part contributes", judges, without, seconds, note))
    if ahead:
        columns = [
            Column("best baseline", "the one with the best mean"),
            Column("difference", "vital less it; of surprise less is better"),
        ]
        body = {lead.metric: [Cell(lead.baseline), _cell(lead.difference, False)] for lead in ahead}
        tables.append(Table("vital against the best baseline, paired by neuron and seed", columns, body))
    return tables


def _table(
    title: str,
    judges: Sequence[str],
    rows: Mapping[str, Mapping[str, Interval]],
    seconds: Mapping[str, float],
    note: str,
) -> Table:
    order = [OWN_NETWORK, *judges]
    names = sorted(
        {name for found in rows.values() for name in found},
        key=lambda name: (_rank_of(split_name(name, judges)[0]), _place(order, split_name(name, judges)[1]), name),
    )
    columns = [
        Column(name.replace("_", " "), meaning_of(name, judges).text, meaning_of(name, judges).better) for name in names
    ]
    columns.append(Column("seconds", "wall time of a picture in this run, with everything around it", "low"))
    body = {}
    for label, found in rows.items():
        cells = [
            _cell(found.get(name), label != REAL and _best(name, label, rows, meaning_of(name, judges).better))
            for name in names
        ]
        cost = seconds.get(label, math.nan)
        body[label] = [*cells, Cell(f"{cost:.2f}" if math.isfinite(cost) else "–")]
    return Table(title, columns, body, note)


def _rank_of(metric: str) -> int:
    order = (
        "top1",
        "top5",
        "rank",
        "surprise",
        "most_activated",
        "peak",
        "peak_ratio",
        "references_reached",
        "frechet",
    )
    return order.index(metric) if metric in order else len(order)


def _place(order: Sequence[str], judge: str) -> int:
    return order.index(judge) if judge in order else len(order)


def _best(name: str, label: str, rows: Mapping[str, Mapping[str, Interval]], better: str) -> bool:
    known = {
        one: found[name].mean
        for one, found in rows.items()
        if one != REAL and name in found and math.isfinite(found[name].mean)
    }
    if not better or label not in known or len(known) < 2:
        return False
    return known[label] == (max if better == "high" else min)(known.values())


def _cell(one: Interval | None, best: bool) -> Cell:
    if one is None or not math.isfinite(one.mean):
        return Cell("–")
    return Cell(_short(one.mean), f"{_short(one.low)} to {_short(one.high)}" if one.bounded else "", best)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _images(
    out: Path,
    comparison: Comparison,
    name: str,
    layer: str,
    methods: Sequence[Method],
    rows: Mapping[str, Mapping[str, Interval]],
) -> list[Image]:
    stem = name.replace("/", "-").replace(":", "-")
    wanted = PLOTTED.get(layer, PLOTTED[""])
    order = [OWN_NETWORK, *comparison.job.judges]
    groups: dict[str, list[Bar]] = {}
    for metric in (full for part in wanted for full in _full(part, order)):
        bars = [
            Bar(label, one.mean, one.low if one.bounded else math.nan, one.high if one.bounded else math.nan)
            for label, found in rows.items()
            if (one := found.get(metric)) is not None and math.isfinite(one.mean)
        ]
        if bars and metric not in groups:
            groups[metric.replace("_", " ")] = bars
    images = []
    if groups:
        plot = bars_png(_title(comparison, layer), groups, VITAL)
        images.append(_saved(out / f"{stem}-metrics.png", plot, f"{name}: metrics of every method with 95 % intervals"))
    strips = strips_sheet(
        [_strip(comparison, layer, method) for method in methods if method.neurons], ("median", "worst")
    )
    text = f"{name}: of each method its median and its worst pictures, under the first seed"
    return [*images, _saved(out / f"{stem}-pictures.png", sheet_png(strips), text)]


def _full(part: str, judges: Sequence[str]) -> list[str]:
    """The names that a part stands for: one a judge, or itself."""
    try:
        meaning_of(part)
    except KeyError:
        return [metric_name(part, judge) for judge in judges]
    return [part]


def _strip(comparison: Comparison, layer: str, method: Method) -> Strip:
    order = np.argsort(badness(method, layer), kind="stable")
    start = max(0, (len(order) - SHOWN) // 2)
    halves = [order[start : start + SHOWN], order[-SHOWN:]]
    atlas = open_store(comparison.atlas(method.cases[0]), "atlas", "r")
    tiles = []
    for half in halves:
        neurons = [method.neurons[place] for place in half]
        pixels = read_pictures(atlas, layer, neurons)["pixels"]
        tiles.append([(neuron_name(atlas, layer, neuron), one) for neuron, one in zip(neurons, pixels, strict=True)])
    return Strip(method.label, tiles)


def _saved(path: Path, data: bytes, text: str) -> Image:
    path.write_bytes(data)
    width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))  # of a PNG's header
    return Image(path.name, text, width, height)


def _details(comparison: Comparison, layer: str, methods: Sequence[Method], ahead: Sequence[Lead]) -> dict[str, Any]:
    photos, classes = photograph_count(comparison) if layer == CLASSES else (0, 0)
    return {
        "methods": {
            method.label: {
                "neurons": list(method.neurons),
                "seeds": [case.seed for case in method.cases],
                "seconds_a_picture": _number(method.seconds),
                "failed": list(method.failed),
                "counts": {name: int(np.isfinite(values).sum()) for name, values in sorted(method.values.items())},
                "settings": method.cases[0].picture.model_dump(mode="json"),
            }
            for method in methods
        },
        "against_best_baseline": [
            {"metric": lead.metric, "baseline": lead.baseline, "reachable": lead.reachable, **asdict(lead.difference)}
            for lead in ahead
        ],
        "held_out_photographs": photos,
        "held_out_classes": classes,
    }


def _facts(comparison: Comparison) -> dict[str, str]:
    statistics = open_store(comparison.store, "statistics", "r")
    base = claimed(statistics, "base") or {}
    return {
        comparison.model.name: f"weights {base.get('weights', '?')}, statistics {fingerprint(base)}",
        f"{comparison.model.name}, judged by": ", ".join(comparison.job.judges) or "itself alone",
    }
