"""What holds for all tests: one thread each, and shapes in signatures that are checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# Before torch is imported, and for child processes too: small networks lose far more to waiting threads than they
# gain, above all on a busy machine, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# A deadline would measure what else the machine is doing.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

PACKAGES = ("flows", "stores", "vital")
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""An int does for a float, as type checkers have it. The hook wants an expression that begins with a module's name."""


def is_unchecked(file: Path) -> bool:
    """Whether a module defines Prefect's flows: Prefect reads annotations in the globals of their functions, which a
    checked function does not have. It checks their arguments itself, and no arrays are among them."""
    return file.parts[-3:-1] == ("flows", "recipes") and "\nfrom prefect import flow" in file.read_text("utf-8")


class _AsItIs(MetaPathFinder):
    """Finds what is not to be checked, before the hook that checks everything does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("flows.recipes."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        return spec if spec and spec.origin and is_unchecked(Path(spec.origin)) else None


# Before anything of them is imported, whichever tests come first.
install_import_hook(list(PACKAGES), CHECKER)
sys.meta_path.insert(0, _AsItIs())


@pytest.fixture(scope="session", autouse=True)
def memory() -> None:
    """Tests keep the memory that they free, as processes that run tasks do."""
    from vital.memory import keep_memory

    keep_memory()
