"""Distances and similarities on inputs whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from vital.judging.metrics import diversity, frechet_distance, nearest_similarity, unit, variation


def literal_frechet(some: np.ndarray, others: np.ndarray) -> float:
    """The formula with explicit covariances and matrix roots by eigenvalues."""
    covariances = [np.cov(part, rowvar=False) for part in (some, others)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ covariances[1] @ root)
    trace = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.sqrt(np.maximum(inner, 0)).sum()
    return float(np.square(some.mean(0) - others.mean(0)).sum() + trace)


@pytest.mark.parametrize(("count", "other"), [(50, 80), (5, 40), (4, 3)], ids=["many", "few", "very few"])
def test_the_frechet_distance_is_that_of_the_formula(count: int, other: int) -> None:
    """Also with fewer images than features, where covariances have no inverse."""
    stream = np.random.default_rng(0)
    mixing = stream.normal(size=(12, 12))
    some, others = stream.normal(size=(count, 12)) @ mixing + 1, stream.normal(size=(other, 12))
    assert frechet_distance(some, others) == pytest.approx(literal_frechet(some, others), rel=1e-6)
    assert frechet_distance(some, others) == pytest.approx(frechet_distance(others, some))


def test_the_frechet_distance_of_a_set_from_itself_is_zero_and_grows_with_a_shift() -> None:
    some = np.random.default_rng(1).normal(size=(20, 6))
    assert frechet_distance(some, some) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(some, some + 2) == pytest.approx(6 * 4)
    assert np.isnan(frechet_distance(some[:1], some))


def test_a_copy_has_similarity_one_and_a_neuron_without_references_none() -> None:
    features = np.random.default_rng(2).normal(size=(3, 8))
    references = [np.stack([features[1], 2 * features[0]]), np.empty((0, 8)), -features[2:]]
    result = nearest_similarity(features, references)
    assert result[0] == pytest.approx(1)
    assert np.isnan(result[1])
    assert result[2] == pytest.approx(-1)


def test_diversity_is_zero_for_the_same_pictures_and_unknown_for_one_seed() -> None:
    features = np.random.default_rng(3).normal(size=(2, 4, 8))
    assert diversity(np.stack([features[0]] * 3)) == pytest.approx(np.zeros(4))
    cosine = (unit(features[0]) * unit(features[1])).sum(-1)
    assert diversity(features) == pytest.approx(1 - cosine)
    assert np.isnan(diversity(features[:1])).all()


def test_variation_is_zero_for_one_colour_and_that_of_neighbours_for_stripes() -> None:
    flat = np.full((1, 8, 8, 3), 90, np.uint8)
    stripes = flat.copy()
    stripes[:, ::2] += 40
    assert variation(flat) == pytest.approx([0])
    assert variation(stripes) == pytest.approx([20])
