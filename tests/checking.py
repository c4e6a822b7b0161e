"""What checks arguments and results against signatures while the tests run: beartype, which writes each check once.

A function that is defined within another is defined, and would be checked by new code, at every call of the other:
half of a small flow's processor time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

write = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int does for a float, as type checkers have it."""
_written: dict[object, Callable[..., Any]] = {}


def checked(stub: Callable[..., Any]) -> Callable[..., Any]:
    """The stub with checks. jaxtyping makes stubs, with the signature of a function and none of its code, so those of
    one inner function are alike whenever it was defined."""
    if "<locals>" not in stub.__qualname__:
        return write(stub)
    code = stub.__code__
    arguments = (code.co_varnames, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    alike = (stub.__module__, stub.__qualname__, arguments, tuple(stub.__annotations__.items()))
    try:
        if alike not in _written:
            _written[alike] = write(stub)
        return _written[alike]
    except TypeError:  # what a decorator passes on, as *args: P.args, cannot be looked up
        return write(stub)
