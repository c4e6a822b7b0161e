"""Readability on features whose answer is known: photographs, noise, and pictures that were given to other neurons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vital.judging.readability import (
    FEWEST,
    Question,
    area,
    held_out_readability,
    lower_half,
    mean_explanations,
    readability,
    standardised,
)

NEURONS, FEATURES, QUERIES, PLAIN = 24, 40, 6, 60
few = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=8)


@given(few, few)
def test_the_area_is_the_share_of_pairs_in_the_right_order(exciting: list[float], others: list[float]) -> None:
    pairs = [1.0 if one > other else 0.5 if one == other else 0.0 for one in exciting for other in others]
    assert area(np.array(exciting), np.array(others)) == pytest.approx(np.mean(pairs))
    assert area(np.array(others), np.array(exciting)) == pytest.approx(1 - np.mean(pairs))


class World:
    """Neurons that each respond to a direction of a judge's features, with images of every neuron and plain ones."""

    def __init__(self) -> None:
        self.stream = np.random.default_rng(0)
        self.meant = self.stream.normal(size=(NEURONS, FEATURES)) * 2
        plain = self.stream.normal(size=(PLAIN, FEATURES))
        exciting = self.images(QUERIES).reshape(-1, FEATURES)
        # features of very different sizes, all far from zero
        self.size, self.offset = np.exp(self.stream.normal(size=FEATURES) * 2), 50.0
        self.sample = self.seen(np.concatenate([plain, exciting]))
        self.images_of_all = standardised(self.sample)
        self.questions = [
            Question(PLAIN + neuron * QUERIES + np.arange(QUERIES), np.arange(PLAIN)) for neuron in range(NEURONS)
        ]

    def images(self, each: int) -> np.ndarray:
        return self.meant[:, None] + self.stream.normal(size=(NEURONS, each, FEATURES))

    def seen(self, features: np.ndarray) -> np.ndarray:
        seen: np.ndarray = ((features + self.offset) * self.size).astype(np.float32)
        return seen

    def score(self, explanations: np.ndarray) -> float:
        found = readability(explanations, self.images_of_all, self.questions)
        assert np.isfinite(found).all()
        return float(found.mean())


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_among_none_nothing_is_known() -> None:
    """Such as the pictures of a sibling that has none of the same neurons."""
    assert np.isnan(standardised(np.ones((3, 2)), np.empty((0, 2)))).all()
    assert standardised(np.empty((0, 2)), np.empty((0, 2))).shape == (0, 2)


def test_photographs_as_pictures_score_as_the_yardstick_and_more_of_them_no_worse(world: World) -> None:
    references = world.seen(world.images(4))
    flat = references.reshape(-1, FEATURES)
    first = mean_explanations(flat, [np.array([4 * neuron]) for neuron in range(NEURONS)], world.sample)
    np.testing.assert_allclose(first, standardised(references[:, 0], world.sample), rtol=1e-5)
    assert world.score(first) > 0.95
    assert world.score(standardised(references[:, 0])) == pytest.approx(world.score(first), abs=0.03)
    alike = mean_explanations(flat, [np.array([4 * neuron]) for neuron in range(NEURONS)])
    np.testing.assert_allclose(alike, standardised(references[:, 0]), rtol=1e-4, atol=1e-4)
    every = mean_explanations(flat, [4 * neuron + np.arange(4) for neuron in range(NEURONS)], world.sample)
    assert world.score(every) >= world.score(first)


def test_two_pictures_of_two_meanings_tell_more_together_than_either_alone(world: World) -> None:
    """Neurons that respond to either of two directions, each shown by a picture of its own."""
    stream = np.random.default_rng(1)
    either = stream.normal(size=(NEURONS, 2, FEATURES)) * 2
    seen = [
        world.seen(either[:, meaning, None] + stream.normal(size=(NEURONS, 3, FEATURES))).reshape(-1, FEATURES)
        for meaning in (0, 1)
    ]
    images = standardised(np.concatenate([world.sample[:PLAIN], *seen]))
    three = np.arange(3)
    exciting = np.concatenate([three, 3 * NEURONS + three])
    questions = [Question(PLAIN + 3 * neuron + exciting, np.arange(PLAIN)) for neuron in range(NEURONS)]
    pictures = world.seen(either + stream.normal(size=either.shape)).reshape(-1, FEATURES)
    together = [np.array([2 * neuron, 2 * neuron + 1]) for neuron in range(NEURONS)]
    each = [[rows[which : which + 1] for rows in together] for which in (0, 1)]
    both, *alone = (
        readability(mean_explanations(pictures, rows), images, questions).mean() for rows in (together, *each)
    )
    assert both > max(alone) + 0.1
    assert both > 0.95


@pytest.mark.parametrize("count", [1, 2])
def test_held_out_photographs_are_read_as_pictures_beside_the_other_references(world: World, count: int) -> None:
    features = world.seen(world.images(4)).reshape(-1, FEATURES)
    rows = [4 * neuron + np.arange(4) for neuron in range(NEURONS)]
    found = held_out_readability(features, rows, [count] * NEURONS, world.images_of_all, world.sample, world.questions)
    assert all(len(own) == 4 for own in found)
    last = [3, 0][:count]  # in turn
    plain = standardised(features)
    taken = np.stack([plain[own[last]].mean(0) for own in rows])
    rest = mean_explanations(features, [np.delete(own, last) for own in rows], world.sample)
    expected = np.subtract(*(readability(one, world.images_of_all, world.questions) for one in (taken, rest)))
    np.testing.assert_allclose([own[3] for own in found], expected, atol=1e-6)
    none = held_out_readability(features, rows, [4] * NEURONS, world.images_of_all, world.sample, world.questions)
    assert np.isnan(np.concatenate(none)).all()


def test_a_style_that_all_pictures_share_says_nothing(world: World) -> None:
    pictures = world.seen(world.images(1)[:, 0])
    style = world.stream.normal(size=FEATURES).astype(np.float32) * world.size.astype(np.float32) * 30
    np.testing.assert_allclose(standardised(pictures + style), standardised(pictures), atol=1e-2)


def test_noise_and_pictures_of_other_neurons_score_by_chance(world: World) -> None:
    noise = world.seen(world.stream.normal(size=(20, NEURONS, FEATURES)))
    assert np.mean([world.score(standardised(one)) for one in noise]) == pytest.approx(0.5, abs=0.05)
    right = standardised(world.seen(world.images(1)[:, 0]))
    wrong = [world.score(np.roll(right, shift, axis=0)) for shift in range(1, NEURONS)]
    assert np.mean(wrong) == pytest.approx(0.5, abs=0.08)  # a little below: standardised directions add up to none
    assert world.score(-right) < 0.05


def test_what_cannot_be_known_is_not_a_number(world: World) -> None:
    pictures = standardised(world.seen(world.images(1)[:, 0]))
    assert np.isnan(readability(pictures[: FEWEST - 1], world.images_of_all, world.questions[: FEWEST - 1])).all()
    assert np.isfinite(readability(pictures[:FEWEST], world.images_of_all, world.questions[:FEWEST])).all()
    short = [Question(question.exciting[:2], question.others) for question in world.questions]
    assert np.isnan(readability(pictures, world.images_of_all, short)).all()
    none = [Question(question.exciting, question.others[:0]) for question in world.questions]
    assert np.isnan(readability(pictures, world.images_of_all, none)).all()
    without = mean_explanations(world.sample, [np.empty(0, np.int64), *[np.arange(3)] * FEWEST], world.sample)
    found = readability(without, world.images_of_all, world.questions[: FEWEST + 1])
    assert np.isnan(found[0])
    assert np.isfinite(found[1:]).all()


def test_a_feature_that_never_varies_is_left_out() -> None:
    features = np.array([[7.3, 1.0], [7.3, 3.0]], np.float32)
    assert standardised(features).tolist() == [[0, -1], [0, 1]]


def test_the_lower_half_has_the_least_peaks_and_of_equal_ones_the_earlier_images() -> None:
    assert lower_half(np.array([3.0, 0.0, 2.0, 1.0, 9.0])).tolist() == [1, 3]
    assert lower_half(np.array([0.0, 5.0, 0.0, 0.0])).tolist() == [0, 2]
