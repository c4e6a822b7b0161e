from __future__ import annotations

import pytest

from tests.flows import walkable
from tests.flows.once import made_once
from tests.flows.walkable import Walkable


@pytest.fixture(scope="session")
def walked(_server: None, tmp_path_factory: pytest.TempPathFactory) -> Walkable:
    """Stores and two atlases, made once for all tests of the pages; none may change them."""
    return Walkable(made_once(tmp_path_factory, "walked", walkable.make))
