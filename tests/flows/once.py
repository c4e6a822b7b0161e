"""What is dear to make is made once, also where tests run in several processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` has filled, whichever process came first; no test may change it."""
    ours = factory.getbasetemp()
    folder = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / name
    with FileLock(f"{folder}.lock"), warnings.catch_warnings():
        if not (folder / "done").exists():
            make(folder)
            (folder / "done").touch()
    return folder
