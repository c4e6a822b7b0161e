"""A network that can be watched and differentiated: frozen, in evaluation mode and single precision; refused where it
is of another kind."""

from __future__ import annotations

import inspect
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from vital.errors import UnsuitableInput


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


def _is_exported(network: torch.fx.GraphModule) -> bool:
    return not any(
        node.op == "call_module" and "guard" not in str(node.target) for node in network.graph.nodes
    ) and any(isinstance(node.target, torch._ops.OpOverload) for node in network.graph.nodes)
