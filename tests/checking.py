"""What checks arguments and results against signatures while the tests run: beartype, which writes each check once.

A function that is defined within another is defined, and would be checked by new code, at every call of the other:
half of a small flow's processor time. A test of a whole flow calls some functions ten thousand times with shapes of one
kind: it may ask that only the first calls of each are checked.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from beartype import BeartypeConf, beartype

write = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int does for a float, as type checkers have it."""
_written: dict[object, Callable[..., Any]] = {}

SEVERAL = 50
"""Checks of a function in a test that asks for no more: arguments and results are two."""
_sparing = False
_checks: Counter[tuple[str, str]] = Counter()
_left_alone: list[Any] = []


def checked(stub: Callable[..., Any]) -> Callable[..., Any]:
    """The stub with checks. jaxtyping makes stubs, with the signature of a function and none of its code, so those of
    one inner function are alike whenever it was defined."""
    if "<locals>" not in stub.__qualname__:
        return _counted(stub)
    code = stub.__code__
    arguments = (code.co_varnames, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    alike = (stub.__module__, stub.__qualname__, arguments, tuple(stub.__annotations__.items()))
    try:
        if alike not in _written:
            _written[alike] = write(stub)
        return _written[alike]
    except TypeError:  # what a decorator passes on, as *args: P.args, cannot be looked up
        return write(stub)


def spare(sparing: bool) -> None:
    """From now on only the first calls of each function are checked, or all are; both begin anew."""
    global _sparing
    _sparing = sparing
    _checks.clear()
    while _left_alone:
        vars(_left_alone.pop()).pop("__no_type_check__", None)


def _counted(stub: Callable[..., Any]) -> Callable[..., Any]:
    """Its checks are written at the first call: a process of tests calls half of the functions that it imports."""
    name = (stub.__module__, stub.__qualname__)
    check: Callable[..., Any] | None = None

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal check
        check = check or write(stub)
        if _sparing:
            _checks[name] += 1
            if _checks[name] == SEVERAL:
                for one in _layers(*name):
                    one.__no_type_check__ = True
                    _left_alone.append(one)
        return check(*args, **kwargs)

    return counted


def _layers(module: str, qualname: str) -> Iterator[Any]:
    """A function by its name, and what its decorators have wrapped."""
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        found = inspect.getattr_static(found, part, None)
    for name in ("__func__", "fget", "func"):  # static and class methods, properties, and those that are kept
        found = getattr(found, name, found)
    while hasattr(found, "__wrapped__"):
        yield found
        found = found.__wrapped__
