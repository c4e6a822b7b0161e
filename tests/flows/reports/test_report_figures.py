"""How far ahead a method is, on values whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from flows.reports.figures import YARDSTICKS, Lead, MethodFigures, against_each, better_sign, leads, over_judges
from vital.judging.names import classification_metrics, meaning_of

NEURONS = 30


def method(label: str, **values: np.ndarray) -> MethodFigures:
    """Two seeds: the given value of each neuron, twice."""
    columns = {name: np.stack([row.astype(float)] * 2, 1) for name, row in values.items()}
    return MethodFigures(label, list(range(NEURONS)), columns, {}, [], 1.0, [])


def lead(metric: str, *methods: MethodFigures) -> Lead:
    return next(one for one in leads(methods) if one.metric == metric)


def test_the_best_baseline_is_the_lowest_where_low_is_better() -> None:
    ours = method("vital", surprise_judge=np.linspace(1, 2, NEURONS), top1_judge=np.ones(NEURONS))
    worse = method("pixel", surprise_judge=np.linspace(8, 9, NEURONS), top1_judge=np.zeros(NEURONS))
    better = method("maco", surprise_judge=np.linspace(3, 4, NEURONS), top1_judge=np.arange(NEURONS) < 20)
    found = lead("surprise_judge", ours, worse, better)
    assert (found.baseline, found.standing) == ("maco", "ahead, clear of zero")
    assert found.difference.mean == pytest.approx(-2)
    named = lead("top1_judge", ours, worse, better)
    assert (named.baseline, named.sums, named.pictures) == ("maco", (60, 40), 60)
    assert named.standing == "ahead, clear of zero"


def test_more_is_better_less_is_or_neither() -> None:
    assert [better_sign(name) for name in ("top1_judge", "surprise_judge", "peak_ratio", "variation")] == [1, -1, 1, 0]
    assert [better_sign(name) for name in ("readability_judge", "processing_gap", "clipped")] == [1, -1, -1]


def test_behind_and_undecided_are_called_so() -> None:
    ours, other = (
        method("vital", top1_judge=np.zeros(NEURONS), surprise_judge=np.tile([1.0, 3.0], NEURONS // 2)),
        method("fourier", top1_judge=np.ones(NEURONS), surprise_judge=np.tile([3.0, 1.0], NEURONS // 2)),
    )
    assert lead("top1_judge", ours, other).standing == "behind, clear of zero"
    assert lead("surprise_judge", ours, other).standing == "not clear of zero"


def test_a_baseline_at_the_ceiling_leaves_nothing_to_gain() -> None:
    """One of thirty neurons missed: a resample has no such neuron in a third of all draws, so zero cannot be left
    behind; with ten it can."""
    ours = method("vital", top1_judge=np.ones(NEURONS), surprise_judge=np.ones(NEURONS))
    nearly = method("fourier", top1_judge=np.arange(NEURONS) > 0, surprise_judge=np.full(NEURONS, 0.5))
    found = lead("top1_judge", ours, nearly)
    assert (found.standing, found.reachable) == ("not clear of zero", False)
    assert lead("surprise_judge", ours, nearly).standing == "behind, clear of zero"
    assert lead("surprise_judge", ours, nearly).reachable
    short = method("fourier", top1_judge=np.arange(NEURONS) >= 10, surprise_judge=np.full(NEURONS, 0.5))
    assert lead("top1_judge", ours, short).reachable


def test_the_networks_own_word_is_no_transfer() -> None:
    own = {"top1_own": np.ones(NEURONS)}
    assert leads([method("vital", **own), method("maco", **own)]) == []


def test_likeness_to_photographs_is_compared_and_readability_with_the_neurons_own() -> None:
    """Of one neuron a judge knows nothing, and of one method nothing at all."""
    rising = np.linspace(0.6, 0.8, NEURONS)
    some = np.where(np.arange(NEURONS) == 0, np.nan, rising)
    yardsticks = {
        "readability_as_many_judge": rising - 0.02,
        "readability_four_judge": rising - 0.015,
        "readability_as_pictures_judge": rising - 0.01,
        "readability_references_judge": rising + 0.05,
    }
    ours = method("vital", readability_judge=some, processing_gap=rising, **yardsticks)
    other = method("maco", readability_judge=some - 0.1, processing_gap=rising + 2)
    unread = method("pixel", processing_gap=rising + 1, readability_judge=np.full(NEURONS, np.nan))
    gap = lead("processing_gap", ours, other, unread)
    assert (gap.baseline, gap.standing) == ("pixel", "ahead, clear of zero")
    each = [(one.metric, one.baseline, round(one.difference.mean, 6)) for one in against_each([ours, other, unread])]
    assert each == [
        ("readability_judge", "maco", 0.1), ("processing_gap", "maco", -2.0), ("processing_gap", "pixel", -1.0)
    ]  # fmt: skip
    against = [one for one in leads([ours, other, unread]) if one.metric == "readability_judge"]
    assert [one.baseline for one in against] == ["maco", *YARDSTICKS]
    assert [one.standing for one in against] == ["ahead, clear of zero"] * 4 + ["behind, clear of zero"]
    assert [one.difference.mean for one in against] == pytest.approx([0.1, 0.02, 0.015, 0.01, -0.05])
    assert [one.difference.neurons for one in against] == [NEURONS - 1] * 5
    assert [one.metric for one in leads([ours, method("maco", processing_gap=rising)])] == [
        "processing_gap", *["readability_judge"] * len(YARDSTICKS),
    ]  # fmt: skip


def test_pictures_of_all_seeds_are_not_compared_with_as_many_photographs_as_one_seed_has() -> None:
    rising = np.linspace(0.6, 0.8, NEURONS)
    yardsticks = {"readability_as_many_judge": rising - 0.1, "readability_references_judge": rising}
    ours = method("vital", readability_judge=rising - 0.05, readability_together_judge=rising - 0.02, **yardsticks)
    other = method("maco", readability_judge=rising - 0.2, readability_together_judge=rising - 0.1)
    found = {(one.metric, one.baseline): round(one.difference.mean, 6) for one in leads([ours, other])}
    assert found == {
        ("readability_judge", "maco"): 0.15,
        ("readability_judge", "as many photographs"): 0.05,
        ("readability_judge", "all references"): -0.05,
        ("readability_together_judge", "maco"): 0.08,
        ("readability_together_judge", "all references"): -0.02,
    }


def test_how_a_judge_names_pictures() -> None:
    """By the formula of cross-entropy; a network that says nothing names nothing."""
    logits = np.random.default_rng(0).normal(size=(6, 10)) * 5
    classes = [3, 1, 4, 1, 5, 9]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = classification_metrics(logits, classes, "judge")
    np.testing.assert_allclose(found["surprise_judge"], -np.log(shares[range(6), classes]), rtol=1e-9)
    assert (found["top1_judge"] == (logits.argmax(1) == classes)).all()
    silent = classification_metrics(np.full((1, 10), np.nan, np.float32), [2], "judge")
    assert not silent["top1_judge"][0]
    assert np.isnan(silent["surprise_judge"][0])


def test_the_judges_are_held_together_where_there_are_two() -> None:
    """One judge's liking may be its own: a mean hides it no longer than the other says so. What one does not know of a
    neuron is not known of both."""
    first, second = np.linspace(0.4, 0.8, NEURONS)[:, None], np.linspace(0.9, 0.5, NEURONS)[:, None]
    second[3] = np.nan
    values = {"readability_one": first, "readability_two": second, "readability_own": np.ones((NEURONS, 1))}
    both = over_judges({**values, "top1_one": first, "top1_two": second, "variation": first})
    assert list(both) == ["readability_all"]
    expected = [(a + b) / 2 for a, b in zip(first[:, 0], second[:, 0], strict=True)]
    np.testing.assert_allclose(both["readability_all"][:, 0], expected, rtol=1e-12)
    assert np.flatnonzero(np.isnan(both["readability_all"])).tolist() == [3]
    assert over_judges({"readability_one": first, "readability_own": second}) == {}
    ours = method("vital", readability_all=np.full(NEURONS, 0.7), readability_one=np.full(NEURONS, 0.7))
    other = method("maco", readability_all=np.full(NEURONS, 0.6), readability_one=np.full(NEURONS, 0.8))
    assert [(one.metric, one.standing) for one in leads([ours, other])] == [
        ("readability_all", "ahead, clear of zero"), ("readability_one", "behind, clear of zero"),
    ]  # fmt: skip
    assert "each judge on average tells" in meaning_of("readability_all").text
