"""What has to come before Prefect is imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def calm_prefect(logged: str = "CRITICAL") -> None:
    """Before Prefect is imported: nothing is reported to anybody, and only trouble is ``logged``. What the environment
    says already stays."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", logged)
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")


def prepared(recipe: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function that runs flows, after what has to come before Prefect is imported."""

    @wraps(recipe)
    def run(*words: _P.args, **settings: _P.kwargs) -> _R:
        from flows.running.server import served

        calm_prefect()
        with served():
            return recipe(*words, **settings)

    return run
