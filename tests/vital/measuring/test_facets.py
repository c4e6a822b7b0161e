"""Facets: planted groups are found, one cloud stays one, and nothing but the vectors and the seed counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vital.measuring.test_targets import LAYER, crops
from vital.measuring.targets import Attribution, Crop, chance_of, find_facets, measure, photo_vectors, reference_vectors
from vital.measuring.targets.facets import BOUND, _split
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.probe import CLASSES, probe


def cloud(seed: int, count: int, axes: int = 30) -> np.ndarray:
    """Positive, skewed and unlike wide in its axes, as relevance is."""
    stream = np.random.default_rng(seed)
    return stream.exponential(1, (count, axes)) * stream.exponential(1, axes) + 0.1


@given(sizes=st.lists(st.integers(6, 10), min_size=2, max_size=3), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_planted_groups_are_found_whatever_the_order_and_the_lengths(sizes: list[int], seed: int) -> None:
    stream = np.random.default_rng(seed)
    planted = stream.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = np.eye(len(sizes), 20)[planted] + stream.normal(0, 0.02, (len(planted), 20))
    vectors *= stream.uniform(0.01, 100, (len(planted), 1))  # a direction has no length
    found = find_facets(vectors, chance_of("layer", seed), most=4)
    assert found.count == len(sizes)
    assert found.p <= BOUND
    for facet in range(found.count):
        assert len(set(planted[found.of == facet])) == 1
    counts = np.bincount(found.of)
    assert (np.diff(counts) <= 0).all()


def test_one_cloud_is_split_no_more_often_than_the_bound_says() -> None:
    counts = [find_facets(cloud(seed, 14), chance_of("layer", seed), most=4).count for seed in range(60)]
    assert sum(count > 1 for count in counts) <= 3  # more has a chance below 0.003 at one in a hundred


def test_an_elongated_cloud_is_one_however_long() -> None:
    along = np.random.default_rng(1).standard_normal((30, 1)) * np.eye(1, 10)
    assert find_facets(1 + 0.3 * along, chance_of("layer", 0), most=4).count == 1


@pytest.mark.parametrize(
    ("vectors", "of"),
    [
        (np.zeros((0, 4)), []),
        (np.zeros((9, 4)), [0] * 9),
        (np.ones((9, 4)), [0] * 9),
        (np.ones((12, 4)) + 1e-5 * np.repeat(np.eye(2, 4), 6, 0), [0] * 12),  # but for rounding they are the same
        (np.full((9, 4), np.nan), [0] * 9),
        (np.repeat(np.eye(2), [2, 9], 0), [0] * 11),  # two are no facet, nor five groups of two
        (np.eye(12), [0] * 12),  # nothing is like anything else
    ],
)
def test_what_cannot_be_told_apart_is_one_facet(vectors: np.ndarray, of: list[int]) -> None:
    assert find_facets(vectors, chance_of("layer", 0), most=4).of.tolist() == of


def test_references_without_a_direction_go_with_the_first_facet() -> None:
    apart = np.repeat(np.eye(2), [8, 7], 0) + np.random.default_rng(0).normal(0, 0.02, (15, 2))
    found = find_facets(np.vstack([apart, np.zeros((2, 2))]), chance_of("layer", 0), most=4)
    assert found.of.tolist() == [0] * 8 + [1] * 7 + [0] * 2


def test_there_are_at_most_as_many_as_asked_for() -> None:
    apart = np.repeat(np.eye(4), 8, 0) + np.random.default_rng(0).normal(0, 0.02, (32, 4))
    assert [find_facets(apart, chance_of("layer", 0), most).count for most in (1, 2, 3, 4, 9)] == [1, 2, 3, 4, 4]


@pytest.mark.slow
@given(count=st.integers(2, 24), wanted=st.integers(2, 6), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_always_split_there_are_as_many_as_asked_for_wherever_so_many_differ(
    count: int, wanted: int, seed: int
) -> None:
    vectors = cloud(seed, count)
    found = find_facets(vectors, chance_of("layer", seed), wanted, always=True)
    assert found.count == min(wanted, count)
    sizes = np.bincount(found.of)
    assert (np.diff(sizes) <= 0).all()
    assert sizes.min() >= 3 or (wanted - 1) * 5 >= count  # fewer only where three each may not be had
    again = find_facets(vectors, chance_of("other", 0), wanted, always=True)
    assert again.of.tolist() == found.of.tolist()  # chance decides the test alone


def test_always_split_groups_are_those_that_were_planted_and_the_test_is_kept() -> None:
    apart = np.repeat(np.eye(3), [7, 6, 5], 0) + np.random.default_rng(0).normal(0, 0.02, (18, 3))
    tested, split = (find_facets(apart, chance_of("layer", 0), 3, always=always) for always in (False, True))
    assert split.of.tolist() == tested.of.tolist() == [0] * 7 + [1] * 6 + [2] * 5
    assert split.p == tested.p
    one = find_facets(cloud(0, 14), chance_of("layer", 0), 3, always=True)
    assert (one.count, one.p) == (3, find_facets(cloud(0, 14), chance_of("layer", 0), 3).p)
    assert one.p > BOUND
    same = find_facets(np.ones((9, 4)), chance_of("layer", 0), 3, always=True)
    assert same.count == 1  # no two of them differ


def test_the_same_neuron_gets_the_same_facets_and_another_its_own_stream() -> None:
    vectors = cloud(3, 20)
    first, again, other = (find_facets(vectors, chance_of("layer", neuron), 4).p for neuron in (7, 7, 8))
    assert first == again
    assert chance_of("layer", 7).random() != chance_of("layer", 8).random() != chance_of("other", 8).random()
    assert 0 < other <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_split_of_few_points_is_the_best_of_all(seed: int) -> None:
    """Against every split of eight points, of which the best may be missed by little."""
    points = cloud(seed, 8, 4)
    points -= points.mean(0)
    [found], [share] = _split((points @ points.T)[None], np.ones((1, 8), bool), 3)
    best = 0.0
    for bits in range(1, 2**8 - 1):
        first = np.array([bits >> place & 1 for place in range(8)], bool)
        if 3 <= first.sum() <= 5:
            between = sum(part.sum() * (points[part].mean(0) ** 2).sum() for part in (first, ~first))
            best = max(best, between)
            if np.array_equal(first, found):
                assert between == pytest.approx(share)
    assert 0.9 * best <= share <= best + 1e-9


def test_vectors_are_the_relevance_of_each_reference_summed_over_sites(tiny: Callable[..., Model]) -> None:
    """Which a target of one reference knows as well: its importance is of peaks, hence of the same channels."""
    model, neurons, shown = tiny(), [1, 4, 4], crops([(0, 2), (1,)])
    vectors = reference_vectors(model, Attribution(LAYER), neurons, shown, "1", batch=2)
    assert vectors.shape[0] == 3
    for row, crop in ((0, 0), (1, 1), (2, 0)):
        alone = reference_vectors(
            model, Attribution(LAYER), [neurons[row]], [shown[crop].__class__(shown[crop].pixels, (0,))], "1"
        )
        np.testing.assert_allclose(vectors[row], alone[0], rtol=1e-5, atol=1e-6)
        importance = measure(
            model, Attribution(LAYER), [neurons[row]], [shown[crop].__class__(shown[crop].pixels, (0,))], ["1"]
        )
        peaks = importance.nodes["1"].importance
        assert peaks is not None
        assert np.corrcoef(peaks[0], vectors[row])[0, 1] > 0.7


def test_classes_have_the_mean_activations_of_the_node(tiny: Callable[..., Model]) -> None:
    model, shown = tiny(), crops([(0,), (1,)])
    vectors = reference_vectors(model, Attribution(CLASSES), [2, 3], shown, "1")
    with torch.no_grad(), probe(model.network, ["1"]) as run:
        seen = run(model.preprocessing.normalise(torch.stack([crop.pixels for crop in shown])))["1"]
    np.testing.assert_allclose(vectors, seen.mean(-1).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [LAYER, CLASSES])
def test_a_photograph_is_described_as_a_facet_of_it_alone_would_be(tiny: Callable[..., Model], layer: str) -> None:
    """A target with the photograph as its only reference has the same importance, or for classes mean activation."""
    model = tiny()
    shown, neurons = crops([(0,), (1,), (2,)]), [3, 1, 3]
    pixels, reads = torch.stack([crop.pixels for crop in shown]), Readout(layer)
    vectors = photo_vectors(model, Attribution(layer, "lrp", readout=reads), np.array(neurons), pixels, "1", batch=2)
    for vector, crop, neuron in zip(vectors, shown, neurons, strict=True):
        target = measure(model, Attribution(layer), [neuron], [Crop(crop.pixels, (0,))], ["1"], levels=10_000).nodes[
            "1"
        ]
        alone = target.quantiles[0].mean(1) if target.importance is None else target.importance[0]
        np.testing.assert_allclose(vector, alone, rtol=1e-4, atol=1e-5)
