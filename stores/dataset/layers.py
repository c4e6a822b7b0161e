"""Statistics of every layer over the data set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import zarr
from jaxtyping import Shaped

from stores.arrays.names import placed
from stores.arrays.schema import ArraySpec, array_at, group_at, write_whole

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


def write_layer(group: zarr.Group, node: str, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write arrays of ``layers/NODE`` by relative path, such as ``mean`` or ``sums/total``; a single writer.

    Raises:
        SchemaMismatch: an array was not declared, or has another shape.
    """
    parent = group_at(group, f"layers/{placed(node)}")
    for name in sorted(arrays):
        write_whole(array_at(parent, name), np.asarray(arrays[name]))


def read_layer(group: zarr.Group, node: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """All arrays of ``layers/NODE`` by relative path; raises SchemaMismatch where there are none."""
    parent = group_at(group, f"layers/{placed(node)}")
    return {
        name: np.asarray(array[...]) for name, array in parent.members(max_depth=1) if isinstance(array, zarr.Array)
    }
