"""Directions: matrices that are large, and read by whom they concern alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from stores import open_statistics
from stores.errors import SchemaMismatch


def test_a_matrix_is_read_when_it_is_asked_for_and_then_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(5, 3)).astype(np.float32) for _ in "ab")
    store = tmp_path / "s.zarr"
    made = open_statistics(str(store), "a")
    made.write_directions("first", first)
    made.write_directions("model/second", second)
    shutil.rmtree(store / "directions/model=2Fsecond")
    kept = open_statistics(str(store)).directions()
    assert sorted(kept) == ["first", "model/second"]
    assert len(kept) == 2
    assert "model/second" in kept
    assert "third" not in kept
    np.testing.assert_array_equal(kept["first"], first)
    shutil.rmtree(store / "directions/first")
    np.testing.assert_array_equal(open_statistics(str(store)).directions()["first"], first)
    with pytest.raises(SchemaMismatch, match="directions/model=2Fsecond"):
        kept["model/second"]
