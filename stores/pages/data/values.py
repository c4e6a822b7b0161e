"""Plain values as scripts, since pages that are opened from a disk may not fetch data; and long rows in few bytes."""

import base64
import json
import math
import string
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

PER_PART = 65_536
"""About how many bytes a part of an index has."""

_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""As scripts and Python agree on; of other letters they may not."""
_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def script(key: str, value: Any) -> bytes:
    """A script that hands ``value`` to the page under ``key``; nothing in it can end a script or begin a tag."""
    text = _json(value)
    return f"VITAL.put({json.dumps(key)},{text});\n".translate(_UNSAFE).encode("ascii")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


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
    """Values of an array of any shape, row by row, each as `number` gives it."""
    return [number(value) for value in np.asarray(values, np.float64).ravel()]


def packed(values: Shaped[np.ndarray, "value"], kind: str) -> str:
    """Numbers as base64 of their bytes, the least first: a fifth of the bytes of their digits, and no time to read.

    >>> packed(np.array([1, 256]), "u2")
    'AQAAAQ=='
    """
    return base64.b64encode(values.astype(f"<{kind}").tobytes()).decode("ascii")


def steps(neurons: Iterable[int]) -> list[int]:
    """Neurons in ascending order as the step from each to the next, which has fewer digits.

    >>> steps([99_998, 7, 99_999])
    [7, 99991, 1]
    """
    differences: list[int] = np.diff(np.unique(np.fromiter(neurons, np.int64)), prepend=0).tolist()
    return differences


def in_parts(entries: Sequence[tuple[str, Any]]) -> list[list[list[Any]]]:
    """Pairs of a key and what stands under it, in as many parts of about `PER_PART` bytes as it takes: each in the part
    that `part_of` names. Pairs, since a key may be any text, also one that means something to a script's objects."""
    size = sum(len(_json(entry)) for entry in entries)
    parts: list[list[list[Any]]] = [[] for _ in range(-(-size // PER_PART))]
    for key, value in entries:
        parts[part_of(key, len(parts))].append([key, value])
    return parts


def in_order(entries: Sequence[tuple[str, Any]]) -> tuple[list[list[list[Any]]], list[str]]:
    """The same in the order of `order_of`, so that keys which begin alike lie together; and where each part begins,
    cut to what tells it from the part before."""
    ordered = sorted(((order_of(key), key, value) for key, value in entries), key=lambda row: units(row[0]))
    parts: list[list[list[Any]]] = []
    begins: list[str] = []
    size, before = PER_PART, ""
    for order, key, value in ordered:
        size += len(_json((key, value)))
        if size > PER_PART:
            alike = next(
                (at for at, (one, other) in enumerate(zip(before, order, strict=False)) if one != other), len(before)
            )
            begins.append(order[: alike + 1] if parts else "")
            parts.append([])
            size = len(_json((key, value)))
        parts[-1].append([key, value])
        before = order
    return parts, begins


def order_of(key: str) -> str:
    """What the key of an image is ordered by: its name without folders and capitals, then all of it.

    >>> order_of("n01/Cat_7")
    'cat_7\\nn01/Cat_7'
    """
    return key.rpartition("/")[2].translate(_SMALL) + "\n" + key


def units(text: str) -> bytes:
    """What the pages' own script compares texts by."""
    return text.encode("utf-16-be", "surrogatepass")


def part_of(key: str, parts: int) -> int:
    """A number below ``parts`` that follows from a key alone; the pages' own script computes it too.

    >>> part_of("a", 7), part_of("ab", 1000)
    (6, 105)
    """
    units = np.frombuffer(key.encode("utf-16-le", "surrogatepass"), "<u2")
    total = 0
    for unit in units.tolist():
        total = (total * 31 + unit) % 1_000_003
    return total % parts
