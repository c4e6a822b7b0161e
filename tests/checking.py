"""What checks arguments and results against signatures while the tests run: beartype, which writes each check once.

A function that is defined within another is defined, and would be checked by new code, at every call of the other: two
milliseconds each, a third of a small flow's processor time. A test of a whole flow calls some functions ten thousand
times with shapes of one kind: it may ask that only the first calls of each are checked.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial, wraps
from types import FunctionType
from typing import Any

from beartype import BeartypeConf, beartype

write = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int does for a float, as type checkers have it."""
SEVERAL = 50
"""Checks of a function in a test that asks for no more: arguments and results are two."""
_sparing = False
_checks: Counter[tuple[object, ...]] = Counter()
_left_alone: list[Any] = []


def checked(stub: Callable[..., Any]) -> Callable[..., Any]:
    """The stub with checks. jaxtyping makes stubs, with the signature of a function and none of its code."""
    return write(stub) if LOCAL in stub.__qualname__ else _counted(stub)


LOCAL = "<locals>"
"""In the names of functions that are defined within others."""


def once(decorate: Callable[..., Any]) -> Callable[..., Any]:
    """jaxtyping's decorator, which takes a function that is defined again and again by its code the first time: what it
    makes then calls the function that was defined last."""
    written: dict[object, Callable[..., Any]] = {}
    called = threading.local()

    def decorated(function: Any = None, **options: Any) -> Any:
        if function is None:
            return partial(decorated, **options)
        if not isinstance(function, FunctionType) or LOCAL not in function.__qualname__ or _has_defaults(function):
            return decorate(function, **options)
        alike = (function.__module__, function.__code__)
        if alike not in written:
            written[alike] = decorate(_calling_last(called, function), **options)
        check = written[alike]

        @wraps(function)
        def again(*args: Any, **kwargs: Any) -> Any:
            if _sparing:
                _checks[alike] += 1
                if _checks[alike] > SEVERAL // 2:
                    return function(*args, **kwargs)
            functions = called.__dict__.setdefault("functions", [])
            functions.append(function)
            try:
                return check(*args, **kwargs)
            finally:
                functions.pop()

        return again

    return decorated


def _has_defaults(function: FunctionType) -> bool:
    """They may be others each time, save where there is nothing to be had."""
    values = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return any(value is not None for value in values)


def _calling_last(called: Any, like: FunctionType) -> FunctionType:
    """Stands for all functions of one code: it has the signature and names of one, but keeps nothing of it alive."""

    def last(*args: Any, **kwargs: Any) -> Any:
        return called.functions[-1](*args, **kwargs)

    # annotations are looked up among the globals
    made = FunctionType(last.__code__, like.__globals__, like.__name__, None, last.__closure__)
    made.__qualname__, made.__module__ = like.__qualname__, like.__module__
    made.__annotations__ = like.__annotations__
    made.__signature__ = inspect.signature(like)  # type: ignore[attr-defined]
    return made


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
    """What the decorators of a function have wrapped, by its name: jaxtyping asks what it has wrapped, too. The
    function itself is not marked, since `typing.get_type_hints` then gives none: the command would be read as if its
    parameters had no types."""
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        found = inspect.getattr_static(found, part, None)
    for name in ("__func__", "fget", "func"):  # static and class methods, properties, and those that are kept
        found = getattr(found, name, found)
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
        yield found
