from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from vital.judging import clarity as measures
from vital.judging.clarity import (
    FEWEST,
    MOST,
    NEURONS,
    clarity,
    measures_of_facets,
    measures_of_references,
    polysemanticity,
    redundancy,
)


def planted(stream: np.random.Generator, centres: np.ndarray, members: int, noise: float) -> np.ndarray:
    """So many members around each centre, in another order each time, of different lengths."""
    rows = np.repeat(centres, members, axis=0) + noise * stream.normal(size=(len(centres) * members, centres.shape[1]))
    return stream.permutation(rows * stream.uniform(0.5, 2, size=(len(rows), 1)))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_clarity_is_the_mean_over_pairs() -> None:
    stream = np.random.default_rng(0)
    features = [stream.normal(size=(count, 7)) for count in (2, 5, 9)]
    pairs = [[cosine(*pair) for pair in combinations(rows, 2)] for rows in features]
    np.testing.assert_allclose(clarity(features), [np.mean(one) for one in pairs], atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 150.0])
def test_two_planted_meanings_are_as_far_apart_as_they_were_planted(angle: float) -> None:
    stream = np.random.default_rng(1)
    axes = np.linalg.qr(stream.normal(size=(64, 2)))[0].T
    turned = np.cos(np.deg2rad(angle)) * axes[0] + np.sin(np.deg2rad(angle)) * axes[1]
    neurons = [planted(stream, np.stack([axes[0], turned]), 5, 0.01) for _ in range(8)]
    np.testing.assert_allclose(polysemanticity(neurons), 1 - np.cos(np.deg2rad(angle)), atol=0.02)
    # five and five: 20 of 45 pairs are within a group
    np.testing.assert_allclose(clarity(neurons), (20 + 25 * np.cos(np.deg2rad(angle))) / 45, atol=0.02)


def test_facets_are_as_far_apart_as_they_were_planted_and_each_is_clear() -> None:
    """Whichever references are in which facet; the others are neurons of one facet, in other directions."""
    stream = np.random.default_rng(3)
    axes = np.linalg.qr(stream.normal(size=(64, 12)))[0].T
    neurons = [planted(stream, axes[[one]], 6, 0.01) for one in range(10)]
    neurons.append(np.concatenate([planted(stream, axes[[one]], 3, 0.01) for one in (10, 11)])[[0, 3, 1, 4, 2, 5]])
    rows = [6 * neuron + np.arange(6) for neuron in range(11)]
    facets = [np.zeros(6, np.int64)] * 10 + [np.array([0, 1, 0, 1, 0, 1])]
    features = np.concatenate(neurons)
    apart, clear = measures_of_facets(features, rows, facets)
    assert np.isnan(apart[:10]).all()
    assert apart[10] == pytest.approx(1, abs=0.2)  # what all neurons share is taken out, which turns them a little
    assert len(clear) == 12
    assert (clear > 0.9).all()
    whole = measures_of_references(features, rows)["clarity"]
    np.testing.assert_allclose(clear[:10], whole[:10], atol=1e-6)
    assert whole[10] < 0.5
    same, _ = measures_of_facets(features, rows, [*facets[:9], np.array([0, 1, 0, 1, 0, 1]), facets[10]])
    assert same[9] == pytest.approx(0, abs=0.01)


def test_one_odd_image_is_no_second_meaning() -> None:
    stream = np.random.default_rng(2)
    axes = np.linalg.qr(stream.normal(size=(32, 2)))[0].T
    odd = np.concatenate([planted(stream, axes[:1], 9, 0.01), axes[1:]])
    half = planted(stream, axes, 5, 0.01)
    one, two = polysemanticity([odd, half])
    # the odd one shares its group with another, so that the centres are 45 degrees apart
    assert one == pytest.approx(1 - np.cos(np.pi / 4), abs=0.02)
    assert two == pytest.approx(1, abs=0.02)


def test_the_groups_have_the_least_squares_of_all_divisions() -> None:
    """Against every division, written out."""
    stream = np.random.default_rng(3)
    rows = stream.normal(size=(7, 4)) + 0.5
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    for size in (2, 3):
        for members in combinations(range(7), size):
            one, other = directions[list(members)], np.delete(directions, members, axis=0)
            left = sum(((group - group.mean(0)) ** 2).sum() for group in (one, other))
            found.append((left, 1 - cosine(one.mean(0), other.mean(0))))
    assert polysemanticity([rows])[0] == pytest.approx(min(found)[1])


def test_redundancy_finds_the_planted_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = np.random.default_rng(4)
    centres = np.linalg.qr(stream.normal(size=(48, 6)))[0].T
    neurons = [planted(stream, centres[[place]], 8, 0.01) for place in (0, 1, 2, 3, 1, 4, 5)]
    found = redundancy(neurons)
    np.testing.assert_allclose(found[[1, 4]], 1, atol=0.01)
    assert np.delete(found, [1, 4]).max() < 0.1
    # in blocks of rows it is the same
    monkeypatch.setattr(measures, "ROWS", 3)
    np.testing.assert_allclose(redundancy(neurons), found, atol=1e-12)


def test_too_few_references_are_not_a_number() -> None:
    some = np.random.default_rng(5).normal(size=(FEWEST, 3))
    features = [some[:0], some[:1], some[:3], some]
    np.testing.assert_array_equal(np.isnan(clarity(features)), [True, True, False, False])
    np.testing.assert_array_equal(np.isnan(polysemanticity(features)), [True, True, True, False])
    np.testing.assert_array_equal(np.isnan(redundancy(features)), [True, False, False, False])
    assert np.isnan(redundancy([some])).all()
    assert redundancy([]).shape == clarity([]).shape == polysemanticity([]).shape == (0,)


def test_of_many_references_the_first_count() -> None:
    stream = np.random.default_rng(6)
    rows = stream.normal(size=(MOST + 3, 5))
    assert polysemanticity([rows]) == polysemanticity([rows[:MOST]])


def test_features_of_zero_have_no_direction() -> None:
    assert np.isnan(polysemanticity([np.zeros((6, 3))])).all()
    assert clarity([np.zeros((6, 3))]).tolist() == [0]


def test_what_all_references_share_does_not_count() -> None:
    """Features far from zero, as a network's are: raw, any two images look alike."""
    stream = np.random.default_rng(7)
    meanings = np.linalg.qr(stream.normal(size=(40, 14)))[0].T * 5
    clear = [planted(stream, meanings[[place]], 6, 0.01) for place in range(NEURONS)]
    double = planted(stream, meanings[12:14], 3, 0.01)
    neurons = [*clear, double]
    images = np.concatenate(neurons) + 100
    rows = list(np.arange(len(images)).reshape(len(neurons), 6))
    assert min(clarity([images[own] for own in rows])) > 0.99
    found = measures_of_references(images, rows)
    assert found["clarity"][:-1].min() > 0.9 > 0.6 > found["clarity"][-1]
    assert found["polysemanticity"][:-1].max() < 0.2 < 0.8 < found["polysemanticity"][-1]
    assert found["redundancy"].max() < 0.2


def test_of_few_neurons_and_of_single_references_nothing_is_said() -> None:
    images = np.random.default_rng(8).normal(size=(NEURONS, 5))
    each = [np.array([row]) for row in range(NEURONS)]
    assert measures_of_references(images, each[1:]) == {}
    assert list(measures_of_references(images, each)) == ["redundancy"]
    assert measures_of_references(images, [np.zeros(0, np.int64)] * 3) == {}
