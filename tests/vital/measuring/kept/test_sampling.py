"""The sample of a layer: the same images with the same peaks, in whatever order and however many together they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.networks import SIDE
from vital.measuring.gathering import Batch, Gathered, Gathering, Plan, gather
from vital.measuring.kept.sampling import SAMPLE_BYTES, Sample, Sampler, sample_size, unit_hash
from vital.network.layers import survey
from vital.network.models import Model
from vital.network.probe import CLASSES

NEURONS = 3
# few lots, so that ties are the rule
lots = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.5000001, 0.75]), max_size=30)
most = st.integers(1, 8)


def peaks_of(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, NEURONS)).astype(np.float32) * 1e5


def sampled(drawn: list[float], count: int, start: int = 0, batch: int = 4) -> Sample:
    sampler, peaks = Sampler(NEURONS, count), peaks_of(40)
    for first in range(0, len(drawn), batch):
        some = np.arange(first, min(first + batch, len(drawn)))
        sampler.add(np.array(drawn)[some], some + start, peaks[some + start])
    return sampler.sample()


def assert_same(one: Sample, other: Sample) -> None:
    for part in fields(Sample):
        np.testing.assert_array_equal(getattr(one, part.name), getattr(other, part.name))


@given(lots, most, st.integers(1, 9))
def test_a_sample_is_the_images_of_the_least_lots(drawn: list[float], count: int, batch: int) -> None:
    result = sampled(drawn, count, batch=batch)
    expected = sorted(sorted(range(len(drawn)), key=lambda image: (drawn[image], image))[:count])
    assert result.images.tolist() == expected
    assert result.lots.tolist() == [drawn[image] for image in expected]
    np.testing.assert_array_equal(result.peaks, peaks_of(40)[expected])


@given(lots, st.lists(st.integers(0, 30), min_size=2, max_size=2), most)
def test_merging_samples_of_disjoint_images_obeys_the_laws(drawn: list[float], cuts: list[int], count: int) -> None:
    first, second = sorted(min(cut, len(drawn)) for cut in cuts)
    a, b, c = (
        sampled(drawn[start:stop], count, start) for start, stop in ((0, first), (first, second), (second, len(drawn)))
    )
    whole, none = sampled(drawn, count), Sample.none(NEURONS, count)
    assert_same((a + b) + c, whole)
    assert_same(a + (b + c), whole)
    assert_same(c + b + a, whole)
    assert_same(whole + none, whole)
    assert_same(none + whole, whole)
    assert_same(sampled(drawn[first:], count).shifted(first).shifted(-first), sampled(drawn[first:], count))


def test_a_sample_of_many_neurons_has_fewer_images() -> None:
    assert sample_size(1000, 2000) == 2000
    assert sample_size(100_000, 2000) == 335
    assert sample_size(100_000, 100) == 100
    assert sample_size(10**9, 2000) == 1
    for neurons in (16_777, 100_000):
        assert 4 * neurons * sample_size(neurons, 2000) <= SAMPLE_BYTES


COUNT = 9
PLAN = Plan(("2", CLASSES, "2/lowest", "0.0@3,3"), ("0",), 3, 20, queries=2, sample=5)


@pytest.fixture
def pixels() -> torch.Tensor:
    stream = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), generator=stream, dtype=torch.uint8)


def test_peaks_are_those_of_the_maps_and_of_classes_the_logits(
    tiny: Callable[..., Model], pixels: torch.Tensor
) -> None:
    model = tiny()
    layers, rows, keys = survey(model), np.arange(COUNT), [f"image-{row}" for row in range(COUNT)]
    found = gather(model, layers, PLAN, Batch(pixels, rows, np.full(COUNT, -1), keys))
    drawn = sorted(sorted(range(COUNT), key=lambda row: unit_hash(keys[row]))[:5])
    assert found.samples.keys() == {"2", CLASSES, "0.0@3,3"}
    x = model.preprocessing.normalise(pixels[drawn])
    maps = torch.nn.Sequential(*list(model.network.children())[:3])(x).flatten(2)
    for name, expected in {"2": maps.amax(-1), CLASSES: model.network(x)}.items():
        assert found.samples[name].images.tolist() == drawn
        np.testing.assert_allclose(found.samples[name].peaks, expected.detach().numpy(), rtol=1e-3, atol=1e-4)
    assert {name: ranking.scores.shape[1] for name, ranking in found.rankings.items()} == dict.fromkeys(PLAN.ranked, 5)
    back = Gathered.from_arrays(found.arrays())
    for name, sample in found.samples.items():
        assert_same(back.samples[name], sample)


def test_images_in_groups_give_the_sample_of_all(tiny: Callable[..., Model], pixels: torch.Tensor) -> None:
    model = tiny()
    layers, keys = survey(model), [f"image-{row}" for row in range(COUNT)]
    gathering, merged = Gathering(model, layers, PLAN), Gathered.none(PLAN, layers, SIDE)
    for part in (slice(0, 4), slice(4, 5), slice(5, COUNT)):
        rows, none = np.arange(COUNT)[part], np.full(len(keys[part]), -1)
        gathering.add(Batch(pixels[part], rows, none, keys[part]))
        own = gather(model, layers, PLAN, Batch(pixels[part], np.arange(len(rows)), none, keys[part]))
        merged = own.shifted(part.start) + merged if part.start == 4 else merged + own.shifted(part.start)
    whole = gathering.gathered()
    for name in PLAN.sampled:
        assert_same(merged.samples[name], whole.samples[name])
