"""Checks the shapes in vital's signatures while its tests run; makes a small model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from jaxtyping import install_import_hook

from tests.reference.networks import SIDE, Tiny, randomise

if TYPE_CHECKING:
    from vital.models import Model

# Settings have no arrays, and beartype does not know the Self that pydantic's validators return.
MODULES = [file.stem for file in (Path(__file__).parents[2] / "vital").glob("*.py")]
install_import_hook([f"vital.{name}" for name in MODULES if name not in ("__init__", "settings")], "beartype.beartype")


@pytest.fixture(autouse=True)
def _same_random_stream() -> Iterator[None]:
    """Every test begins with the same stream, whichever tests ran before it, and leaves the caller's alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def tiny() -> Callable[..., Model]:
    """A model of three convolutions at 32 pixels; another network if one is given."""
    from vital.models import Model
    from vital.preprocessing import Preprocessing

    def make(seed: int = 0, network: torch.nn.Module | None = None) -> Model:
        preprocessing = Preprocessing(SIDE, (0.5, 0.45, 0.4), (0.25, 0.2, 0.3))
        return Model("tiny", randomise(network or Tiny(), seed), preprocessing)

    return make
