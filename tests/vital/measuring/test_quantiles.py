from dataclasses import fields
from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vital.measuring.exact import AT_ONCE, FINE, GRID, LIMIT, ExactSum, exact_parts, total_of
from vital.measuring.image_sums import ImageTotal
from vital.measuring.rows import resample, site_levels, stepped, stored_levels
from vital.measuring.sums import LayerSums, LayerTotal

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
    assert_same((first + second) + third, first + (second + third), exact=True)
    assert_same(first + second, second + first, exact=True)


@given(batches())
def test_no_images_are_the_identity(a: np.ndarray) -> None:
    some, none = sums(a), LayerSums.none(3, 5)
    assert_same(some + none, some, exact=True)
    assert_same(none + some, some, exact=True)
    assert_same(sums(a[:0]), none, exact=True)


@given(batches(images=5), st.integers(0, 5))
def test_sums_of_parts_are_those_of_the_whole(a: np.ndarray, cut: int) -> None:
    assert_same(sums(a[:cut]) + sums(a[cut:]), sums(a), exact=True)


@given(batches())
def test_sums_are_what_numpy_finds(a: np.ndarray) -> None:
    result = sums(a, levels=9)  # as many levels as sites: nothing is interpolated
    wide = a.astype(np.float64)
    np.testing.assert_allclose(total_of(result.quantiles), np.sort(wide, -1).sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(total_of(result.total), wide.mean(-1).sum(0), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(total_of(result.squares), (wide**2).mean(-1).sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(total_of(result.active), (wide > 0).mean(-1).sum(0), rtol=1e-6)
    np.testing.assert_allclose(total_of(result.peaks), wide.max(-1).sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(total_of(result.peak_squares), (wide.max(-1) ** 2).sum(0), rtol=1e-6, atol=1e-9)
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


wide = st.one_of(st.floats(-1e9, 1e9, width=32), st.floats(-(2.0**-20), 2.0**-20, width=32), st.just(0.0))


@given(npst.arrays(np.float32, st.integers(0, 40), elements=wide), st.randoms())
def test_an_exact_sum_is_the_sum_of_fractions_in_any_order(values: np.ndarray, random: Random) -> None:
    fine = [Fraction(float(value)) for value in np.rint(values.astype(np.float64) / FINE) * FINE]
    expected = sum(fine if np.abs(values).max(initial=0) < 1 else map(Fraction, values.tolist()), Fraction(0))
    found = []
    for _ in range(3):
        order = list(range(len(values)))
        random.shuffle(order)
        total = ExactSum(())
        for part in np.array_split(order, random.randint(1, 4)):
            total.add(torch.from_numpy(values[part.astype(int)]))
        found.append(total.numpy())
    coarse, rest = found[0].tolist()
    assert abs(Fraction(coarse) + Fraction(rest) - expected) <= len(values) * Fraction(FINE) / 2
    assert 0 <= rest < GRID
    assert all(other.tobytes() == found[0].tobytes() for other in found)


def test_more_images_than_add_without_a_carry_and_more_numbers_than_a_cache_holds() -> None:
    values = torch.full((3 * AT_ONCE + 1, 5), GRID * (1 - 2.0**-20))
    total = ExactSum((5,))
    total.add(values)
    exact = (3 * AT_ONCE + 1) * Fraction(float(values[0, 0]))
    assert all(Fraction(coarse) + Fraction(rest) == exact for coarse, rest in total.numpy().T.tolist())
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 3, 9000)).astype(np.float32))
    torch.set_num_threads(3)
    total = ExactSum((3, 9000))
    total.add(rows)
    np.testing.assert_array_equal(total_of(total.numpy()), rows.double().sum(0).numpy())


def test_a_value_is_cut_without_rounding_and_what_is_infinite_stays_so() -> None:
    values = torch.tensor([1e-7, -3.3, 4096.5, -8e9, 3e38, float("inf"), float("-inf"), float("nan"), -0.0])
    coarse, rest = exact_parts(values)
    np.testing.assert_array_equal((coarse.double() + rest.double()).numpy()[:4], values.double().numpy()[:4])
    np.testing.assert_array_equal(coarse[4:].numpy(), values[4:].numpy())
    assert not rest[2:].any()
    total = ExactSum((9,))
    total.add(values[None].repeat(2, 1))
    np.testing.assert_allclose(total_of(total.numpy()), 2 * values.double().numpy())


def test_sums_that_have_left_what_is_exact_are_named() -> None:
    """Squares of peaks do first."""
    peak = np.sqrt(np.float32(LIMIT / 2))
    near, over = (sums(np.full((3, 1, 4), value, np.float32)) for value in (peak / 2, peak))
    assert not near.beyond()
    assert list(over.beyond().values()) == [1] * 3
    assert "sum over images of the square of the greatest value" in over.beyond()
    assert not (near + near).beyond()
    assert "sum over images of the square of the greatest value" in (near + over).beyond()
    assert not sums(np.full((3, 1, 4), np.inf, np.float32)).beyond(), "what is infinite says so by itself"


@given(batches(images=3))
def test_sums_come_back_from_a_store(a: np.ndarray) -> None:
    whole = sums(a)
    kept = {name: np.asarray(array) for name, array in whole.stored().items()}
    assert_same(LayerSums.from_stored(kept), whole, exact=True)
    assert kept.keys() == {*LayerSums.meanings(), "sums/count"}


def test_on_a_device_sums_are_neither_read_nor_copied_until_they_are_asked_for() -> None:
    total = LayerTotal(3, 5, "meta")  # a device from which nothing can be read
    total.add(torch.rand(4, 3, 9, device="meta"), 5)
    images = ImageTotal(8, "meta")
    images.add(torch.zeros(4, 3, 8, 8, dtype=torch.uint8, device="meta"))
    for asked in (total.sums, images.sums):
        with pytest.raises(NotImplementedError, match="meta tensor"):
            asked()


def test_levels_read_without_gradients_may_be_read_with_them_later() -> None:
    have, want = stored_levels(977, 31), site_levels(13)
    with torch.inference_mode():
        resample(torch.rand(2, 31), have, want)
    rows = torch.rand(2, 31, requires_grad=True)
    resample(rows, have, want).sum().backward()
    assert rows.grad is not None
    np.testing.assert_allclose(rows.grad.sum(1), [13, 13], rtol=1e-5)


@given(npst.arrays(np.float32, (3, 7), elements=st.floats(-(2.0**60), 2.0**60, width=32)), st.sampled_from([1, 8, 256]))
def test_rounded_rows_stay_in_order_and_within_half_a_step(rows: np.ndarray, steps: int) -> None:
    rows = np.sort(rows, -1)
    found = stepped(rows, steps)
    assert found.dtype == np.float32
    assert (np.diff(found) >= 0).all()
    width = np.ptp(rows.astype(np.float64), axis=-1, keepdims=True) / steps
    # single precision rounds the width itself, and values far from zero beside their width
    slack = 2.0**-20 * np.abs(rows) + 2.0**-140
    assert (np.abs(found.astype(np.float64) - rows) <= width / 2 + slack).all()


def test_rounded_rows_are_multiples_of_a_power_of_two_and_odd_ones_stay() -> None:
    rows = np.array([[0, 0.2, 2.9, 5], [7.1, 7.1, 7.1, 7.1], [0, 1, 2, np.inf], [0, np.nan, 1, 2]], np.float32)
    found = stepped(rows, 4)
    np.testing.assert_array_equal(found[0], [0, 0, 3, 5])  # steps of 1: 5/4 rounded down to a power of two
    np.testing.assert_array_equal(found[1:], rows[1:])
