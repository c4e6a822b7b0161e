"""The pictures of a layer's neurons, in an atlas store.

Arrays cover the whole layer: a neuron's row is its channel or class number. Only the blocks that were asked for are
written; the rest takes no space and reads as not made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Shaped

from stores.arrays.blocks import block_specs, done_flags, read_rows, write_done_block
from stores.arrays.schema import ArraySpec, array_at, block_length, declare, group_at, write_whole
from stores.errors import PICTURE_STATUS_MEANINGS as PICTURE_STATUS_MEANINGS
from stores.errors import PictureStatus as PictureStatus


def picture_specs(
    layer: str, neurons: int, side: int, records: int, block: int, nodes: Mapping[str, int]
) -> list[ArraySpec]:
    """Arrays of ``LAYER``, written in blocks of ``block`` neurons.

    ``records`` is the number of losses kept along the optimisation; ``nodes`` gives the levels of each node whose
    rows are kept in ``LAYER/reached/NODE/{picture,target}``.
    """
    square = ("neuron", "row", "column")
    specs = [
        ArraySpec(
            f"{layer}/pixels", (*square, "colour"), (neurons, side, side, 3), "uint8", "the picture in RGB", block=block
        ),
        ArraySpec(
            f"{layer}/alpha", square, (neurons, side, side), "uint8", "opacity: how much a pixel mattered", block=block
        ),
        ArraySpec(
            f"{layer}/loss",
            ("neuron", "record"),
            (neurons, records),
            "float32",
            "loss along the optimisation",
            block=block,
        ),
        ArraySpec(
            f"{layer}/seed", ("neuron",), (neurons,), "int64", "seed of the picture's random stream", block=block
        ),
        *block_specs(layer, neurons, block),
    ]
    for node, levels in nodes.items():
        path, axes, shape = f"{layer}/reached/{node}", ("neuron", "level"), (neurons, levels)
        own = "the picture's sorted row, mean over channels weighted by importance"
        specs += [
            ArraySpec(f"{path}/picture", axes, shape, "float32", own, block=block),
            ArraySpec(
                f"{path}/target", axes, shape, "float32", "the target's row, averaged in the same way", block=block
            ),
        ]
    return specs


def write_picture_block(
    group: zarr.Group, layer: str, block: int, arrays: Mapping[str, Shaped[np.ndarray, "neuron ..."]]
) -> None:
    """Write one block of all arrays: ``pixels``, ``alpha``, ``loss``, ``seed``, ``reached/NODE/…``, ``status``,
    then ``done``.

    Raises:
        MisalignedBlock: an array is not exactly the block.
        SchemaMismatch: an array is missing or was not declared.
    """
    write_done_block(group, layer, block, arrays)


def read_pictures(group: zarr.Group, layer: str, neurons: Sequence[int]) -> dict[str, Shaped[np.ndarray, "neuron ..."]]:
    """Rows of the given neurons, in that order, by relative path; ``status`` says which of them hold a picture.

    Raises:
        SchemaMismatch: the atlas has no such layer, or a neuron is out of range.
    """
    return read_rows(group, layer, neurons)


def done_picture_blocks(group: zarr.Group, layer: str) -> Bool[np.ndarray, "block"]:
    """Which blocks are written."""
    return done_flags(group, layer)


def finished(group: zarr.Group, layer: str) -> Bool[np.ndarray, "neuron"]:
    """Which neurons are decided: their block is written, with a picture or the reason why there is none."""
    status = array_at(group, f"{layer}/status")
    return np.repeat(done_flags(group, layer), block_length(status))[: status.shape[0]]


def made(group: zarr.Group, layer: str) -> Bool[np.ndarray, "neuron"]:
    """Which neurons have a picture."""
    status = np.asarray(array_at(group, f"{layer}/status")[:])
    there: np.ndarray = finished(group, layer) & (status == PictureStatus.MADE)
    return there


def write_metrics(
    group: zarr.Group,
    layer: str,
    metrics: Mapping[str, Shaped[np.ndarray, "neuron"]],
    meanings: Mapping[str, tuple[str, str]],
    of_layer: Mapping[str, float] | None = None,
    judged_by: Mapping[str, str] | None = None,
) -> None:
    """Declare and write ``LAYER/metrics/NAME`` (neuron) as float32, NaN where unknown; a single writer. What other
    evaluations wrote under other names stays.

    ``meanings`` gives each metric's meaning and unit. Metrics ``of_layer`` and the digests of the networks that the
    pictures were ``judged_by`` become attributes of ``LAYER/metrics``.
    """
    parent = group_at(group, layer).require_group("metrics")
    for name in sorted(metrics):
        values, (meaning, units) = metrics[name].astype(np.float32), meanings.get(name, (name, ""))
        path = f"{layer}/metrics/{name}"
        declare(group, [ArraySpec(path, ("neuron",), values.shape, "float32", meaning, units, fill=np.nan)])
        write_whole(array_at(group, path), values)
    known = read_layer_metrics(group, layer)
    for name, value in (of_layer or {}).items():
        meaning, units = meanings.get(name, (name, ""))
        # JSON has no NaN
        known[name] = {"value": value if np.isfinite(value) else None, "meaning": meaning, "units": units}
    parent.attrs["layer"] = known
    judges: Any = parent.attrs.get("judged_by", {})
    parent.attrs["judged_by"] = {**judges, **(judged_by or {})}


def read_metrics(group: zarr.Group, layer: str) -> dict[str, Shaped[np.ndarray, "neuron"]]:
    """All metrics of a layer's neurons by name; empty where none were written."""
    parent = group.get(f"{layer}/metrics")
    if not isinstance(parent, zarr.Group):
        return {}
    return {name: np.asarray(array[:]) for name, array in parent.arrays()}


def read_layer_metrics(group: zarr.Group, layer: str) -> dict[str, dict[str, Any]]:
    """Metrics of the layer as a whole, by name: ``value`` (None where it could not be measured), ``meaning``,
    ``units``."""
    parent = group.get(f"{layer}/metrics")
    kept: Any = parent.attrs.get("layer", {}) if isinstance(parent, zarr.Group) else {}
    return dict(kept)
