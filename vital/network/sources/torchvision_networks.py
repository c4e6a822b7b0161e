"""torchvision's networks, built by torchvision as their weights ask for. The only module that imports torchvision."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vital.errors import UnknownModel, UnsuitableInput, nearest
from vital.memory import first_line, out_of_memory
from vital.network.preprocessing import Preprocessing
from vital.network.sources.loaded import RANDOM, Loaded, assumed
from vital.network.sources.weight_files import Weights, fill, read_weights
from vital.settings import ModelSettings

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
    with _without_compiler():
        return importlib.import_module("torchvision.models")


COMPILER = "torch._dynamo.utils"


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Importing torchvision imports PyTorch's compiler for one question, which only its pooling of regions asks: half
    of all that a process with a network of torchvision imports. While the block lasts another module stands for it,
    whose answer is the compiler's, imported when it is asked."""
    if COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(COMPILER)
    stand_in.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules[COMPILER] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(COMPILER) is stand_in:
            del sys.modules[COMPILER]


def _is_compile_supported(kind: Any) -> bool:
    return bool(importlib.import_module(COMPILER).is_compile_supported(kind))


@cache
def jpeg_decoder(device: torch.device) -> Callable[[Sequence[bytes]], list[Tensor]]:
    """nvJPEG through torchvision: JPEG files, each a tensor (3, row, column) of uint8 on a GPU. A file among them that
    cannot be decoded is a RuntimeError.

    One thread at a time may decode on a stream, and none may use that stream's memory meanwhile: torchvision decodes on
    another stream, which does not wait until the memory that it is given is no longer read.

    Raises:
        UnsuitableInput: the device is no GPU, or torchvision came without its decoders.
    """
    if device.type != "cuda":
        raise UnsuitableInput(f"nvjpeg decodes on a GPU and the network is on {device.type}: use --jpeg simplejpeg")
    torchvision_models()
    io = importlib.import_module("torchvision.io")

    def decode(files: Sequence[bytes]) -> list[Tensor]:
        data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        torch.cuda.current_stream(device).synchronize()
        try:
            decoded: list[Tensor] = io.decode_jpeg(data, io.ImageReadMode.RGB, device=device)
        except RuntimeError:
            torch.cuda.synchronize(device)  # it may still write what is freed with this error
            raise
        return decoded

    buffer = BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    try:
        decode([buffer.getvalue()])
    except (RuntimeError, AttributeError) as error:  # without nvJPEG its operator is there, and says so when it runs
        if out_of_memory(error):
            raise
        raise UnsuitableInput(
            f"this torchvision decodes nothing with nvJPEG ({first_line(error)}): install the one built for the CUDA "
            "of torch, or use --jpeg simplejpeg"
        ) from error
    return decode


def load(settings: ModelSettings) -> Loaded:
    """A torchvision network with its weights, those of a file, or random ones."""
    models = torchvision_models()
    known = models.list_models(module=models)
    if settings.name not in known:
        near = nearest(settings.name, [*known, "efficientnet_lite0", "squeezenet"])
        raise UnknownModel(
            f"no model {settings.name!r}; the nearest are {near}; a model of your own is named package.module:factory, "
            "those of other packages timm/NAME, hf/ORGANISATION/NAME and open_clip/ARCHITECTURE/WEIGHTS"
        )
    if settings.weights == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Loaded(build(settings.name))
    choices = models.get_model_weights(settings.name)
    file = settings.weights if settings.weights and Path(settings.weights).is_file() else None
    if file:
        published = next((one for one in choices if _file_name(one) == Path(file).name), None)
        if published is None:
            own = _of_file(settings.name, file)
            return replace(own, notes=(*own.notes, *assumed(settings, file)))
        return _published(settings.name, published, lambda: read_weights(file).only())
    label = (settings.weights or "DEFAULT").rpartition(".")[2]
    if label not in choices.__members__:
        raise UnknownModel(
            f"{settings.name} has no weights {settings.weights!r} and there is no such file: "
            f"choose from {', '.join(choices.__members__)}, or give a state-dict file"
        )
    weights = choices[label]
    return _published(settings.name, weights, lambda: _cached(weights, settings.download))


TURNING = ("googlenet", "inception_v3")
"""Networks whose published weights want the colours turned, and whose auxiliary classifiers may be left out."""


def build(name: str, **arguments: Any) -> nn.Module:
    """torchvision's network of this name, without weights."""
    if name in TURNING:  # they initialise slowly and warn about it unless this is given
        arguments["init_weights"] = True
    network: nn.Module = torchvision_models().get_model(name, weights=None, **arguments)
    return network


def _published(name: str, weights: Any, read: Callable[[], Mapping[str, Tensor]]) -> Loaded:
    """The network that torchvision makes for these weights, whose own arguments differ from the usual ones (input side,
    colours turned first), and the preprocessing that they were evaluated with."""
    state = read()
    with _state_given(type(weights), state):
        network = torchvision_models().get_model(name, weights=weights)
    return Loaded(network, preprocessing_of(weights), tuple(weights.meta.get("categories", ())))


def preprocessing_of(weights: Any) -> Preprocessing:
    """What an entry of torchvision's weights was evaluated with."""
    usual = weights.transforms()
    return Preprocessing(
        int(usual.crop_size[0]),
        tuple(usual.mean),
        tuple(usual.std),
        int(usual.resize_size[0]),
        usual.interpolation.value,
        bool(usual.antialias),
    )


_BUILDING = Lock()


@contextmanager
def _state_given(choices: Any, state: Mapping[str, Tensor]) -> Iterator[None]:
    """While the block lasts torchvision's builders, who read weights themselves, are given those that were read
    already: theirs are unpickled, whatever the file holds."""
    with _BUILDING:
        choices.get_state_dict = lambda entry, *_, **__: state
        try:
            yield
        finally:
            del choices.get_state_dict


def _of_file(name: str, file: str) -> Loaded:
    """The network with the weights of somebody's own training, which may tell other classes apart."""
    weights = read_weights(file)
    arguments: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if name in TURNING:
        # saved after published weights were loaded, it has no auxiliary classifiers, which evaluation does not use
        arguments["aux_logits"] = any(key.startswith("AuxLogits.") or "aux1." in key for key in weights.only())
        notes = (f"a file does not say whether {name} turns the colours first (transform_input), and it does not here",)
    network = build(name, **arguments)
    classes = _other_classes(network, weights)
    if classes is None:
        return Loaded(network, notes=(*fill(network, weights), *notes))
    network = build(name, num_classes=classes, **arguments)
    told = f"{name} was built with the {classes} classes of {file}"
    return Loaded(network, notes=(*fill(network, weights), told, *notes))


def _other_classes(network: nn.Module, weights: Weights) -> int | None:
    """How many classes the weights tell apart, where only the last layer's size differs from the network's."""
    state = weights.fitted(network)[0]
    own = network.state_dict()
    other = [key for key in own if key in state and state[key].shape != own[key].shape]
    sizes = {state[key].shape[0] for key in other if state[key].dim()}
    last = any(key.startswith(("fc.", "classifier.", "head.", "heads.")) for key in other)
    return sizes.pop() if last and len(sizes) == 1 else None


def _file_name(weights: Any) -> str:
    return str(weights.url.rpartition("/")[2])


def _cached(weights: Any, download: bool) -> Mapping[str, Tensor]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / _file_name(weights)
    if not file.is_file() and not download:
        raise UnknownModel(
            f"the weights {weights} are not in the local cache ({file.parent}): add --download (download=True) to "
            "fetch them, "
            "or give --weights with a state-dict file"
        )
    state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return state
