"""Activations of a network's layers, as (image, channel, site), for maps and tokens alike.

The forward pass stops at the deepest layer asked for. Nothing of this stays on the network, and other passes over it,
in other threads, run as they would.
"""

from __future__ import annotations

import copy
import logging
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from itertools import chain
from threading import Lock, RLock, get_ident
from types import ModuleType
from typing import Any, Literal, cast
from weakref import WeakSet

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vital.errors import FailedForward, UnknownLayer, VitalError, of_gpu
from vital.memory import out_of_memory
from vital.network.out_of_place import OutOfPlace
from vital.settings import CLASSES as CLASSES

logger = logging.getLogger(__name__)

INPUT = "input"
"""The name of the network's input as a node: three channels, the colours of a picture in the network's units."""

# Underscored axes differ between layers: a name would tie those of one call together.
Activations = dict[str, Float[Tensor, "image _channel _site"]]
Layout = Literal["channels-first", "channels-last", "vector"]


LOGITS = ("logits", "out", "output", "scores", "pooler_output", "image_embeds")
"""What networks call their scores where they give more than one thing, the most telling first."""


class _AllRead(Exception):
    """Every layer asked for has run."""


def anchor(network: nn.Module) -> Tensor:
    """A tensor of the network, by which its device and the type of its numbers are known."""
    numbers = (one for one in chain(network.parameters(), network.buffers()) if one.is_floating_point())
    return next(numbers, torch.empty(0, device="cpu"))


def modules_anew(network: nn.Module) -> nn.Module:
    """A network of its own on the same tensors: some remember what they were last run on. What a module holds beside
    them that cannot be copied, such as a lock or an open file, both have: that is logged once, as a warning unless it
    is only what remembers nothing (`FORGETFUL`)."""
    tensors: dict[int, Any] = {id(one): one for one in chain(network.parameters(), network.buffers())}
    try:
        return copy.deepcopy(network, dict(tensors))
    except Exception:  # whatever a module holds beside its weights
        shared: dict[str, Any] = {}
        twin = _piece_by_piece(network, tensors, shared)
        if shared and network not in _told:
            _told.add(network)
            _tell(network, shared)
        return twin


FORGETFUL = (type(Lock()), type(RLock()), ModuleType)
"""Types of what cannot be copied and keeps nothing of the images that a network was run on."""
_told: WeakSet[nn.Module] = WeakSet()
NAMED = 3
"""Of what is shared, so many are named."""


def _tell(network: nn.Module, shared: Mapping[str, Any]) -> None:
    harmless = all(isinstance(one, FORGETFUL) for one in shared.values())
    named = [f"{name!r} ({type(one).__name__})" for name, one in list(shared.items())[:NAMED]]
    more = [f"{len(shared) - NAMED} more"] if len(shared) > NAMED else []
    logger.log(
        logging.INFO if harmless else logging.WARNING,
        "copies of a %s, on which other sizes are tried, share %s with it, which cannot be copied: write a "
        "__deepcopy__ for what remembers images",
        type(network).__name__, " and ".join([*named, *more]),
    )  # fmt: skip


def _piece_by_piece(module: nn.Module, copied: dict[int, Any], shared: dict[str, Any], at: str = "") -> nn.Module:
    """The module with each of its attributes copied by itself, as far as it can be; ``copied`` is deepcopy's memo. What
    could not be is added to what is ``shared``, by its name below ``at``."""
    if id(module) in copied:
        return cast(nn.Module, copied[id(module)])
    twin: nn.Module = object.__new__(type(module))
    copied[id(module)] = twin
    for name, value in module.__dict__.items():
        if name == "_modules":
            twin.__dict__[name] = {
                key: one if one is None else _piece_by_piece(one, copied, shared, f"{at}{key}.")
                for key, one in value.items()
            }
            continue
        tried = ChainMap[int, Any]({}, copied)  # deepcopy leaves there what it was at when it failed
        try:
            twin.__dict__[name] = copy.deepcopy(value, cast(dict[int, Any], tried))
        except Exception:
            twin.__dict__[name] = shared[f"{at}{name}"] = value
        else:
            # deepcopy knows things by where they lie, and keeps them in memory in a list at the memo's own address.
            # That list must outlast the memo, whose address others are given.
            alive = tried.maps[0].pop(id(tried), [])
            copied.update(tried.maps[0])
            copied.setdefault(id(copied), []).extend(alive)
    return twin


def forward(network: nn.Module, images: Tensor) -> Any:
    """The network's own output; raises `FailedForward` where its forward does, save for lack of memory and a fault of
    the GPU.

    Images lie in memory as the weights do: where these are not channels last, nothing is turned, since a network may
    look at its activations as they lie (``x.view``).
    """
    memory = torch.channels_last if is_channels_last(network) else torch.contiguous_format
    try:
        return network(images.contiguous(memory_format=memory))
    except VitalError as error:
        sentence, *added = str(error).splitlines()
        if added:  # a graph of torch.fx adds where it was
            raise type(error)(sentence) from error
        raise
    except _AllRead:
        raise
    except (Exception, SystemExit) as error:  # whatever somebody's network raises
        if out_of_memory(error) or of_gpu(error):
            raise
        text = " ".join(str(error).split())
        shape = " × ".join(map(str, images.shape))
        raise FailedForward(
            f"the network's own forward failed on images of shape {shape} ({type(error).__name__}: {text[:300]}): "
            "call it on torch.zeros of that shape to see where"
        ) from error


def is_channels_last(network: nn.Module) -> bool:
    """Whether the weights of convolutions lie with their channels last."""
    kernels = (one for one in network.parameters() if one.dim() == 4 and not one.is_contiguous())
    kernel = next(kernels, None)
    return kernel is not None and kernel.is_contiguous(memory_format=torch.channels_last)


def scores(output: Any, images: int) -> Float[Tensor, "image _class"] | None:
    """The scores of classes in a network's output: the tensor itself, what is called so (`LOGITS`), the first of
    several or the only one with an axis for each; None where there are none."""
    if isinstance(output, Tensor):
        if output.dim() < 2 and output.numel() % images == 0 and output.numel():
            output = output.reshape(images, -1)  # squeezed: of one image, or of one class
        return output if output.dim() == 2 and len(output) == images and output.is_floating_point() else None
    if is_dataclass(output) and not isinstance(output, (type, Mapping)):
        output = {part.name: getattr(output, part.name) for part in fields(output)}
    if hasattr(output, "_asdict"):
        output = output._asdict()
    if isinstance(output, Mapping):
        named = [output[name] for name in LOGITS if isinstance(output.get(name), Tensor)]
        parts, first = named or list(output.values()), bool(named)
    else:
        parts, first = list(output) if isinstance(output, (tuple, list)) else [], True
    parts = [part for part in parts if not (isinstance(part, Tensor) and part.dim() == 0)]  # a loss
    tables = [scores(part, images) if isinstance(part, Tensor) else None for part in parts]
    known = [one for one in tables if one is not None]
    return known[0] if len(known) == 1 or (first and known and tables[0] is not None) else None


def only_tensor(output: Any) -> Tensor | None:
    """What a module gives: a tensor, or the only one of a tuple whose other parts are None."""
    if isinstance(output, (tuple, list)):
        parts = [part for part in output if part is not None]
        output = parts[0] if len(parts) == 1 else None
    return output if isinstance(output, Tensor) else None


def guess_layout(output: Tensor) -> Layout:
    """The axis of the channels by the number of axes alone: (image, channel, …), tokens (image, site, channel), or
    (image, channel)."""
    return {2: "vector", 3: "channels-last"}.get(output.dim(), "channels-first")  # type: ignore[return-value]


def to_sites(output: Tensor, layout: Layout) -> Float[Tensor, "image channel site"]:
    """A layer's output in its own layout as (image, channel, site); a view wherever strides allow it."""
    if layout == "vector":
        return output.unsqueeze(-1)
    if layout == "channels-first":
        return output.flatten(2)
    return output.flatten(1, -2).transpose(1, 2)


def from_sites(activations: Float[Tensor, "image channel site"], shape: torch.Size, layout: Layout) -> Tensor:
    """A layer's output of this ``shape`` and layout from (image, channel, site): the inverse of `to_sites`."""
    if layout == "vector":
        return activations.squeeze(-1)
    if layout == "channels-first":
        return activations.reshape(shape)
    return activations.transpose(1, 2).reshape(shape)


@contextmanager
def probe(
    network: nn.Module,
    layers: Sequence[str],
    layouts: Mapping[str, Layout] | None = None,
    mode: OutOfPlace | None = None,
) -> Iterator[Callable[[Float[Tensor, "image colour row column"]], Activations]]:
    """A function from images to the activations of ``layers``, while the block lasts.

    ``layouts`` has the axis of each layer's channels (from `vital.network.layers.survey`; else it is guessed). The
    activations lie on the path of the graph: gradients and relevance of a later one with respect to an earlier one
    can be asked for. ``mode`` is the function mode of the pass, `OutOfPlace` by default.
    """
    layouts = layouts or {}
    under_way: int | None = None
    activations: Activations = {}
    inner = [layer for layer in dict.fromkeys(layers) if layer not in (CLASSES, INPUT)]
    whole = CLASSES in layers

    def watch(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            if get_ident() != under_way:  # somebody else's pass over the same network
                return output
            tensor = only_tensor(output)
            if tensor is None:
                raise UnknownLayer(f"{name!r} gives a {type(output).__name__}, not one tensor: name a layer inside it")
            layout = layouts.get(name) or guess_layout(tensor)
            activations[name] = to_sites(tensor, layout)
            if not whole and len(activations) == len(inner):
                raise _AllRead
            again = from_sites(activations[name], tensor.shape, layout)
            if isinstance(output, Tensor):
                return again
            return type(output)(again if part is tensor else part for part in output)

        return hook

    def run(images: Tensor) -> Activations:
        nonlocal under_way
        activations.clear()
        colours = to_sites(images, "channels-first")
        under_way = get_ident()
        try:
            with mode or OutOfPlace():
                output = forward(network, images)
                if whole:
                    given = scores(output, len(images))
                    if given is None:
                        raise UnknownLayer("the network's output has no scores of classes: name a layer inside it")
                    activations[CLASSES] = to_sites(given, "vector")
        except _AllRead:
            pass
        finally:
            under_way = None
        seen = {layer: colours if layer == INPUT else activations[layer] for layer in layers}
        activations.clear()  # the caller alone decides how long a pass is kept
        return seen

    handles = [network.get_submodule(layer.removeprefix(".")).register_forward_hook(watch(layer)) for layer in inner]
    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()
        activations.clear()
