"""Statistics of every layer over the data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped

from stores.arrays.names import placed, unplaced
from stores.arrays.schema import ArraySpec, array_at
from stores.arrays.writing import write_whole
from stores.errors import SchemaMismatch
from stores.together import together

COUNT, SUMS = "sums/count", ("sums/", "rests/")
LEVEL = "position of the level in a sorted row, from 0, the smallest, to 1"


def layer_specs(node: str, channels: int, levels: int, meanings: Mapping[str, str]) -> list[ArraySpec]:
    """Arrays of ``layers/NODE``, one writer: the data set's statistics, and under ``sums`` and ``rests``, the two parts
    of every exact sum, what extends them.

    ``meanings`` says by relative path which statistics there are and what they mean: ``quantiles`` are rows, which
    there are with ``levels`` alone, all others a number a channel; means are float32, sums float64.
    """
    path, rows = f"layers/{placed(node)}", ("channel", "level")
    specs = [ArraySpec(f"{path}/{COUNT}", (), (), "int64", "images in the sums")]
    if levels:
        specs.append(ArraySpec(f"{path}/level", ("level",), (levels,), "float64", LEVEL))
    for name, meaning in meanings.items():
        axes = rows if name.rpartition("/")[2] == "quantiles" else rows[:1]
        dtype = "float64" if name.startswith(SUMS) else "float32"
        specs.append(ArraySpec(f"{path}/{name}", axes, (channels, levels)[: len(axes)], dtype, meaning))
    return specs


def write_layer(
    group: zarr.Group,
    node: str,
    arrays: Mapping[str, Shaped[np.ndarray, "..."]],
    declared: Mapping[str, zarr.Array[Any]] | None = None,
) -> None:
    """Write arrays of ``layers/NODE`` by relative path, such as ``mean`` or ``sums/total``, together; a single writer.
    Those that were just ``declared`` are not looked for again.

    Raises:
        SchemaMismatch: an array was not declared, or has another shape.
    """
    path = f"layers/{placed(node)}"

    def write(name: str) -> None:
        array = array_at(group, f"{path}/{name}") if declared is None else declared[f"{path}/{name}"]
        write_whole(array, np.asarray(arrays[name]))

    together(write, sorted(arrays))


def read_layer(group: zarr.Group, node: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """All arrays of ``layers/NODE`` by relative path; raises SchemaMismatch, which names those there are, for none."""
    parent = group.get(f"layers/{placed(node)}")
    if not isinstance(parent, zarr.Group):
        measured = group.get("layers")
        known = [unplaced(name) for name, _ in measured.groups()] if isinstance(measured, zarr.Group) else []
        raise SchemaMismatch(
            f"the store has no statistics of layer {node!r}, it has {', '.join(sorted(known)) or 'none'}: give one of "
            "these"
        )
    arrays = {name: array for name, array in parent.members(max_depth=1) if isinstance(array, zarr.Array)}
    return dict(zip(arrays, together(lambda array: np.asarray(array[...]), arrays.values()), strict=True))
