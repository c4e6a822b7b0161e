"""A comparison written out: report.json, details.json, and the page with its images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flows.reports.figures import (
    REAL,
    YARDSTICKS,
    Lead,
    MethodFigures,
    against_each,
    leads,
    methods_of,
    photograph_count,
    real_figures,
)
from flows.reports.images import images
from flows.reports.plan import Comparison
from flows.reports.tables import Figures, tables
from stores import open_statistics
from stores.pages.report import Report, Section, page_html
from vital.judging.intervals import Interval
from vital.judging.names import EVERY_JUDGE, split_name
from vital.network.probe import CLASSES


def write_report(comparisons: Sequence[Comparison]) -> str:
    """Write it into the comparison's folder; returns the path of its page."""
    job = comparisons[0].job
    out = Path(job.out).absolute()
    total: dict[str, dict[str, Interval]] = {}
    details: dict[str, Any] = {"job": json.loads(job.model_dump_json()), "layers": {}}
    sections, failures, verdict = [], [], []
    facts: dict[str, str] = {}
    for comparison in comparisons:
        failures += [f"{comparison.model.name}: {method}: {why}" for method, why in comparison.left_out.items()]
        facts |= _facts(comparison)
        for layer in job.layers:
            name = f"{comparison.model.name}/{layer}" if len(comparisons) > 1 else layer
            title = f"{comparison.model.name}, {'class neurons' if layer == CLASSES else f'neurons of {layer}'}"
            methods = methods_of(comparison, layer)
            figures = {method.label: method.intervals() for method in methods}
            if layer == CLASSES and (real := real_figures(comparison)):
                figures[REAL] = real
            for label, metrics in figures.items():
                total.setdefault(label, {}).update({f"{name}/{metric}": one for metric, one in metrics.items()})
            ahead, each = leads(methods), against_each(methods)
            verdict += [line for lead in ahead for line in _verdict(name, layer, lead, figures)]
            failures += [line for method in methods for line in method.failed]
            seconds = {method.label: method.seconds for method in methods}
            sections.append(
                Section(
                    title,
                    _introduction(comparison, layer, methods),
                    tables(job.judges, figures, seconds, ahead, each),
                    images(comparison, name, title, layer, methods, figures),
                )
            )
            details["layers"][name] = _details(comparison, layer, methods, ahead, each)
    _write_json(out / "report.json", _as_json(total))
    _write_json(out / "details.json", details)
    page = Report("Methods compared", verdict, sections, failures, facts)
    (out / "index.html").write_text(page_html(page), "utf-8")
    return str(out / "index.html")


def _as_json(figures: Figures) -> dict[str, dict[str, dict[str, float | None]]]:
    """{method: {metric: {mean, low, high}}}; JSON has no NaN."""
    return {
        label: {
            metric: {part: _number(getattr(one, part)) for part in ("mean", "low", "high")}
            for metric, one in sorted(metrics.items())
        }
        for label, metrics in figures.items()
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _verdict(name: str, layer: str, lead: Lead, figures: Figures) -> list[str]:
    """The sentence on the method and the best baseline in one metric; none on metrics that only the tables show."""
    (metric, judge), one = split_name(lead.metric), lead.difference
    judged_by = "mean of all judges" if judge == EVERY_JUDGE else f"{judge} as judge"
    basis = f"{lead.standing}; {one.neurons} {'classes' if layer == CLASSES else 'neurons'}, {one.seeds} seeds"
    if metric == "top1":
        ours, theirs = (f"{total:.0f}" for total in lead.sums)
        real = figures.get(REAL, {}).get(lead.metric)
        natural = f" Of held-out photographs it names {100 * real.mean:.0f} %." if real else ""
        ceiling = f" {lead.baseline} leaves too few to gain: were all of vital's named, it would not be clear either."
        rest = natural if lead.reachable else natural + ceiling
        return [
            f"{name}, {judged_by}: it names {ours} of vital's {lead.pictures} pictures first and {theirs} of "
            f"{lead.baseline}'s, the best baseline: {100 * one.mean:+.1f} points "
            f"(95 % interval {100 * one.low:+.1f} to {100 * one.high:+.1f}, {basis}).{rest}"
        ]
    if metric == "surprise":
        return [
            f"{name}, {judged_by}: surprise at vital's pictures less that at {lead.baseline}'s, the best "
            f"baseline: {one.mean:+.2f} nats (95 % interval {one.low:+.2f} to {one.high:+.2f}, {basis})."
        ]
    if metric in ("readability", "readability_together", "processing_gap") and one.neurons:
        # what it is called in a sentence, and by whom it is said
        what, who = ("processing gap", "") if not judge else ("readability", f", {judged_by}")
        seeds = " of all seeds together" if metric == "readability_together" else ""
        photographs = f"that of {lead.baseline} of the neurons"
        than = photographs if lead.baseline in YARDSTICKS else f"that of {lead.baseline}'s, the best baseline"
        return [
            f"{name}{who}: {what} of vital's pictures{seeds} less {than}: {one.mean:+.3f} "
            f"(95 % interval {one.low:+.3f} to {one.high:+.3f}, {basis})."
        ]
    return []


def _introduction(comparison: Comparison, layer: str, methods: Sequence[MethodFigures]) -> list[str]:
    """How much a section's figures rest on."""
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


def _details(
    comparison: Comparison,
    layer: str,
    methods: Sequence[MethodFigures],
    ahead: Sequence[Lead],
    each: Sequence[Lead],
) -> dict[str, Any]:
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
        "against_every_baseline": [
            {"metric": lead.metric, "baseline": lead.baseline, **asdict(lead.difference)} for lead in each
        ],
        "held_out_photographs": photos,
        "held_out_classes": classes,
    }


def _facts(comparison: Comparison) -> dict[str, str]:
    statistics = open_statistics(comparison.store)
    weights = statistics.base.get("weights", "?")
    return {
        comparison.model.name: f"weights {weights}, statistics {statistics.base_fingerprint}",
        f"{comparison.model.name}, judged by": ", ".join(comparison.job.judges) or "itself alone",
    }
