"""Targets in the statistics store: declared before any task, measured and written by blocks, read for pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool

from flows.jobs import BLOCK, TargetsJob
from flows.running.blocks import grouped, rows_of
from flows.running.process import Worker, check_model, stored_worker
from flows.running.progress import tick
from flows.steps.dataset import base_levels, live_neurons, references_of
from flows.steps.images import moved_urls, reference_crops
from stores.arrays.blocks import empty_rows
from stores.arrays.provenance import claim, claimed
from stores.arrays.schema import array_at, declare, group_at, open_store
from stores.dataset.references import References
from stores.dataset.targets import (
    done_blocks,
    read_target_levels,
    read_target_rows,
    target_path,
    target_specs,
    write_target_block,
    write_target_levels,
)
from stores.errors import PictureStatus, SchemaMismatch
from vital.measuring.rows import stored_levels
from vital.measuring.sums import NOBODY
from vital.measuring.targets import Crop, NodeTarget, Target, measure
from vital.network.neurons import Readout
from vital.network.nodes import check_nodes, default_nodes
from vital.network.probe import CLASSES, INPUT
from vital.settings import VariantSettings

HALF_LIMIT = 6e4
"""Activations beyond this do not fit float16."""
COLOURS = 3


@dataclass(frozen=True)
class Declared:
    """A variant's targets of a layer as the store holds them."""

    layer: str
    variant: str
    nodes: tuple[str, ...]
    neurons: int
    block: int
    whole: bool

    def crops(self, references: References, live: Bool[np.ndarray, "neuron"], blocks: Iterable[int]) -> int:
        """How many references a task has to measure."""
        rows = [row for block in blocks for row in rows_of(block, self.block, self.neurons) if live[row]]
        return int((references.image[rows] != NOBODY).sum())


def planned_targets(group: zarr.Group, job: TargetsJob, here: Worker) -> Declared:
    """What a variant's targets are, by its settings alone; nothing is written. Refuses another model than the store's,
    and nodes that come too late."""
    check_model(group, here.model)
    layer, classes = here.found.layer(job.layer), job.layer == CLASSES
    nodes = job.variant.nodes or default_nodes(here.found, job.layer, here.model.name)
    check_nodes(here.found, job.layer, [node for node in nodes if node != INPUT])
    # In the order in which they run: weights depend on the place.
    matched = (INPUT, *sorted(set(nodes) - {INPUT}, key=lambda node: here.found.layer(node).ended))
    whole = classes or job.variant.crop == "image"
    return Declared(job.layer, job.variant.label(classes), matched, layer.channels, BLOCK, whole)


def declare_targets(group: zarr.Group, job: TargetsJob, here: Worker) -> Declared:
    """Claim the variant, then create its arrays and write their levels: once, before any task. Other settings under
    the same name are refused by the field that differs."""
    declared, classes, levels = planned_targets(group, job, here), job.layer == CLASSES, base_levels(group)
    side, nodes = here.model.preprocessing.side, declared.nodes
    sites = {node: side**2 if node == INPUT else here.found.layer(node).sites for node in nodes}
    channels = {node: COLOURS if node == INPUT else here.found.layer(node).channels for node in nodes}
    own = stored_levels(here.found.layer(job.layer).sites, levels)
    at = {node: stored_levels(sites[node], levels) for node in nodes} | {"own": own}
    shapes = {node: (channels[node], len(at[node])) for node in nodes}
    path = target_path(job.layer, declared.variant)
    place = group.require_group(path)
    kept = claimed(place, "variant") or {}
    # What was chosen first stays: the greatest activation may grow with the data set.
    kind = kept.get("type") or ("float16" if all(_largest(group, node) < HALF_LIMIT for node in nodes) else "float32")
    claim(place, "variant", {**_identity(job.variant, nodes, classes), "type": kind})
    kinds = dict.fromkeys(("quantiles", "relevant"), kind)
    declare(
        group,
        target_specs(
            job.layer, declared.variant, shapes, declared.neurons, BLOCK, len(own), () if classes else nodes[1:], kinds
        ),
    )
    written = read_target_levels(group, job.layer, declared.variant)
    if any(not np.array_equal(written[node], positions) for node, positions in at.items()):
        write_target_levels(group, job.layer, declared.variant, at)
    return declared


def _identity(variant: VariantSettings, nodes: Sequence[str], classes: bool) -> dict[str, Any]:
    fields = variant.model_dump(mode="json", exclude={"nodes", "crop", "relevance"} if classes else {"nodes"})
    return {**fields, "nodes": list(nodes), "block": BLOCK}


def _largest(group: zarr.Group, node: str) -> float:
    if node == INPUT:
        return 0.0
    try:
        arrays = [array_at(group, f"layers/{node}/{name}")[:] for name in ("minimum", "maximum")]
    except SchemaMismatch:
        return np.inf  # a node that the pass over the shards did not measure
    return float(max(np.abs(np.asarray(array)).max() for array in arrays))


def recorded_variant(group: zarr.Group, layer: str, variant: str) -> VariantSettings:
    """The settings that a variant's targets were measured with."""
    fields = claimed(group_at(group, target_path(layer, variant)), "variant") or {}
    return VariantSettings(**{name: value for name, value in fields.items() if name in VariantSettings.model_fields})


def task_groups(group: zarr.Group, layer: str, variant: VariantSettings) -> list[tuple[int, ...]]:
    """The blocks of every task of a layer, for measuring and for pictures alike."""
    references = references_of(group, layer, variant.references)
    return grouped(live_neurons(references, variant.fewest), BLOCK)


def undone(group: zarr.Group, declared: Declared, blocks: Iterable[int]) -> set[int]:
    """The blocks that are not written."""
    done = done_blocks(group, declared.layer, declared.variant)
    return {block for block in blocks if not done[block]}


def measure_block(job: TargetsJob, blocks: Sequence[int]) -> None:
    """Measure the references of all live neurons of ``blocks`` together, then write each block."""
    group = open_store(job.store, "statistics", "a")
    here = stored_worker(group, job.running)
    declared = planned_targets(group, job, here)
    references = references_of(group, job.layer, job.variant.references)
    live = live_neurons(references, job.variant.fewest)
    rows = [row for block in blocks for row in rows_of(block, declared.block, declared.neurons) if live[row]]
    target = None
    if rows:
        crops = reference_crops(
            group, here.model.preprocessing, references, declared.whole, rows, moved_urls(group, job.shards)
        )
        target = measure(
            here.model,
            job.layer,
            rows,
            (Crop(pixels, places) for pixels, places in crops),
            declared.nodes,
            here.found.layouts(),
            job.variant.relevance,
            base_levels(group),
            progress=tick,
            readout=here.found.layer(job.layer).readout,
        )
    for block in blocks:
        arrays = _block_arrays(group, declared, target, block)
        write_target_block(group, job.layer, declared.variant, block, arrays)


def _block_arrays(group: zarr.Group, declared: Declared, target: Target | None, block: int) -> dict[str, np.ndarray]:
    """A block's rows of every declared array: the target's where there is one, zero elsewhere, and the status that
    says which."""
    neurons = rows_of(block, declared.block, declared.neurons)
    arrays = empty_rows(group, target_path(declared.layer, declared.variant), len(neurons))
    arrays["status"][:] = PictureStatus.TOO_FEW_REFERENCES
    if target is None:
        return arrays
    for place, neuron in enumerate(int(one) for one in target.neurons):
        if neuron not in neurons:
            continue
        row = neuron - neurons.start
        arrays["own"][row], arrays["count"][row] = target.own[place], target.count[place]
        dead = declared.layer != CLASSES and not target.own[place].any()
        arrays["status"][row] = PictureStatus.DEAD if dead else PictureStatus.MADE
        for name, node in target.nodes.items():
            parts = {"quantiles": node.quantiles, "relevant": node.relevant, "importance": node.importance}
            for part, values in parts.items():
                if values is not None:
                    arrays[f"{name}/{part}"][row] = values[place]
    if not all(np.isfinite(values).all() for values in arrays.values()):
        finite = np.all([np.isfinite(values).reshape(len(neurons), -1).all(1) for values in arrays.values()], axis=0)
        arrays["status"][~finite] = PictureStatus.NON_FINITE
    return arrays


def read_targets(
    group: zarr.Group, layer: str, variant: str, neurons: Sequence[int], readout: Readout | None = None
) -> Target:
    """Targets of some neurons, in full precision; ``readout`` says how they read their layer."""
    rows = read_target_rows(group, layer, variant, neurons)
    levels = read_target_levels(group, layer, variant)

    def part(node: str, name: str) -> np.ndarray | None:
        values = rows.get(f"{node}/{name}")
        return None if values is None else np.asarray(values, np.float32)

    nodes = {}
    for node in target_nodes(group, layer, variant):
        quantiles = part(node, "quantiles")
        assert quantiles is not None  # declared for every node
        # Patches are enlarged: they differ from whole images in much that is not particular to the neuron.
        usual = _usual(group, node, quantiles.shape[1:]) if variant.startswith("image") else None
        nodes[node] = NodeTarget(levels[node], quantiles, part(node, "relevant"), part(node, "importance"), usual)
    own = np.asarray(rows["own"], np.float32)
    return Target(layer, np.asarray(neurons, np.int64), nodes, levels["own"], own, rows["count"], readout)


def _usual(group: zarr.Group, node: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The node's mean sorted row over the data set, where the pass over the shards measured it."""
    try:
        rows = np.asarray(array_at(group, f"layers/{node}/quantiles")[:])
    except SchemaMismatch:
        return None
    return rows if rows.shape == shape else None


def target_nodes(group: zarr.Group, layer: str, variant: str) -> tuple[str, ...]:
    """The nodes of a variant, in the order in which they run."""
    fields = claimed(group_at(group, target_path(layer, variant)), "variant") or {}
    return tuple(str(node) for node in fields["nodes"])


def target_status(group: zarr.Group, layer: str, variant: str) -> np.ndarray:
    """Status of every neuron; raises SchemaMismatch with the way out when the variant is not there."""
    try:
        return np.asarray(array_at(group, f"{target_path(layer, variant)}/status")[:])
    except SchemaMismatch:
        raise SchemaMismatch(
            f"the store has no targets {variant!r} of layer {layer!r}: "
            f"run `vital targets --layer {layer}` with the same variant first"
        ) from None
