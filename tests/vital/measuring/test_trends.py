"""How rows change with a neuron's activation, against least squares by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.reference.trends import common_by_hand, trend_by_hand
from vital.measuring.targets import NodeTarget, trend
from vital.measuring.targets.trends import common_trend

IMAGES, NEURONS, CHANNELS, LEVELS = 14, 3, 2, 5
COUNT = np.array([1, 4, 12])
NOTHING = np.zeros((CHANNELS, LEVELS), np.float32)


def sample(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and peaks of images, which of them count, and what references have."""
    stream = np.random.default_rng(seed)
    rows = np.sort(stream.normal(size=(IMAGES, CHANNELS, LEVELS)), axis=-1).astype(np.float32)
    peaks = stream.normal(size=(IMAGES, NEURONS)).astype(np.float32)
    means = np.sort(stream.normal(size=(NEURONS, CHANNELS, LEVELS)), axis=-1).astype(np.float32)
    return rows, peaks, stream.random((IMAGES, NEURONS)) < 0.7, means, peaks.max(0) + np.array([0.5, 1, 4])


def test_every_value_is_the_line_of_least_squares_less_what_is_common() -> None:
    rows, peaks, others, means, scores = sample()
    common = common_by_hand(rows, peaks).astype(np.float32)
    np.testing.assert_allclose(common_trend(rows, peaks), common, rtol=1e-4, atol=1e-6)
    found = trend(rows, peaks, others, means, scores, COUNT, common=common)
    for neuron in range(NEURONS):
        mine = others[:, neuron]
        expected = trend_by_hand(rows[mine], peaks[mine, neuron], means[neuron], scores[neuron], COUNT[neuron], common)
        np.testing.assert_allclose(found[neuron], expected, rtol=2e-4, atol=1e-5)


def test_what_is_common_is_of_neurons_that_vary_and_do_not_overflow() -> None:
    rows, peaks, *_ = sample()
    found = common_trend(rows, peaks)
    more = np.concatenate([peaks, np.full((IMAGES, 2), 3.0), np.full((IMAGES, 1), np.inf)], axis=1).astype(np.float32)
    np.testing.assert_array_equal(common_trend(rows, more), found)
    assert not common_trend(rows, more[:, NEURONS:]).any()


def test_a_layer_s_only_neuron_has_nothing_in_common_with_others() -> None:
    rows, peaks, *_ = sample()
    assert not common_trend(rows, peaks[:, :1]).any()


def test_what_excites_all_neurons_alike_is_taken_off() -> None:
    """An oracle by simulation: every neuron sees brightness, and each a channel of its own."""
    stream = np.random.default_rng(2)
    bright, own = stream.normal(size=(300, 1)), stream.normal(size=(300, 40))
    rows = np.concatenate([bright, own], axis=1)[..., None].astype(np.float32)
    peaks = (bright + own).astype(np.float32)
    best = np.argsort(-peaks, axis=0)[:6].T
    means, scores = rows[best].mean(1), np.take_along_axis(peaks, best.T, 0).mean(0)
    others = np.stack([~np.isin(np.arange(300), one) for one in best], axis=1)
    count = np.full(40, 6)
    found = trend(rows, peaks, others, means, scores, count, common=common_trend(rows, peaks))
    with_all = trend(rows, peaks, others, means, scores, count, common=np.zeros((41, 1), np.float32))
    each = np.arange(40)
    assert (np.abs(with_all[:, 0]) > 0.8 * with_all[each, each + 1]).mean() > 0.8
    assert (np.abs(found[:, 0]) < 0.3 * found[each, each + 1]).mean() > 0.9


@given(
    arrays.arrays(np.float32, (CHANNELS, LEVELS), elements=st.floats(-10, 10, width=32)),
    arrays.arrays(np.float32, (CHANNELS, LEVELS), elements=st.floats(-10, 10, width=32)),
    st.floats(1, 20),
)
def test_rows_that_follow_a_peak_exactly_are_found_again(start: np.ndarray, slope: np.ndarray, score: float) -> None:
    peaks = np.linspace(-1, 1, IMAGES, dtype=np.float32)[:, None]
    rows = start + slope * peaks[..., None]
    means, every, count = (start + slope * np.float32(score))[None], np.ones((IMAGES, 1), bool), np.array([6])
    found = trend(rows, peaks, every, means, np.array([score]), count, common=NOTHING)
    usual = 0.6 * score / (IMAGES + 0.6)
    np.testing.assert_allclose(found[0], slope * (score - usual), rtol=1e-3, atol=1e-3)


def test_images_that_do_not_count_or_have_no_peak_change_nothing() -> None:
    rows, peaks, others, means, scores = sample()
    others[3], others[5] = False, True
    peaks[5] = np.nan
    found = trend(rows, peaks, others, means, scores, COUNT, common=NOTHING)
    rows[3], rows[5], peaks[3] = 1e6, 1e6, 1e6
    np.testing.assert_array_equal(trend(rows, peaks, others, means, scores, COUNT, common=NOTHING), found)


def test_where_all_images_excite_alike_the_references_are_held_against_the_sample() -> None:
    rows, peaks, others, means, _ = sample()
    peaks[:] = 2
    found = trend(rows, peaks, others, means, np.full(NEURONS, 2.0), COUNT, common=NOTHING)
    np.testing.assert_allclose(found, means - rows.mean(0), rtol=1e-5, atol=1e-6)
    nothing = trend(rows, peaks, np.zeros_like(others), means, np.full(NEURONS, 2.0), COUNT, common=NOTHING)
    np.testing.assert_array_equal(nothing, found)


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trend(*sample(), COUNT, common=NOTHING)
    monkeypatch.setattr("vital.measuring.targets.trends.AT_ONCE", 3 * IMAGES)
    np.testing.assert_allclose(trend(*sample(), COUNT, common=NOTHING), whole, rtol=1e-6)


def test_a_caricature_follows_the_trend_where_there_is_one() -> None:
    usual, rows = np.full((1, 2), 1.0, np.float32), np.full((1, 1, 2), 3.0, np.float32)
    levels, count = np.array([0.25, 0.75], np.float32), np.array([4])
    of_references = NodeTarget(levels, rows, usual=usual)
    learnt = NodeTarget(levels, rows, usual=usual, trend=np.array([[[-1, 1]]], np.float32))
    assert of_references.caricature(count, 1.0).tolist() == [[[5.0, 5.0]]]
    assert learnt.caricature(count, 1.0).tolist() == [[[-1.0, 3.0]]]
    for node in (of_references, learnt, NodeTarget(levels, rows, trend=learnt.trend)):
        assert node.caricature(count, 0.0).tolist() == rows.tolist()
    assert NodeTarget(levels, rows, trend=learnt.trend).caricature(count, 1.0).tolist() == rows.tolist()


def test_a_neuron_s_trend_is_better_known_from_a_sample_than_from_its_references() -> None:
    """An oracle by simulation: a few references carry their own chance, many weak images little of it."""
    stream = np.random.default_rng(1)
    truth = stream.normal(0, 0.5, (1, 400)).astype(np.float32)
    peaks = np.abs(stream.normal(size=(150, 1))).astype(np.float32)
    best = np.array([2.8, 3.0, 3.2, 3.4], np.float32)[:, None]
    rows = peaks[:, None] * truth + stream.normal(size=(150, 1, 400)).astype(np.float32)
    own = best[:, None] * truth + stream.normal(size=(4, 1, 400)).astype(np.float32)
    means, score = own.mean(0)[None], best.mean(0).astype(np.float64)
    nothing = np.zeros((1, 400), np.float32)
    learnt = trend(rows, peaks, np.ones((150, 1), bool), means, score, np.array([4]), common=nothing)[0]
    alone = means[0] - rows.mean(0)

    def alike(found: np.ndarray) -> float:
        return float(np.corrcoef(found.ravel(), truth.ravel())[0, 1])

    assert alike(learnt) > alike(alone) + 0.05


def test_a_neuron_that_overflows_harms_no_other() -> None:
    rows, peaks, others, means, scores = sample()
    found = trend(rows, peaks, others, means, scores, COUNT, common=NOTHING)
    means[1], scores[1], peaks[:, 1] = np.inf, np.inf, np.inf
    again = trend(rows, peaks, others, means, scores, COUNT, common=NOTHING)
    np.testing.assert_array_equal(again[[0, 2]], found[[0, 2]])
    assert not np.isfinite(again[1]).any()
