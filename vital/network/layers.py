"""What a network has: its layers in the order in which they run, their channels and their sites."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vital.errors import UnknownLayer, UnsuitableInput, nearest
from vital.network.neurons import Readout
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES, INPUT, Layout, guess_layout, to_sites


@runtime_checkable
class Surveyed(Protocol):
    """What `survey` needs of a `vital.network.models.Model`."""

    @property
    def name(self) -> str:
        """What the network is called in an error."""

    @property
    def network(self) -> nn.Module:
        """The network that runs."""

    @property
    def preprocessing(self) -> Preprocessing:
        """The side of its input."""


@dataclass(frozen=True)
class Layer:
    """A module that runs once in a forward pass and gives an activation."""

    name: str
    channels: int
    sites: int
    layout: Layout
    block: bool
    """Whether it is a whole stage, block or activation of the network's outer structure."""
    begun: int
    """When it begins, counted in begins and ends of all modules; `ended` likewise."""
    ended: int
    readout: Readout | None = None
    """What its neurons read of a module, where they are not its channels: then it is named after that."""

    @property
    def reads(self) -> Readout:
        """The readout, which is of the module's channels where none is given."""
        return self.readout or Readout(self.name)

    @property
    def leading_tokens(self) -> int:
        """Sites before the image's own: 1 (the class token) where tokens are one more than a square, else 0."""
        square = round((self.sites - 1) ** 0.5)
        return int(self.layout == "channels-last" and self.sites > 1 and square * square == self.sites - 1)

    @property
    def classes(self) -> bool:
        """Whether its neurons are classes."""
        return self.name == CLASSES


@dataclass(frozen=True)
class Survey:
    """All layers of a model at its input size, in the order in which they end."""

    layers: dict[str, Layer]
    directions: Mapping[str, Float[np.ndarray, "_neuron _channel"]] = field(default_factory=dict)
    """Matrices by name; layer ``MODULE~NAME`` has a neuron for each row."""

    def layer(self, name: str) -> Layer:
        """The layer of this name; raises `UnknownLayer` with the nearest names.

        ``layer4.2`` has a neuron for each channel; so has ``layer4.2@3,4``, whose neurons are read at row 3 and column
        4 of the map alone (``@3`` for token 3); ``layer4.2~NAME`` has one for each direction of the matrix ``NAME``.
        A module called ``classes``, ``input`` or ``own`` is ``.classes`` and so on: the bare words mean other things.
        """
        if name in self.layers:
            return self.layers[name]
        marks = [match.start() for match in re.finditer("[@~]", name)]
        # a module's own name may hold these, too: what there is comes first
        split = next((at for at in reversed(marks) if name[:at] in self.layers), marks[0] if marks else None)
        if split is not None:
            read = self._at_site if name[split] == "@" else self._along
            return read(self.layer(name[:split]), name, name[split + 1 :])
        raise UnknownLayer(
            f"no layer {name!r}; the nearest are {nearest(name, list(self.layers))}; `vital layers MODEL` lists all"
        )

    def _at_site(self, layer: Layer, name: str, part: str) -> Layer:
        width = 0 if layer.layout == "channels-last" and layer.leading_tokens else round(layer.sites**0.5)
        tokens = width**2 != layer.sites
        match = re.fullmatch(r"(0|[1-9]\d*)" if tokens else r"(0|[1-9]\d*),(0|[1-9]\d*)", part)
        indices = [int(index) for index in match.groups()] if match else []
        size = [layer.sites] if tokens else [width, width]
        if layer.classes or not indices or any(index >= most for index, most in zip(indices, size, strict=True)):
            form = "MODULE@TOKEN" if tokens else "MODULE@ROW,COLUMN"
            raise UnknownLayer(
                f"{name!r} names no site of {layer.name!r}, which has {' × '.join(map(str, size))}: "
                f"a site is written {form}, counted from 0"
            )
        site = indices[0] if tokens else indices[0] * width + indices[1]
        return replace(
            layer,
            name=name,
            sites=1,
            block=False,
            readout=Readout(layer.name, site, None, layer.sites, layer.leading_tokens),
        )

    def _along(self, layer: Layer, name: str, part: str) -> Layer:
        if part not in self.directions:
            known = ", ".join(self.directions) or "none"
            raise UnknownLayer(
                f"no directions {part!r} for {name!r} (known: {known}): give their file with --directions, "
                "whose name without its ending they bear"
            )
        matrix = self.directions[part]
        if matrix.shape[1] != layer.channels:
            raise UnknownLayer(
                f"directions {part!r} are of {matrix.shape[1]} channels but {layer.name!r} has {layer.channels}: "
                "name the layer that they were made for"
            )
        readout = Readout(layer.name, directions=np.ascontiguousarray(matrix, np.float32))
        return replace(layer, name=name, channels=len(matrix), block=False, readout=readout)

    def layouts(self) -> dict[str, Layout]:
        """The axis of the channels of each layer's output, by its name."""
        return {layer.name: layer.layout for layer in self.layers.values()}

    def before(self, layer: Layer) -> list[Layer]:
        """Layers that ``layer`` is computed from: ended when it begins, or inside it, save those that end with it."""
        inside = [other for other in self.layers.values() if other.name.startswith(f"{layer.reads.layer}.")]
        last = max((other.ended for other in inside), default=0)
        # A module whose children all end at once, e.g. an activation in a container, is its last child.
        deep = {other.name for other in inside if other.ended != last}
        return [other for other in self.layers.values() if other.ended < layer.begun or other.name in deep]


def survey(model: Surveyed, way_out: str = "leave out --input-size, or give a size that it takes") -> Survey:
    """Run one blank image through ``model`` and note what its layers give. Layers that run more than once are left
    out.

    Raises `UnsuitableInput`, which ends with ``way_out``, when the network cannot take the size.
    """
    side = model.preprocessing.side
    try:
        large = _trace(model.network, side)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UnsuitableInput(
            f"{model.name} cannot take images of {side} × {side} pixels "
            f"({(str(error).splitlines() or [type(error).__name__])[0]}): {way_out}"
        ) from error
    # The channel axis is the one that keeps its length when the image shrinks: this tells (row, column, channel)
    # from the usual order.
    try:
        small = _trace(model.network, max(32, side * 5 // 7 // 32 * 32))
    except (RuntimeError, AssertionError, ValueError, IndexError):
        small = {}  # the network takes one size only
    layers, blocks = {}, set(_blocks(model.network))
    for name, (output, begun, ended) in large.items():
        other = small.get(name)
        layout = _layout(output, other[0] if other else None)
        sites = to_sites(output, layout)
        layers[name] = Layer(name, sites.shape[1], sites.shape[2], layout, name in blocks, begun, ended)
    return Survey(dict(sorted(layers.items(), key=lambda item: item[1].ended)))


def _blocks(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the outer modules: what containers hold, as long as there are only containers around it."""
    for name, child in module.named_children():
        container = isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
        if container or (not prefix and _holds_containers(child)):
            yield from _blocks(child, f"{prefix}{name}.")
        if next(child.children(), None) is not None or type(child) in _ACTIVATIONS:
            yield f"{prefix}{name}"


def _holds_containers(module: nn.Module) -> bool:
    return any(isinstance(child, (nn.Sequential, nn.ModuleList)) and len(child) > 3 for child in module.children())


_ACTIVATIONS = {
    kind for kind in vars(nn.modules.activation).values() if isinstance(kind, type) and issubclass(kind, nn.Module)
}


def _layout(output: Tensor, smaller: Tensor | None) -> Layout:
    if (
        output.dim() == 4
        and smaller is not None
        and output.shape[-1] == smaller.shape[-1]
        and output.shape[1] != smaller.shape[1]
    ):
        return "channels-last"
    return guess_layout(output)


RESERVED = (CLASSES, INPUT, "own")
"""What a module may be called in torch, but a layer means something else by."""


def _stated(name: str) -> str:
    """A module's name as a layer's: with a dot before it where it begins with a reserved word, which no name in torch
    has."""
    return f".{name}" if name.partition(".")[0] in RESERVED else name


def _trace(network: nn.Module, side: int) -> dict[str, tuple[Tensor, int, int]]:
    """Name to (output on no device, begun, ended) of every module that runs once and gives an activation."""
    clock = 0
    begun: dict[str, int] = {}
    runs: dict[str, list[tuple[Tensor, int, int]]] = {}

    def enter(name: str) -> None:
        nonlocal clock
        clock += 1
        begun[name] = clock

    def leave(name: str, output: object) -> None:
        nonlocal clock
        clock += 1
        shape = torch.empty(output.shape, device="meta") if isinstance(output, Tensor) else torch.empty(0)
        runs.setdefault(name, []).append((shape, begun[name], clock))

    handles = []
    names = [(_stated(name), module) for name, module in network.named_modules() if name]
    for name, module in names:
        handles.append(module.register_forward_pre_hook(lambda m, i, name=name: enter(name)))
        handles.append(module.register_forward_hook(lambda m, i, output, name=name: leave(name, output)))
    try:
        with torch.inference_mode():
            weight = next(network.parameters())
            output = network(torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype))
    finally:
        for handle in handles:
            handle.remove()
    once = {name: run[0] for name, run in runs.items() if len(run) == 1 and run[0][0].dim() in (2, 3, 4)}
    once = {name: run for name, run in once.items() if run[0].shape[0] == 1}
    if isinstance(output, Tensor) and output.dim() == 2:
        once[CLASSES] = (torch.empty(output.shape, device="meta"), clock + 1, clock + 2)
    return once
