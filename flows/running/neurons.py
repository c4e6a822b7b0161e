"""Which neurons are meant by ``0:64,70``, in which blocks they lie, and which blocks make a task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from pydantic import TypeAdapter, ValidationError

from stores import AtlasLayer
from vital.channels import Shown
from vital.errors import UnknownNeuron, UnsuitableInput

_SHOWN: TypeAdapter[tuple[int, ...]] = TypeAdapter(Shown)


def parse_neurons(text: str, count: int, layer: str) -> list[int]:
    """Sorted neuron numbers of a comma-separated list of numbers and half-open ranges; all for an empty text.

    >>> parse_neurons("0:3,7", 8, "layer4")
    [0, 1, 2, 7]
    """
    if not text.strip():
        return list(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        start, colon, stop = part.strip().partition(":")
        try:
            first = int(start or 0) if colon else int(start)
            last = (int(stop) if stop else count) if colon else first + 1
        except ValueError:
            raise UnknownNeuron(
                f"{part.strip()!r} is no neuron and no range: write numbers and ranges like 0:64,70"
            ) from None
        if first < 0 or last > count or first >= last:
            raise UnknownNeuron(f"{part.strip()!r} is not within layer {layer!r}, which has neurons 0 to {count - 1}")
        chosen.update(range(first, last))
    return sorted(chosen)


def blocks_of(neurons: Sequence[int], block: int) -> list[int]:
    """Numbers of the blocks that hold ``neurons``."""
    return sorted({neuron // block for neuron in neurons})


def joined_blocks(live: Bool[np.ndarray, "neuron"], block: int, most: int | None = None) -> list[tuple[int, ...]]:
    """Consecutive blocks joined as long as a group has no more than ``most`` live neurons, a block's worth unless it is
    given: the work of one task.

    Where few neurons live, e.g. in a data set with few labels, batches would else be small. It depends on the whole
    layer and ``most`` alone, never on what is done or asked for: a task repeated has the same batches, hence the same
    bytes.
    """
    groups: list[tuple[int, ...]] = []
    current: list[int] = []
    alive = 0
    for number in range(-(-len(live) // block)):
        more = int(live[number * block : (number + 1) * block].sum())
        if current and alive + more > (most or block):
            groups.append(tuple(current))
            current, alive = [], 0
        current.append(number)
        alive += more
    return [*groups, tuple(current)] if current else groups


def shown_channels(text: str, pictures: AtlasLayer) -> tuple[int, ...]:
    """The channels of a layer's pictures that are shown, such as ``3,2,1``: those that the atlas has recorded where
    none are given. Raises `UnsuitableInput` where they are not one or three of its channels."""
    if not text:
        return pictures.shown
    colours = pictures.colours
    try:
        shown = _SHOWN.validate_python(text)
    except ValidationError:
        shown = ()
    if not shown or max(shown) >= colours:
        raise UnsuitableInput(
            f"--shown {text} (shown=) are not one or three of the {colours} channels of {pictures.name}, which are "
            "counted from 0: give such as 2,1,0"
        )
    return shown
