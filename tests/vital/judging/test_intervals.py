"""Intervals on numbers whose spread is known."""

from __future__ import annotations

import numpy as np
import pytest

from vital.judging.intervals import interval, paired


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Values with an effect of the neuron and one of the seed: pictures are not independent of each other."""
    stream = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        neurons, seeds = stream.normal(size=(30, 1)), 0.3 * stream.normal(size=(1, 5))
        measured = interval(neurons + seeds + stream.normal(size=(30, 5)))
        hits += measured.low <= 0 <= measured.high
    assert hits >= 50


def test_it_is_wider_than_if_all_pictures_were_independent() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=(12, 1)), 8, 1)
    naive = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    measured = interval(values)
    assert measured.high - measured.low > 3 * naive


def test_figures_do_not_change_from_run_to_run() -> None:
    values = np.random.default_rng(2).normal(size=(9, 3))
    assert interval(values) == interval(values.copy())


def test_unknown_values_are_left_out_by_neuron() -> None:
    values = np.array([[1.0, 2.0], [np.nan, 9.0], [3.0, 4.0]])
    measured = interval(values)
    assert (measured.mean, measured.neurons, measured.seeds) == (2.5, 2, 2)
    nothing = interval(np.full((3, 2), np.nan))
    assert np.isnan(nothing.mean)
    assert nothing.neurons == 0


def test_pairing_removes_what_neurons_share() -> None:
    stream = np.random.default_rng(3)
    shared = 10 * stream.normal(size=(20, 1))
    ours, theirs = (shared + stream.normal(size=(20, 3)) * 0.1 + lift for lift in (0.5, 0.0))
    assert interval(ours).low < interval(theirs).high
    result = paired(ours, theirs)
    assert 0.3 < result.low < 0.5 < result.high < 0.7
    assert result.mean == pytest.approx((ours - theirs).mean())
