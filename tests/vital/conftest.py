"""Checks the shapes in vital's signatures while its tests run; makes a small model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.reference.networks import SIDE, Tiny, randomise

if TYPE_CHECKING:
    from vital.network.models import Model

# beartype knows neither the Self that pydantic's validators return, nor a protocol that is not checkable at run time.
UNCHECKED = ("__init__", "settings", "optimise")
FOLDER = Path(__file__).parents[2]
MODULES = [
    ".".join(file.relative_to(FOLDER).with_suffix("").parts) for file in sorted((FOLDER / "vital").rglob("*.py"))
]
install_import_hook([name for name in MODULES if name.rpartition(".")[2] not in UNCHECKED], "beartype.beartype")


# A deadline would measure what else the machine is doing.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _same_random_stream() -> Iterator[None]:
    """Every test begins with the same stream, whichever tests ran before it, and leaves the caller's alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks lose far more to waiting threads than they gain, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny() -> Callable[..., Model]:
    """A model of three convolutions at 32 pixels; another network if one is given."""
    from vital.network.models import Model
    from vital.network.preprocessing import Preprocessing

    def make(seed: int = 0, network: torch.nn.Module | None = None) -> Model:
        preprocessing = Preprocessing(SIDE, (0.5, 0.45, 0.4), (0.25, 0.2, 0.3))
        return Model("tiny", randomise(network or Tiny(), seed), preprocessing)

    return make
