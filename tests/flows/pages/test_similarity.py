from __future__ import annotations

import numpy as np
import pytest

from flows.pages.similarity import principal, spread


def test_principal_components_are_those_of_a_singular_value_decomposition() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 7)) * np.arange(1, 8)
    left, scale, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    found = principal(rows)
    np.testing.assert_allclose(np.abs(found), np.abs(left * scale)[:, :2], atol=1e-9)
    # the signs do not depend on the library: the greatest entry of each is positive
    assert (found[np.abs(found).argmax(0), [0, 1]] > 0).all()


def test_two_groups_lie_apart() -> None:
    stream = np.random.default_rng(1)
    rows = stream.normal(size=(40, 12)) * 0.1
    rows[::2] += 1
    across = spread(principal(rows))[:, 0]
    even, odd = across[::2], across[1::2]
    assert even.max() < odd.min() or odd.max() < even.min()


@pytest.mark.parametrize("count", [1, 2, 9])
def test_places_are_spread_evenly(count: int) -> None:
    made = spread(np.random.default_rng(2).normal(size=(count, 2)))
    expected = np.arange(count) / max(count - 1, 1)
    np.testing.assert_allclose(np.sort(made, axis=0), np.stack([expected, expected], 1))


def test_equal_neurons_keep_their_order() -> None:
    np.testing.assert_array_equal(spread(np.zeros((3, 2))), [[0, 0], [0.5, 0.5], [1, 1]])
