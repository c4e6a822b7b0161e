"""What is in a file, checked: arrays by their names, whole numbers, tables of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from vital.network.sources.dictionaries.encoders import Unreadable

Arrays: TypeAlias = Mapping[str, np.ndarray]


def arrays_of(state: Any) -> dict[str, np.ndarray]:
    """Tensors and arrays of a table as arrays."""
    if not isinstance(state, Mapping):
        raise Unreadable(f"it holds a {type(state).__name__}; save the state_dict() with torch.save")
    known = {name: value for name, value in state.items() if isinstance(value, torch.Tensor | np.ndarray)}
    try:  # NumPy has no bfloat16
        return {
            name: np.asarray(torch.as_tensor(value, device="cpu").to_dense().double().numpy())
            for name, value in known.items()
        }
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise Unreadable(f"it holds what are no plain numbers ({error}); save floats") from None


def table(text: bytes, where: str) -> dict[str, Any]:
    """The object that a text in JSON is; raises `Unreadable`, which names ``where`` it stands, for anything else."""
    try:
        values = json.loads(text.decode("utf-8", "replace"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise Unreadable(f"{where} is no JSON; fetch or write it again")
    return values


def inner(value: object) -> Mapping[str, Any]:
    """A table inside another; empty where there is none."""
    return value if isinstance(value, Mapping) else {}


def wanted(arrays: Arrays, *names: str) -> list[np.ndarray]:
    """The arrays of these names, all of which a format has."""
    if not arrays:
        raise Unreadable(f"it holds no arrays, such as {' and '.join(names)}; give the file as its program wrote it")
    if missing := [name for name in names if name not in arrays]:
        raise Unreadable(
            f"it has no {' and no '.join(missing)} but {', '.join(list(arrays)[:6])}; give the file as its program "
            "wrote it"
        )
    return [arrays[name] for name in names]


def count(k: Any) -> int | None:
    """A whole number as a file has it; None stays."""
    value = np.asarray(k)
    if k is None or (value.ndim == 0 and value.dtype == object and value.item() is None):
        return None
    if value.size != 1 or value.dtype.kind not in "fiu" or float(value.item()) % 1 != 0:
        raise Unreadable(f"its k is {value.tolist()!r}; one whole number was expected")
    return int(value.item())


def number(value: Any, what: str) -> float:
    """One finite number as a file has it; ``what`` is named where it is none."""
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise Unreadable(f"its {what} is {found.tolist()!r}; one number was expected")
    return float(found.item())
