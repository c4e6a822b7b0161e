"""A word about images that are darker than their kind of numbers lets them be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from flows.steps.reading.darkness import doubts
from stores.shards.finding import expand
from tests.flows import tiny
from vital.network.preprocessing import Preprocessing

FIVE = Preprocessing(32, (0.5,) * 5, (0.2,) * 5, channels=5)


def array(most: int, kind: str = "uint16", channels: int = 5) -> bytes:
    values = np.random.default_rng(0).integers(0, most + 1, (8, 9, channels)).astype(kind)
    values[0, 0, 0] = most
    written = io.BytesIO()
    np.save(written, values)
    return written.getvalue()


@pytest.mark.parametrize(
    ("most", "kind", "dark"),
    [(4095, "uint16", True), (16383, "uint16", True), (65535, "uint16", False), (40, "uint8", True)],
)
def test_values_that_end_far_below_white_are_said(tmp_path: Path, most: int, kind: str, dark: bool) -> None:
    members = {f"{number}.npy": array(most if number == 2 else 1, kind) for number in range(3)}
    [shard] = expand([str(tiny.write_tar(tmp_path / "a.tar", members))])
    said = list(doubts(shard, FIVE))
    assert len(said) == dark
    assert all("first 3 images of a.tar" in line and "--black 0 --white 4095" in line for line in said)


def test_nothing_is_said_of_photographs_and_of_what_is_known(tmp_path: Path) -> None:
    dark = Preprocessing(32, (0.5,) * 5, (0.2,) * 5, channels=5, black=(0.0,) * 5, white=(4095.0,) * 5)
    [arrays] = expand([str(tiny.write_tar(tmp_path / "a.tar", {"a.npy": array(4095)}))])
    assert not list(doubts(arrays, dark))
    [photographs] = expand([str(tiny.write_tar(tmp_path / "b.tar", {"a.jpg": tiny.jpeg(0)}))])
    assert not list(doubts(photographs, Preprocessing(32, (0.5,) * 3, (0.2,) * 3)))
