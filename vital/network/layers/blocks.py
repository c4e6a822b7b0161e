"""Which layers stand for a network: its stages and blocks, or all its leaves where it has none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from vital.network.layers.layer import Layer, stated

FEWEST = 2
"""Blocks with more than one site below which a network's modules are looked for elsewhere."""


def block_names(network: nn.Module, layers: Mapping[str, Layer]) -> set[str]:
    """Names of the whole stages, blocks and activations of the network's outer structure.

    Where the network is wrapped in another (DataParallel, a backbone beside a head), or its blocks give no tensor, they
    are those of the outermost parts that have any and reach into the network's second half; where none do, or all are
    activations, as after tracing or a conversion from ONNX, every module without modules of its own.
    """
    depths: dict[int, set[str]] = defaultdict(set)
    for name, module in run_modules(network):
        depths[name.count(".") + bool(name)] |= {stated(one) for one in _blocks(module, f"{name}." if name else "")}
    leaves = {stated(name) for name, module in run_modules(network) if is_leaf(module)}
    half = max((layer.ended for layer in layers.values()), default=0) / 2
    for _, names in sorted(depths.items()):
        maps = [layers[one] for one in names if one in layers and layers[one].sites > 1]
        if len(maps) >= FEWEST and max(layer.ended for layer in maps) > half:
            if names <= leaves:  # activations alone, of a network that has no structure
                break
            return names
    return {
        stated(name)
        for name, module in run_modules(network)
        if is_leaf(module) and not isinstance(module, (nn.Identity, nn.Dropout, nn.Flatten))
    }


def run_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network's modules by name, without those that only make the weights of another: the parametrisations of
    weight_norm, spectral_norm and the like."""
    made: set[nn.Module] = set()
    for name, module in network.named_modules():
        if module not in made:
            yield name, module
        if is_parametrized(module):
            made.update(module.get_submodule("parametrizations").modules())


def is_leaf(module: nn.Module) -> bool:
    """Whether a module holds no others, save what makes its weights."""
    return next(module.children(), None) is None or (is_parametrized(module) and len(module._modules) == 1)


def _blocks(module: nn.Module, prefix: str = "", outer: bool = True) -> Iterator[str]:
    """Names of the outer modules: what containers hold, as long as there are only containers around it."""
    for name, child in module.named_children():
        container = isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
        if container or (outer and _holds_containers(child)):
            yield from _blocks(child, f"{prefix}{name}.", False)
        if not is_leaf(child) or type(child) in _ACTIVATIONS:
            yield f"{prefix}{name}"


def _holds_containers(module: nn.Module) -> bool:
    return any(isinstance(child, (nn.Sequential, nn.ModuleList)) and len(child) > 3 for child in module.children())


_ACTIVATIONS = {
    kind for kind in vars(nn.modules.activation).values() if isinstance(kind, type) and issubclass(kind, nn.Module)
}
