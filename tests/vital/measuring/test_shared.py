"""What of a target is shared by a neuron's references, and not chance of a few images."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vital.measuring.targets import NodeTarget

LEVELS = np.linspace(0, 1, 4, dtype=np.float32)


def node(difference: list[float], deviation: list[float] | None) -> NodeTarget:
    """One neuron's target of flat rows, this far from those of the data set."""
    usual = np.full((len(difference), 4), 2.0, np.float32)
    rows = (usual + np.asarray(difference, np.float32)[:, None])[None]
    known = None if deviation is None else np.asarray(deviation, np.float32)
    return NodeTarget(LEVELS, rows, usual=usual, deviation=known)


def test_chance_is_left_out_and_the_rest_is_shrunk_by_its_share() -> None:
    target = node([0.0, 0.5, -0.5, 1.0, 10.0], [1.0] * 5)
    np.testing.assert_allclose(target.shared(np.array([4])), [[0, 0, 0, 0.75, 0.9975]], rtol=1e-6)


def test_a_difference_is_whole_where_the_data_set_is_not_known_or_never_varies() -> None:
    assert (node([0.0, 3.0], None).shared(np.array([2])) == 1).all()
    assert node([0.0, 3.0], [0.0, 0.0]).shared(np.array([2])).tolist() == [[0.0, 1.0]]


@given(st.floats(-100, 100), st.floats(0.01, 10), st.integers(1, 1000))
def test_more_references_never_share_less(difference: float, deviation: float, count: int) -> None:
    target = node([difference], [deviation])
    few, many = (float(target.shared(np.array([n]))[0, 0]) for n in (count, 2 * count))
    assert 0 <= few <= many <= 1


def test_images_drawn_from_the_data_set_itself_share_next_to_nothing() -> None:
    """An oracle by simulation: the estimate's mean square error is below that of the difference itself."""
    stream = np.random.default_rng(0)
    truth, count = stream.normal(0, 0.3, 2000), 9
    seen = truth + stream.normal(0, 1 / np.sqrt(count), truth.shape)
    shrunk = node(seen.tolist(), [1.0] * len(seen)).shared(np.array([count]))[0] * seen
    assert ((shrunk - truth) ** 2).mean() < 0.8 * ((seen - truth) ** 2).mean()
