from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vital.measuring.rows import resample, site_levels, stored_levels
from vital.measuring.sums import LayerSums, sum_in_order

floats = st.floats(-1e3, 1e3, width=32)


def batches(images: int = 4, channels: int = 3, sites: int = 9) -> st.SearchStrategy[np.ndarray]:
    return st.integers(0, images).flatmap(
        lambda count: npst.arrays(np.float32, (count, channels, sites), elements=floats)
    )


def sums(array: np.ndarray, levels: int = 5) -> LayerSums:
    return LayerSums.of(torch.from_numpy(array), levels)


def assert_same(first: LayerSums, second: LayerSums, exact: bool = False) -> None:
    for part in fields(LayerSums):
        a, b = getattr(first, part.name), getattr(second, part.name)
        if exact:
            np.testing.assert_array_equal(a, b, err_msg=part.name)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-9, err_msg=part.name)


@given(batches(), batches(), batches())
def test_sums_add_in_any_grouping_and_order(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    first, second, third = sums(a), sums(b), sums(c)
    assert_same((first + second) + third, first + (second + third))
    assert_same(first + second, second + first, exact=True)


@given(batches())
def test_no_images_are_the_identity(a: np.ndarray) -> None:
    some, none = sums(a), LayerSums.none(3, 5)
    assert_same(some + none, some, exact=True)
    assert_same(none + some, some, exact=True)
    assert_same(sums(a[:0]), none, exact=True)


@given(batches(images=5), st.integers(0, 5))
def test_sums_of_parts_are_those_of_the_whole(a: np.ndarray, cut: int) -> None:
    assert_same(sums(a[:cut]) + sums(a[cut:]), sums(a))


@given(batches())
def test_sums_are_what_numpy_finds(a: np.ndarray) -> None:
    result = sums(a, levels=9)  # as many levels as sites: nothing is interpolated
    wide = a.astype(np.float64)
    np.testing.assert_allclose(result.quantiles, np.sort(wide, -1).sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result.total, wide.mean(-1).sum(0), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(result.squares, (wide**2).mean(-1).sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.active, (wide > 0).mean(-1).sum(0), rtol=1e-6)
    np.testing.assert_allclose(result.peaks, wide.max(-1).sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result.peak_squares, (wide.max(-1) ** 2).sum(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(result.minimum, wide.min((0, 2), initial=np.inf))
    np.testing.assert_array_equal(result.maximum, wide.max((0, 2), initial=-np.inf))
    assert result.count == len(a)


def test_sums_of_different_nodes_cannot_be_added() -> None:
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(3, 6\)"):
        LayerSums.none(3, 5) + LayerSums.none(3, 6)


def test_levels_of_sites_are_their_middles() -> None:
    np.testing.assert_allclose(site_levels(4), [1 / 8, 3 / 8, 5 / 8, 7 / 8])


@given(st.integers(1, 5000), st.integers(8, 300))
def test_stored_levels_ascend_and_keep_both_ends(sites: int, count: int) -> None:
    levels = stored_levels(sites, count)
    assert len(levels) == min(sites, count)
    assert (np.diff(levels) > 0).all()
    np.testing.assert_allclose([levels[0], levels[-1]], [0.5 / sites, (sites - 0.5) / sites])
    if sites > 2 * count:  # denser towards both ends
        steps = np.diff(levels)
        assert steps[0] < steps[len(steps) // 2] > steps[-1]


@given(npst.arrays(np.float32, (2, 6), elements=floats))
def test_equal_levels_return_the_rows_as_they_are(rows: np.ndarray) -> None:
    tensor = torch.from_numpy(rows)
    assert torch.equal(resample(tensor, site_levels(6), site_levels(6)), tensor)


@given(npst.arrays(np.float64, (3, 7), elements=floats), st.integers(2, 12), st.lists(st.floats(0, 1), min_size=1))
def test_resampling_is_linear_between_levels_and_constant_beyond(
    rows: np.ndarray, sites: int, wanted: list[float]
) -> None:
    have, want = stored_levels(1000, 7), np.asarray(wanted)
    result = resample(torch.from_numpy(rows), have, want).numpy()
    np.testing.assert_allclose(result, [np.interp(want, have, row) for row in rows], rtol=1e-9, atol=1e-9)
    sized = resample(torch.from_numpy(rows), have, site_levels(sites)).numpy()
    np.testing.assert_allclose(sized, [np.interp(site_levels(sites), have, row) for row in rows], rtol=1e-9, atol=1e-9)


def test_a_row_of_one_level_is_constant() -> None:
    row = torch.tensor([[3.0]])
    assert resample(row, site_levels(1), site_levels(3)).tolist() == [[3.0, 3.0, 3.0]]


@given(
    npst.arrays(np.float64, (2, 3, 9), elements=floats),
    st.floats(-3, 3),
    st.floats(-3, 3),
)
def test_resampling_is_linear_in_the_rows(pair: np.ndarray, a: float, b: float) -> None:
    def read(rows: np.ndarray) -> np.ndarray:
        return resample(torch.from_numpy(rows), site_levels(9), site_levels(5)).numpy()

    np.testing.assert_allclose(
        read(a * pair[0] + b * pair[1]), a * read(pair[0]) + b * read(pair[1]), rtol=1e-9, atol=1e-8
    )


def test_the_sum_over_images_does_not_depend_on_their_batches() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32) * 1e6)
    one_by_one = np.zeros(4)
    for row in rows:
        one_by_one = one_by_one + sum_in_order(row[None])
    np.testing.assert_array_equal(sum_in_order(rows), one_by_one)
