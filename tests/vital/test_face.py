"""The face: light to import, complete, and the same objects as below it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import vital

HEAVY = ("torch", "torchvision", "numpy", "xarray", "pandas", "PIL", "pydantic", "jaxtyping")


def test_importing_vital_imports_nothing_heavy() -> None:
    script = f"import sys, vital; dir(vital); print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", vital.__all__)
def test_every_name_is_what_its_module_has(name: str) -> None:
    value = getattr(vital, name)
    assert getattr(importlib.import_module(value.__module__), name) is value
    assert name in dir(vital)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vital' has no attribute 'rendre'"):
        _ = vital.rendre
    assert not hasattr(vital, "site")


def test_the_package_says_that_it_is_typed() -> None:
    from importlib import resources

    assert (resources.files(vital) / "py.typed").is_file()
