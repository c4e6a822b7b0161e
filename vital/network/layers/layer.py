"""What a network has: its layers in the order in which they end, their channels and their sites."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from vital.errors import UnknownLayer, UnsuitableInput, nearest
from vital.network.neurons import Dictionary, Readout
from vital.network.probe import CLASSES, INPUT, Layout

RESERVED = (CLASSES, INPUT, "own")
"""What a module may be called in torch, but a layer means something else by."""


def stated(name: str) -> str:
    """A module's name as a layer's: with a dot before it where it begins with a reserved word, which no name in torch
    has.

    >>> stated("classes.0"), stated("layer4.2")
    ('.classes.0', 'layer4.2')
    """
    return f".{name}" if name.partition(".")[0] in RESERVED else name


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
    leading_tokens: int = 0
    """Sites before the image's own: tokens for the class, registers, distillation."""
    trailing_tokens: int = 0
    """Sites after the image's own, such as tokens for objects to detect."""

    @property
    def own(self) -> slice:
        """The sites that stand for places in the image, without tokens that stand for none."""
        return slice(self.leading_tokens, self.sites - self.trailing_tokens)

    @property
    def own_sites(self) -> int:
        """How many of its sites are the image's."""
        return self.sites - self.leading_tokens - self.trailing_tokens

    @property
    def reads(self) -> Readout:
        """The readout, which is of the module's channels where none is given."""
        return self.readout or Readout(self.name)

    @property
    def classes(self) -> bool:
        """Whether its neurons are classes."""
        return self.name == CLASSES


@dataclass(frozen=True)
class Survey:
    """All layers of a model at its input size, in the order in which they end."""

    layers: dict[str, Layer]
    directions: Mapping[str, Float[np.ndarray, "_neuron _channel"] | Dictionary] = field(default_factory=dict)
    """Matrices and dictionaries by name; layer ``MODULE~NAME`` has a neuron for each row or feature."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Modules that are no layers, and why: what the sentence ``'NAME' …`` goes on with."""
    failure: str | None = None
    """Why the network did not run to its end; then there are only the layers that it reached."""
    notes: tuple[str, ...] = ()
    """What is doubtful about the network, a sentence each."""

    def layer(self, name: str) -> Layer:
        """The layer of this name; raises `UnknownLayer` with the nearest names.

        ``layer4.2`` has a neuron for each channel; so has ``layer4.2@3,4``, whose neurons are read at row 3 and column
        4 of the map alone (``@3`` for token 3); ``layer4.2~NAME`` has one for each direction of the matrix, or each
        feature of the dictionary, ``NAME``. A module called ``classes``, ``input`` or ``own`` is ``.classes`` and so
        on: the bare words mean other things.

        A module that is no layer is refused with the reason; so is what lies beyond where the network stopped
        (`UnsuitableInput`).
        """
        if name in self.layers:
            return self.layers[name]
        marks = [match.start() for match in re.finditer("[@~]", name)]
        # a module's own name may hold these, too: what there is comes first
        split = next((at for at in reversed(marks) if name[:at] in self.layers), marks[0] if marks else None)
        if split is not None:
            read = self._at_site if name[split] == "@" else self._along
            return read(self.layer(name[:split]), name, name[split + 1 :])
        if name in self.left_out:
            raise UnknownLayer(f"{name!r} {self.left_out[name]}")
        if self.failure:
            raise UnsuitableInput(self.failure)
        raise UnknownLayer(
            f"no layer {name!r}; the nearest are {nearest(name, list(self.layers))}; `vital layers MODEL` lists all"
        )

    def _at_site(self, layer: Layer, name: str, part: str) -> Layer:
        width = 0 if layer.layout == "channels-last" and layer.own_sites < layer.sites else round(layer.sites**0.5)
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
            readout=Readout(layer.name, site, None, layer.sites, layer.leading_tokens, trailing=layer.trailing_tokens),
        )

    def _along(self, layer: Layer, name: str, part: str) -> Layer:
        if part not in self.directions:
            known = ", ".join(self.directions) or "none"
            raise UnknownLayer(
                f"no directions {part!r} for {name!r} (known: {known}): give their file with --directions, "
                "or a dictionary's with --dictionary, whose name without its ending they bear"
            )
        rows = self.directions[part]
        matrix = rows.weight if isinstance(rows, Dictionary) else rows
        if matrix.shape[1] != layer.channels:
            given = f"directions {part!r} are"
            if isinstance(rows, Dictionary):
                given = f"the dictionary {part!r} ({rows.source}, {len(rows)} features) is"
            raise UnknownLayer(
                f"{given} of {matrix.shape[1]} channels but {layer.name!r} has {layer.channels}: "
                "name the layer that they were made for"
            )
        if isinstance(rows, Dictionary):
            if (meant := self.called(rows.trained_on)) not in (None, layer.name):
                raise UnknownLayer(
                    f"the dictionary {part!r} ({rows.source}, {len(rows)} features) says that it was trained on "
                    f"{meant!r} and {name!r} was asked for: name {meant}~{part}, or take the layer out of its file "
                    "where it is meant so"
                )
            readout = Readout(layer.name, dictionary=rows)
        else:
            readout = Readout(layer.name, directions=np.ascontiguousarray(matrix, np.float32))
        return replace(layer, name=name, channels=len(matrix), block=False, readout=readout)

    def called(self, name: str) -> str | None:
        """The layer that another program means by a name: that of this name, or the one that shares the longest end
        with it, as ``blocks.1`` with ``model.blocks.1``; None where there is none, or several."""
        if name in self.layers:
            return name
        pairs = ((one, *sorted((one, name), key=len)) for one in self.layers)
        # "norm" and "11" end many names, those of other modules, too
        telling = [pair for pair in pairs if pair[2].endswith(f".{pair[1]}") and re.search(r"\.|[a-z]\d", pair[1])]
        most = max((len(short) for _, short, _ in telling), default=0)
        ends = [one for one, short, _ in telling if len(short) == most]
        return ends[0] if len(ends) == 1 else None

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
