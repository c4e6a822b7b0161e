"""Which neurons a photograph leads to, against a look at every neuron one by one."""

from __future__ import annotations

import numpy as np
import pytest

from flows.pages.photographs.across import MOST_EXCITED, POOL, Excited, across
from stores import Sample


def test_a_photograph_leads_to_the_neurons_that_it_excites_most() -> None:
    stream = np.random.default_rng(0)
    # some neurons are silent on most images, one on all
    peak = np.maximum(0, stream.normal(np.linspace(-2, 2, 120), 1, (250, 120))).astype(np.float32)
    peak[:, 0] = 0
    sample = Sample(np.arange(1000, 1250), peak)
    excited = Excited()
    for part in (range(50), range(50, 51), range(51, 120)):
        excited.add(list(part), Sample(sample.image, peak[:, list(part)]))
    found = excited.by_image()
    assert len(found) == POOL
    for image, neurons in found.items():
        row = peak[image - 1000].astype(np.float64)
        shares = [(np.mean(peak[:, one] < row[one]) + np.mean(peak[:, one] <= row[one])) / 2 for one in range(120)]
        with np.errstate(invalid="ignore"):
            deviations = np.nan_to_num((row - peak.mean(0, dtype=np.float64)) / peak.astype(np.float64).std(0))
        order = sorted(range(120), key=lambda one: (-shares[one], -deviations[one], one))
        assert neurons == [one for one in order[:MOST_EXCITED] if shares[one] > 0.5]
        assert 0 not in neurons


def test_without_a_sample_no_photograph_leads_anywhere() -> None:
    excited = Excited()
    excited.add([0, 1], Sample(np.zeros(0, np.int64), np.zeros((0, 2), np.float32)))
    assert excited.by_image() == {}


@pytest.mark.parametrize(("silent", "shown"), [(0, 10), (0.55, 6), (1, 1)])
def test_of_equal_peaks_one_image_is_shown(silent: float, shown: int) -> None:
    stream = np.random.default_rng(0)
    peaks = stream.permutation(
        np.concatenate([np.zeros(round(1000 * silent)), stream.gamma(2, size=1000 - round(1000 * silent))])
    )
    found = across(peaks)
    assert len(found) == shown
    rows, shares = zip(*found, strict=True)
    assert list(peaks[list(rows)]) == sorted(peaks[list(rows)], reverse=True)
    np.testing.assert_allclose(
        shares, [((peaks < peaks[row]).mean() + (peaks <= peaks[row]).mean()) / 2 for row in rows]
    )
