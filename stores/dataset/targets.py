"""What pictures must match: means over each neuron's references."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import zarr
from jaxtyping import Bool, Shaped

from stores.arrays.blocks import block_specs, done_flags, read_rows, write_done_block
from stores.arrays.schema import ArraySpec, array_at, group_at, write_whole
from stores.dataset.layers import LEVEL
from stores.errors import SchemaMismatch


def target_path(layer: str, variant: str) -> str:
    """Group of the targets of a layer in a variant, where the variant's fingerprint is claimed too."""
    return f"targets/{layer}/{variant}"


def target_specs(
    layer: str,
    variant: str,
    nodes: Mapping[str, tuple[int, int]],
    neurons: int,
    block: int,
    own_levels: int,
    relevant: Collection[str],
    dtypes: Mapping[str, str] | None = None,
) -> list[ArraySpec]:
    """Arrays of ``targets/LAYER/VARIANT``, written in blocks of ``block`` neurons.

    ``nodes`` gives (channels, levels) of every node that is matched. ``relevant`` names those with
    relevance-weighted rows and importances. ``dtypes`` gives the type of ``quantiles``, ``relevant``,
    ``importance`` or ``own`` where it is not float32.
    """
    path = target_path(layer, variant)
    types = {"quantiles": "float32", "relevant": "float32", "importance": "float32", "own": "float32"}
    if unknown := set(dtypes or {}) - types.keys():
        raise SchemaMismatch(f"types were given for {', '.join(sorted(unknown))}; targets have {', '.join(types)}")
    types |= dtypes or {}
    specs: list[ArraySpec] = []
    for node, (channels, levels) in nodes.items():
        axes, shape = ("neuron", "channel", "level"), (neurons, channels, levels)
        meanings = {"quantiles": "mean of the references' sorted rows"}
        if node in relevant:
            meanings["relevant"] = "mean of the references' sorted rows of relevance times activation"
        specs += [
            ArraySpec(f"{path}/{node}/{name}", axes, shape, types[name], meaning, block=block)
            for name, meaning in meanings.items()
        ]
        if node in relevant:
            meaning = "share of the channel in the neuron's relevance"
            specs.append(
                ArraySpec(f"{path}/{node}/importance", axes[:2], shape[:2], types["importance"], meaning, block=block)
            )
        specs.append(ArraySpec(f"{path}/{node}/level", ("level",), (levels,), "float64", LEVEL))
    specs += [
        ArraySpec(
            f"{path}/own",
            ("neuron", "level"),
            (neurons, own_levels),
            types["own"],
            "mean of the references' sorted rows of the neuron itself; for a class its logit",
            block=block,
        ),
        ArraySpec(f"{path}/level", ("level",), (own_levels,), "float64", f"{LEVEL}, of own"),
        ArraySpec(f"{path}/count", ("neuron",), (neurons,), "int64", "references in the means", block=block),
        *block_specs(path, neurons, block),
    ]
    return specs


def write_target_levels(
    group: zarr.Group, layer: str, variant: str, levels: Mapping[str, Shaped[np.ndarray, "level"]]
) -> None:
    """Write the positions of the levels of every node, and of ``own`` under that name; once, before any task."""
    path = target_path(layer, variant)
    for node, positions in levels.items():
        write_whole(array_at(group, f"{path}/level" if node == "own" else f"{path}/{node}/level"), positions)


def read_target_levels(group: zarr.Group, layer: str, variant: str) -> dict[str, Shaped[np.ndarray, "level"]]:
    """The positions of the levels by node, and of ``own`` under that name."""
    path = target_path(layer, variant)
    parent = group_at(group, path)
    nodes = [name for name, _ in parent.groups() if f"{name}/level" in parent]
    return {
        **{node: np.asarray(array_at(parent, f"{node}/level")[:]) for node in sorted(nodes)},
        "own": np.asarray(array_at(parent, "level")[:]),
    }


def write_target_block(
    group: zarr.Group, layer: str, variant: str, block: int, arrays: Mapping[str, Shaped[np.ndarray, "neuron ..."]]
) -> None:
    """Write one block of all arrays: ``NODE/quantiles``, …, ``own``, ``count``, then ``status``, then ``done``.

    Raises:
        MisalignedBlock: an array is not exactly the block.
        SchemaMismatch: an array is missing, was not declared, or does not fit its type.
    """
    write_done_block(group, target_path(layer, variant), block, arrays)


def read_target_rows(
    group: zarr.Group, layer: str, variant: str, neurons: Sequence[int]
) -> dict[str, Shaped[np.ndarray, "neuron ..."]]:
    """Rows of the given neurons, in that order, by relative path such as ``layer4.2/quantiles``; ``status`` says
    which count.

    Raises:
        SchemaMismatch: the variant has no targets, or a neuron is out of range.
    """
    return read_rows(group, target_path(layer, variant), neurons)


def done_blocks(group: zarr.Group, layer: str, variant: str) -> Bool[np.ndarray, "block"]:
    """Which blocks are written."""
    return done_flags(group, target_path(layer, variant))
