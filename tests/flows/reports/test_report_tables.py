"""A report's tables: which metrics come first, and which method is marked as the best."""

from __future__ import annotations

import math

from flows.reports.figures import REAL, YARDSTICKS, Lead
from flows.reports.tables import tables
from vital.judging.intervals import Interval


def figure(mean: float, neurons: int = 4) -> Interval:
    return Interval(float(mean), mean - 0.5, mean + 0.5, neurons, 1)


FIGURES = {
    "vital": {"surprise_judge": figure(1), "top1_own": figure(0.9), "peak": figure(7), "top1_judge": figure(0.8)},
    "maco": {"surprise_judge": figure(2), "top1_own": figure(0.9), "peak": figure(3), "top1_judge": figure(0.85)},
    REAL: {"surprise_judge": figure(0.1), "top1_judge": figure(1.0)},
}


def test_metrics_have_their_order_and_judges_theirs() -> None:
    [table] = tables(["judge"], FIGURES, {"vital": 1.25}, [])
    assert [column.name for column in table.columns] == [
        "top1 own", "top1 judge", "surprise judge", "peak", "seconds"
    ]  # fmt: skip
    assert [column.better for column in table.columns] == ["high", "high", "low", "", "low"]
    assert {label: cells[-1].mean for label, cells in table.rows.items()} == {"vital": "1.25", "maco": "–", REAL: "–"}


def test_the_best_is_the_better_end_and_never_a_photograph() -> None:
    [table] = tables(["judge"], FIGURES, {}, [])
    best = {label: [cell.best for cell in cells] for label, cells in table.rows.items()}
    # equal means are both the best, a metric without a better end has no best
    assert best["vital"] == [True, False, True, False, False]
    assert best["maco"] == [True, True, False, False, False]
    assert not any(best[REAL])


def test_a_single_method_is_not_the_best_of_anything() -> None:
    [table] = tables(["judge"], {"vital": FIGURES["vital"], REAL: FIGURES[REAL]}, {}, [])
    assert not any(cell.best for cells in table.rows.values() for cell in cells)


def test_what_is_unknown_is_a_dash_and_one_value_has_no_interval() -> None:
    figures = {"vital": {"peak": figure(math.nan)}, "maco": {"peak": figure(123.4, neurons=1)}}
    [table] = tables([], figures, {}, [])
    assert (table.rows["vital"][0].mean, table.rows["vital"][0].interval) == ("–", "")
    assert (table.rows["maco"][0].mean, table.rows["maco"][0].interval) == ("123", "")


def test_a_metric_against_a_method_and_against_photographs_has_a_row_for_each() -> None:
    against = ("maco", *YARDSTICKS)
    ahead = [Lead("readability_judge", baseline, figure(0.1), (0.0, 0.0), True) for baseline in against]
    *_, paired = tables(["judge"], FIGURES, {}, ahead)
    assert list(paired.rows) == [
        "readability_judge", "readability_judge, against as many photographs",
        "readability_judge, against four references",
        "readability_judge, against all references as pictures", "readability_judge, against all references",
    ]  # fmt: skip


def test_every_baseline_has_a_column_of_its_own_and_what_is_unknown_of_it_is_a_dash() -> None:
    known = [("processing_gap", "maco"), ("processing_gap", "pixel"), ("readability_judge", "pixel")]
    each = [Lead(metric, baseline, figure(row), (0.0, 0.0), True) for row, (metric, baseline) in enumerate(known)]
    *_, paired = tables(["judge"], FIGURES, {}, [], each)
    assert [column.name for column in paired.columns] == ["maco", "pixel"]
    assert {metric: [cell.mean for cell in cells] for metric, cells in paired.rows.items()} == {
        "processing_gap": ["0.00", "1.00"], "readability_judge": ["–", "2.00"]
    }  # fmt: skip
    assert len(tables(["judge"], FIGURES, {}, [], each[1:])) == 1  # one baseline is the best


def test_what_is_of_photographs_is_no_methods_merit() -> None:
    same = {name: {"readability_references_judge": figure(0.7)} for name in ("vital", "maco")}
    [table] = tables(["judge"], same, {}, [])
    assert not any(cell.best for cells in table.rows.values() for cell in cells)


def test_what_each_part_contributes_has_a_table_of_its_own() -> None:
    figures = {**FIGURES, "vital, pixels": {"peak": figure(5)}}
    methods, parts = tables(["judge"], figures, {}, [])
    assert list(methods.rows) == ["vital", "maco", REAL]
    assert list(parts.rows) == ["vital", REAL, "vital, pixels"]
