import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vital.measuring.rows import share_out, sort_in_place, sort_rows

# Few distinct values: ties are what a network's activations are full of.
few = st.sampled_from([-2.5, -1.0, -0.0, 0.0, 1e-40, 1.0, 3e38])
floats = st.one_of(few, st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(npst.arrays(np.float32, npst.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=floats))
def test_rows_are_sorted_as_numpy_sorts_them(rows: np.ndarray) -> None:
    tensor = torch.from_numpy(rows.copy())
    np.testing.assert_array_equal(sort_rows(tensor).numpy(), np.sort(rows, -1))
    np.testing.assert_array_equal(tensor.numpy(), rows)  # the argument is left as it was


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_the_order_in_place_is_that_of_a_stable_sort(dtype: type, data: st.DataObject) -> None:
    rows = data.draw(npst.arrays(np.float32, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=floats))
    rows = rows.astype(dtype)
    before = rows.copy()
    order = sort_in_place(rows).reshape(rows.shape) - np.arange(len(rows))[:, None] * rows.shape[1]
    np.testing.assert_array_equal(rows, np.sort(before, axis=1))
    np.testing.assert_array_equal(order, np.argsort(before, axis=1, kind="stable"))


def test_many_rows_are_shared_between_threads_and_come_back_in_place() -> None:
    torch.set_num_threads(3)
    rows = np.random.default_rng(0).standard_normal((3, 67, 400)).astype(np.float32)
    tensor = torch.from_numpy(rows).transpose(0, 1)  # not contiguous
    np.testing.assert_array_equal(sort_rows(tensor).numpy(), np.sort(rows.transpose(1, 0, 2), -1))


def test_an_error_in_shared_work_is_not_lost() -> None:
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        share_out([1, 0, 2], lambda part: 1 / part)  # type: ignore[arg-type]
