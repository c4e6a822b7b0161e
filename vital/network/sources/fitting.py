"""A network made ready: frozen, in single precision, laid out in memory as it works, for images of the side that is
asked for; refused where it cannot be watched or differentiated."""

from __future__ import annotations

import copy
import inspect
import math
from collections import OrderedDict
from itertools import chain
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from vital.errors import FailedForward, UnsuitableInput
from vital.network.out_of_place import OutOfPlace
from vital.network.preprocessing import LUMINANCE
from vital.network.probe import anchor, forward, modules_anew
from vital.network.sources.torchvision_networks import torchvision_models


def usable(network: nn.Module, name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The network itself, frozen, in evaluation mode and single precision, and what had to be said about it.

    Raises `UnsuitableInput` for kinds of networks that cannot be used, with what to give instead.
    """
    refuse(network, name)
    kinds = {one.dtype for one in chain(network.parameters(), network.buffers()) if one.is_floating_point()}
    other = sorted(str(kind).removeprefix("torch.") for kind in kinds - {torch.float32})
    try:
        network = network.float().eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
    except (RuntimeError, NotImplementedError) as error:
        raise UnsuitableInput(
            f"{name} cannot be put into evaluation mode and single precision ({' '.join(str(error).split())[:200]}): "
            "give the module it was made from"
        ) from error
    network = _uncompiled(network)
    _name_images(network)
    notes = [f"{name} was of {', '.join(other)} and computes in float32"] if other else []
    norms = [part for part, one in network.named_modules() if isinstance(one, _BatchNorm) and one.running_mean is None]
    if norms:
        notes.append(
            f"{norms[0]!r} of {name} keeps no running statistics: what the network gives for an image depends on those "
            "beside it"
        )
    return network, tuple(notes)


def _uncompiled(network: nn.Module) -> nn.Module:
    """Have modules that torch.compile wrapped run as they are: compiled code would be made anew for every layer that is
    watched."""
    made: dict[nn.Module, Uncompiled] = {}

    def plain(module: nn.Module) -> nn.Module:
        inner = getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module) or isinstance(module, Uncompiled):
            return module
        return made.setdefault(module, Uncompiled(inner))

    for module in list(network.modules()):
        module._compiled_call_impl = None
        for name, child in module._modules.items():
            if child is not None and plain(child) is not child:
                module._modules[name] = plain(child)
    return plain(network)


class Uncompiled(nn.Module):
    """In place of a module that torch.compile wrapped, whose copies would compile again: the same names of layers, the
    same attributes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module
        self.train(module.training)

    def __getattr__(self, name: str) -> Any:
        """Its own, or the module's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the module as it is, compiled or not, and give what it gives."""
        return self._orig_mod(*inputs, **named)


def _name_images(network: nn.Module) -> None:
    """Hand the images to a forward that takes them by name only."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return
    if any(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL) for one in parameters):
        return
    needed = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if len(needed) == 1:
        network.register_forward_pre_hook(lambda _, images, by_name: ((), {needed[0]: images[0]}), with_kwargs=True)


def settled(network: nn.Module, name: str, side: int, channels: int | None = None) -> tuple[nn.Module, int]:
    """The network with its convolutions' weights channels last in memory, which is faster, unless it only runs with
    them as they were: a network may look at its activations as they lie (``x.view``). And how many channels it is
    shown: those asked for, or what it takes; where that is one, it is shown the luminance of what it is given.

    Raises `UnsuitableInput` where its first convolution takes others than those asked for.
    """
    for one in (channels,) if channels else (3, 1):
        handle = network.register_forward_pre_hook(_show_luminance) if one == 1 else None
        runs = _laid_out(network, side, one)
        taken = 0 if runs and (channels or one != 1) else _own_channels(network, side, one, copied=runs)
        if runs and not taken:
            return network, one
        if channels and taken:
            raise UnsuitableInput(
                f"{name} takes images of {taken} channels, and {channels} were asked for: leave --channels (channels=) "
                "out, or give a network of as many"
            )
        if handle is not None and channels is None:
            handle.remove()
        if taken and _laid_out(network, side, taken):
            return network, taken
    _lay_out(network, torch.channels_last)  # it does not run for another reason, which its survey tells
    return network, channels or 3


def _laid_out(network: nn.Module, side: int, channels: int) -> bool:
    """Whether the network runs on so many channels, in the faster of the two orders of memory in which it does."""
    for memory in (torch.channels_last, torch.contiguous_format):
        _lay_out(network, memory)
        if _runs(network, side, channels):
            return True
    return False


def _own_channels(network: nn.Module, side: int, shown: int, copied: bool = False) -> int:
    """The channels of a network whose first convolution takes others than it is ``shown``, else 0: it fails, or it runs
    since torch has ``copied`` the luminance to as many, such as by subtracting a mean of each."""
    taken, shape = _first_convolution(network, side, shown)
    if taken in (0, 1, 3, shown) or not (shape[2:] == (side, side) if copied else shape[1] == shown):
        return 0
    return taken


def _first_convolution(network: nn.Module, side: int, shown: int) -> tuple[int, tuple[int, ...]]:
    """Channels that the first convolution of a pass takes, and the shape of what it is given; 0 where there is none."""
    seen: list[tuple[int, tuple[int, ...]]] = []
    handles = [
        one.register_forward_pre_hook(lambda conv, given: seen.append((conv.in_channels, tuple(given[0].shape))))
        for one in network.modules()
        if isinstance(one, nn.Conv2d)
    ]
    try:
        _runs(network, side, shown)
    finally:
        for handle in handles:
            handle.remove()
    return seen[0] if seen else (0, ())


def rows_first(network: nn.Module) -> None:
    """Have the network be shown (image, row, column, channel)."""
    network.register_forward_pre_hook(_show_rows_first)


def _show_luminance(network: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    red, green, blue = (LUMINANCE[channel] * images[0][:, channel : channel + 1] for channel in range(3))
    return red + green + blue, *images[1:]


def _show_rows_first(network: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return images[0].permute(0, 2, 3, 1), *images[1:]


def _lay_out(network: nn.Module, memory: torch.memory_format) -> None:
    network._apply(lambda one: one.contiguous(memory_format=memory) if one.dim() == 4 else one)


def _runs(network: nn.Module, side: int, channels: int) -> bool:
    like, colours = anchor(network), 3 if channels == 1 else channels
    try:
        with torch.inference_mode(), OutOfPlace():
            forward(network, torch.zeros(1, colours, side, side, device=like.device, dtype=like.dtype))
    except (FailedForward, MemoryError, RuntimeError):
        return False
    return True


def refuse(network: nn.Module, name: str) -> None:
    """Raise `UnsuitableInput` for kinds of networks that cannot be used, with what to give instead."""
    if any(is_lazy(one) for one in chain(network.parameters(), network.buffers())):
        raise UnsuitableInput(
            f"{name} has lazy modules, whose weights are made by the first image: run it once, then give it"
        )
    for part, one in chain(network.named_parameters(), network.named_buffers()):
        if one.is_meta:
            raise UnsuitableInput(f"{name} has no numbers yet ({part!r} is on the meta device): fill it, then give it")
        if one.layout is not torch.strided:
            kind = str(one.layout).removeprefix("torch.")
            raise UnsuitableInput(f"{name} keeps {part!r} as {kind}, which has no gradient here: give it to_dense()")
    for part, module in network.named_modules():
        where = f"its module {part!r}" if part else "it"
        kind = type(module).__module__
        if "quantized" in kind or "quantization" in kind or "qat" in kind.split("."):
            raise UnsuitableInput(
                f"{name} is quantised ({where} is a {kind}.{type(module).__name__}), and no gradient passes its "
                "arithmetic: give the network as it was before"
            )
    if isinstance(network, torch.fx.GraphModule) and _is_exported(network):
        raise UnsuitableInput(
            f"{name} is an exported program, which has no modules left to watch: give a function that makes "
            "torch.export.unflatten of it, as package.module:factory, or the module it was made from"
        )


def _is_exported(network: torch.fx.GraphModule) -> bool:
    return not any(
        node.op == "call_module" and "guard" not in str(node.target) for node in network.graph.nodes
    ) and any(isinstance(node.target, torch._ops.OpOverload) for node in network.graph.nodes)


def at_resolution(network: nn.Module, side: int) -> nn.Module:
    """The network for images of ``side`` pixels: itself where it has no embeddings of positions; else a twin that
    shares every other weight with it. The one that is given is not changed.

    Raises `UnsuitableInput` for a side that the patches do not divide. Whether any other network takes the size shows
    when it runs (`vital.network.layers.survey`).
    """
    if callable(getattr(network, "set_input_size", None)):  # timm's, which changes the network that it is called on
        return _reset(network, side)
    if _takes_interpolation(network):
        return _interpolating(network, side)
    if not _is_vision_transformer(network) or network.image_size == side:
        return network
    patch = int(network.patch_size)  # type: ignore[arg-type]
    if side % patch:
        nearest = max(round(side / patch), 1) * patch
        raise UnsuitableInput(
            f"a vision transformer with patches of {patch} pixels cannot take images of {side} × {side} pixels: "
            f"give a multiple of {patch}, such as {nearest}"
        )
    encoder = _twin(network.encoder)
    old: Any = encoder.pos_embedding
    new = nn.Parameter(interpolated(old.detach(), side // patch), requires_grad=old.requires_grad)
    encoder._parameters["pos_embedding"] = new
    twin: nn.Module = _twin(network)
    twin._modules["encoder"] = encoder
    twin.__dict__.update(image_size=side, seq_length=new.shape[1])
    return twin


def _reset(network: Any, side: int) -> nn.Module:
    patches = getattr(network, "patch_embed", None)
    if getattr(patches, "img_size", None) == (side, side):
        return cast(nn.Module, network)
    other: Any = copy.deepcopy(network)
    try:
        other.set_input_size(img_size=(side, side))
    except Exception as error:  # of timm's, for whatever reason
        raise UnsuitableInput(
            f"{type(network).__name__} cannot be set to images of {side} × {side} pixels "
            f"({' '.join(str(error).split())[:200]}): give another size, or none"
        ) from error
    other.requires_grad_(False)
    return cast(nn.Module, other)


def _takes_interpolation(network: Any) -> bool:
    """Whether it is of transformers, and interpolates its embeddings of positions when it is told to."""
    own = getattr(network, "config", None) is not None and isinstance(getattr(network, "main_input_name", None), str)
    return own and "interpolate_pos_encoding" in inspect.signature(network.forward).parameters


def _interpolating(network: Any, side: int) -> nn.Module:
    if getattr(network.config, "image_size", None) == side:
        return cast(nn.Module, network)
    twin = modules_anew(network)
    twin.register_forward_pre_hook(
        lambda _, images, named: (images, {**named, "interpolate_pos_encoding": True}), with_kwargs=True
    )
    return twin


def interpolated(embeddings: Float[Tensor, "1 site channel"], patches: int) -> Float[Tensor, "1 _new_site channel"]:
    """Position embeddings of ``patches`` × ``patches`` patches; the class token's, which comes first, stays."""
    before = embeddings.shape[1] - 1
    if math.isqrt(before) ** 2 != before:
        raise UnsuitableInput(f"{before} position embeddings are no square of patches: leave out --input-size")
    key, resize = "encoder.pos_embedding", torchvision_models().vision_transformer.interpolate_embeddings
    resized: Tensor = resize(patches, 1, OrderedDict({key: embeddings}))[key]
    return resized


def _is_vision_transformer(network: nn.Module) -> bool:
    """torchvision's, or one made like it, by what this file needs of it."""
    return all(hasattr(network, name) for name in ("image_size", "patch_size", "seq_length", "class_token")) and (
        isinstance(getattr(getattr(network, "encoder", None), "pos_embedding", None), Tensor)
    )


def _twin(module: Any) -> Any:
    """A module with the same children, parameters and attributes, whose own tables can be changed."""
    twin = copy.copy(module)
    for table in ("_parameters", "_buffers", "_modules"):
        twin.__dict__[table] = dict(module.__dict__[table])
    for table in ("_forward_hooks", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
        twin.__dict__[table] = OrderedDict(module.__dict__[table])
    return twin
