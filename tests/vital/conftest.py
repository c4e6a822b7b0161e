"""Makes a small model, and gives every test the same random stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import torch

from tests import checking
from tests.reference.networks import SIDE, Tiny, randomise

if TYPE_CHECKING:
    from vital.network.models import Model


@pytest.fixture(autouse=True)
def _same_random_stream() -> Iterator[None]:
    """Every test begins with the same stream, whichever tests ran before it, and leaves the caller's alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _whole_networks_are_checked_at_first(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests that take seconds call a few functions a hundred thousand times, with shapes of one kind: the first calls
    of each are checked in every test, and all in the quick ones."""
    slow = request.node.get_closest_marker("slow") is not None
    checking.spare(slow)
    yield
    checking.spare(False)


@pytest.fixture
def tiny() -> Callable[..., Model]:
    """A model of three convolutions at 32 pixels; another network if one is given."""
    from vital.network.models import Model
    from vital.network.preprocessing import Preprocessing

    def make(seed: int = 0, network: torch.nn.Module | None = None) -> Model:
        preprocessing = Preprocessing(SIDE, (0.5, 0.45, 0.4), (0.25, 0.2, 0.3))
        return Model("tiny", randomise(network or Tiny(), seed), preprocessing)

    return make
