"""What is drawn of photographs beside pictures."""

from __future__ import annotations

import math

from flows.reports.images import _told_by_photographs
from vital.judging.intervals import Interval

JUDGES = ("squeezenet", "lite2")


def figure(mean: float) -> Interval:
    return Interval(mean, mean - 0.1, mean + 0.1, 9, 2)


OF_PHOTOGRAPHS = {"readability_one_all": figure(0.55), "readability_references_all": figure(0.7)}
FIGURES = {
    "pixel": {"readability_all": figure(math.nan)},
    "vital": {"readability_all": figure(0.65), "readability_squeezenet": figure(0.6), **OF_PHOTOGRAPHS},
    "maco": {"readability_all": figure(0.6), **OF_PHOTOGRAPHS, "readability_four_all": figure(0.62)},
    "vital, no emphasis": {"readability_all": figure(0.6)},
}


def test_what_photographs_tell_is_drawn_once_beside_every_method_that_was_asked_about() -> None:
    """Of a judge alone nothing is drawn where it is not known what photographs tell it, nor of a part left out."""
    told = _told_by_photographs(JUDGES, FIGURES)
    assert list(told) == ["mean of all judges"]
    [one] = told.values()
    assert [(step.label, step.mean) for step in one.steps] == [("1", 0.55), ("4", 0.62), ("all", 0.7)]
    assert [(level.label, level.mean) for level in one.levels] == [("vital", 0.65), ("maco", 0.6)]
    assert (one.steps[0].low, one.steps[0].high) == (figure(0.55).low, figure(0.55).high)
