"""Data as classic scripts: browsers refuse ``fetch`` and modules on pages that were opened from disk."""

import json
import math
from typing import Any

import numpy as np

_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def script(key: str, value: Any) -> bytes:
    """A script that hands ``value`` to the page under ``key``; nothing in it can end a script or begin a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"VITAL.put({json.dumps(key)},{text});\n".translate(_UNSAFE).encode("ascii")


def number(value: float) -> float | int | None:
    """Four significant digits, which is more than a plot shows; None where the value is unknown.

    >>> number(0.123456), number(float("nan")), number(2.0)
    (0.1235, None, 2)
    """
    value = float(value)
    if not math.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def numbers(values: Any) -> list[float | int | None]:
    """`number` of each."""
    return [number(value) for value in np.asarray(values, np.float64).ravel()]
