from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from vital.judging.readability import chance_error
from vital.judging.trust.findings import (
    ALARMS,
    AS_READABLE,
    AS_UNLIKE,
    AS_UNREADABLE,
    AS_WEAK,
    COMPETENT,
    FEWEST,
    LED,
    LIKE_PHOTOGRAPHS,
    OTHERS_ASKED,
    QUERIES_ASKED,
    REACHED,
    STEERED,
    held_out_peaks,
    in_turn,
    is_of_neuron,
    shares,
    trust,
    trust_of_layer,
)

GOOD = {
    "mean_peak_ratio": 1.1,
    "readability_squeezenet": 0.7,
    "readability_references_squeezenet": 0.75,
    "processing_gap": 0.2,
}
BAD = {"mean_peak_ratio": 0.4, "readability_squeezenet": 0.5, "processing_gap": 0.9}
OF_FINDING = (
    ("mean_peak_ratio",),
    ("readability_squeezenet", "readability_references_squeezenet"),
    ("processing_gap",),
)


@pytest.mark.parametrize("said", list(product([True, False, None], repeat=3)))
def test_every_combination_counts_what_holds_and_what_is_known(said: tuple[bool | None, ...]) -> None:
    metrics = dict(GOOD)
    for names, holds in zip(OF_FINDING, said, strict=True):
        for name in names:
            if holds is None:
                del metrics[name]
            elif not holds:
                metrics[name] = BAD.get(name, metrics[name])
    found = trust(metrics)
    assert [finding.holds for finding in found.findings] == list(said)
    assert found.level == said.count(True)
    assert found.known == 3 - said.count(None)
    assert found.doubtful == (False in said)
    assert found.sentence.endswith(".")
    assert found.sentence.count("not measured") == said.count(None)


@pytest.mark.parametrize("share", [-0.2, LED - 1e-6, LED, 1.0])
def test_where_it_was_asked_for_there_is_a_fourth_finding(share: float) -> None:
    found, without = trust({**GOOD, STEERED: share}), trust(GOOD)
    assert len(found.findings) == found.known == 4
    assert found.level == 3 + (share < LED)
    assert found.doubtful == (share >= LED)
    assert found.sentence.startswith(without.sentence.removesuffix("."))
    assert ("not led to one picture" in found.sentence) == (share < LED)
    assert "led to" not in without.sentence
    assert trust({**GOOD, STEERED: np.nan}).findings == without.findings
    assert is_of_neuron(STEERED)


def test_what_a_judge_was_asked_in_vain_is_unknown_and_not_to_be_measured_again() -> None:
    said = trust({"top1_own": 1.0, "top1_squeezenet": 0.0, "processing_gap": np.nan}, asked=True)
    assert [finding.holds for finding in said.findings] == [True, None, None]
    assert said.sentence.count("unknown") == 2
    assert "not measured" not in said.sentence
    # a picture that came after the evaluation
    assert trust({"top1_own": np.nan}, asked=True).sentence.count("not measured") == 3


@pytest.mark.parametrize(
    ("name", "inside", "outside", "finding"),
    [
        ("mean_peak_ratio", REACHED, REACHED - 1e-6, 0),
        ("readability_squeezenet", 0.75 - AS_READABLE + 1e-6, 0.75 - AS_READABLE - 1e-6, 1),
        ("processing_gap", LIKE_PHOTOGRAPHS - 1e-6, LIKE_PHOTOGRAPHS, 2),
    ],
)
def test_bounds_are_where_they_are_said_to_be(name: str, inside: float, outside: float, finding: int) -> None:
    assert trust({**GOOD, name: inside}).findings[finding].holds is True
    assert trust({**GOOD, name: outside}).findings[finding].holds is False


@pytest.mark.parametrize(("exciting", "others"), [(3, 3), (3, 4), (2, 6), (5, 4)])
def test_the_error_of_an_area_by_chance_is_that_of_all_orders(exciting: int, others: int) -> None:
    """Whatever images come first is as likely: each choice of ranks once."""
    ranks = range(exciting + others)
    areas = []
    for mine in combinations(ranks, exciting):
        before = sum(theirs < own for own in mine for theirs in ranks if theirs not in mine)
        areas.append(before / (exciting * others))
    assert np.mean(areas) == pytest.approx(0.5)
    assert chance_error(exciting, others) == pytest.approx(np.std(areas))


@pytest.mark.parametrize(
    ("queries", "others", "bound"), [(10, 1000, 0.1), (10, 60, 0.1), (3, 1000, 0.1670), (3, 12, 0.1925), (5, 6, 0.1826)]
)
def test_fewer_queries_leave_more_to_chance(queries: float, others: float, bound: float) -> None:
    few = GOOD | {QUERIES_ASKED: queries, OTHERS_ASKED: others}
    inside, outside = (trust({**few, "readability_squeezenet": 0.75 - bound + by}).readable for by in (1e-4, -1e-4))
    assert (inside.holds, outside.holds) == (True, False)
    counted = f"of {queries} queries and {others} other photographs, whose standard error is {bound:.2f}"
    assert (counted in inside.text) == (counted in outside.text) == (bound > AS_READABLE)
    # where photographs were held against the same questions, these say how rare it is
    measured = trust({**few, "readability_squeezenet": 0.3, AS_UNREADABLE: 0.3}).readable
    assert measured.holds is True
    assert "standard error" not in measured.text
    assert is_of_neuron(QUERIES_ASKED)


@pytest.mark.parametrize(
    ("metric", "share", "finding"),
    [("mean_peak_ratio", AS_WEAK, 0), ("readability_squeezenet", AS_UNREADABLE, 1), ("processing_gap", AS_UNLIKE, 2)],
)
def test_where_photographs_were_measured_their_share_decides_and_is_said(metric: str, share: str, finding: int) -> None:
    """Whatever the fixed bounds say."""
    common = trust({**GOOD, metric: BAD[metric], share: 0.3}).findings[finding]
    assert common.holds is True
    assert "30 % of photographs" in common.text
    rare = trust({**GOOD, share: ALARMS / 3}).findings[finding]
    assert rare.holds is False
    assert "1.7 % of photographs" in rare.text


def test_photographs_themselves_are_doubted_no_more_often_than_is_stated() -> None:
    """However they are spread: three findings, drawn together."""
    stream = np.random.default_rng(0)
    drawn = np.exp(stream.normal(size=(3, 4000)))
    found = [shares(part[:2000], part[2000:]) for part in drawn]
    metrics = {name: np.full(2000, value) for name, value in GOOD.items()}
    metrics |= dict(zip((AS_WEAK, AS_UNREADABLE, AS_UNLIKE), found, strict=True))
    doubted = np.mean([one.doubtful for one in trust_of_layer(metrics, range(2000))])
    assert 0.03 < doubted < ALARMS + 0.015  # three standard errors


def test_few_photographs_have_no_rare_one() -> None:
    assert np.isnan(shares(np.array([0.0]), np.arange(FEWEST - 1.0))).all()
    assert shares(np.array([-1.0, np.nan, 1e9]), np.arange(float(FEWEST)))[[0, 2]].tolist() == [1 / (FEWEST + 1), 1]
    assert 1 / (FEWEST + 1) <= ALARMS / 3


def test_a_photograph_s_peak_is_held_against_the_others() -> None:
    [three, one, none] = held_out_peaks(np.array([[4.0, 2, 0], [5, np.nan, np.nan], [np.nan] * 3]))
    assert three.tolist() == [4, 1, 0]
    assert np.isnan(one).all()
    assert len(none) == 0
    assert in_turn([three, none], [2, 1]).tolist() == [2.5, 0.5, 2]


def test_a_judge_that_cannot_tell_photographs_apart_is_not_asked() -> None:
    metrics = GOOD | {"readability_references_squeezenet": COMPETENT - 0.01, "readability_squeezenet": 0.3}
    found = trust(metrics)
    assert found.readable.holds is None
    assert "0.59" in found.sentence
    assert trust(metrics | {"readability_references_squeezenet": COMPETENT}).readable.holds is False


def test_judges_are_averaged_and_the_own_network_is_none() -> None:
    metrics = GOOD | {"readability_lite2": 0.5, "readability_references_lite2": 0.75}
    # means of 0.6 and 0.75: too far apart, where squeezenet alone had 0.70
    assert trust(metrics).readable.holds is False
    assert "0.60, all references 0.75" in trust(metrics).sentence
    said = trust(GOOD | {"readability_as_many_squeezenet": 0.66}).sentence
    assert "readable (0.70, as many photographs 0.66, all references 0.75)" in said
    own = GOOD | {"readability_own": 0.0, "readability_references_own": 1.0}
    assert trust(own).readable == trust(GOOD).readable
    # a yardstick without a picture's figure, and the other way round, say nothing
    assert trust({"readability_references_lite2": 0.9}).readable.holds is None
    assert trust({"readability_lite2": 0.9}).readable.holds is None


@pytest.mark.parametrize(("top1", "holds"), [(1.0, True), (0.0, False), (float("nan"), None)])
def test_a_class_is_reached_where_the_network_sees_it(top1: float, holds: bool | None) -> None:
    assert trust({"top1_own": top1}).reached.holds is holds


def test_rows_of_a_layer_are_taken_by_neuron_and_nan_is_unknown() -> None:
    layer = {name: np.array([np.nan, value, BAD.get(name, value)]) for name, value in GOOD.items()}
    bad, good, none = trust_of_layer(layer, [2, 1, 0])
    assert (bad.level, good.level, none.level, none.known) == (0, 3, 0, 0)
    assert good == trust(GOOD)
    assert trust_of_layer({}, [5])[0].known == 0
