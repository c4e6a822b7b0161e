"""What pictures must match: means over each neuron's references, written block by block."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float, Int8, Shaped

from stores.arrays.blocks import COUNT, FACET, Blocks, block_specs
from stores.arrays.names import placed, unplaced
from stores.arrays.opening import memory_group
from stores.arrays.provenance import JSON, claim, claimed
from stores.arrays.schema import ArraySpec, declare
from stores.arrays.writing import write_whole
from stores.dataset.layers import LEVEL
from stores.errors import SchemaMismatch
from stores.together import together

TARGETS, OWN = "targets", "own"
IMPORTANCE_MEANS = (
    "how much the channel matters to the neuron: 0 for the least of an image and 1 for the most, mean over references"
)
TREND_MEANS = (
    "difference of sorted rows from usual ones where the neuron is as active as on its references, by linear "
    "regression over images of every strength"
)
IMPORTANCE, REFERENCE_FACET, P_VALUE, TREND = "importance", "reference_facet", "p_value", "trend"
RELEVANT = "relevant"


@dataclass(frozen=True)
class TargetArrays:
    """What arrays a layer's targets have, of so many ``neurons``, written in blocks of ``block``."""

    neurons: int
    block: int
    relevant: Collection[str]
    """The nodes that have relevance-weighted rows and importances."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """The type of ``quantiles``, ``trend``, ``relevant``, ``importance`` or ``own`` where it is not float32."""
    facets: tuple[int, int] | None = None
    """Most facets of a neuron, and its references: they add the axis ``facet``. The means are then over the references
    of a facet, whose ``count`` is zero where a neuron has fewer facets."""
    trend: bool = False
    """Whether each node has a trend beside its rows."""


@dataclass(frozen=True, eq=False)
class Targets(Blocks):
    """The targets of a layer's neurons in one variant: ``targets/LAYER/VARIANT`` of a statistics store."""

    layer: str
    variant: str

    @classmethod
    def of(cls, root: zarr.Group, layer: str, variant: str) -> Targets:
        """Those of a store, whether they are there or not."""
        return cls(root, f"{TARGETS}/{placed(layer)}/{placed(variant)}", layer, variant)

    @property
    def always(self) -> tuple[str, ...]:
        """What all targets have, and those that are measured as these are."""
        measured = self.claimed or {}
        parts = ("quantiles", TREND) if TREND in measured else ("quantiles",)
        of_nodes = (f"{placed(str(node))}/{part}" for node in measured.get("nodes", ()) for part in parts)
        weighed = (f"{placed(node)}/{part}" for node in _relevant(measured) for part in (RELEVANT, IMPORTANCE))
        return ("own", COUNT, *of_nodes, *weighed, *super().always)

    def in_memory(self) -> Targets:
        """The same variant with the same settings in a store of this process's memory, which nobody else sees; its
        arrays are not declared yet."""
        there = Targets.of(memory_group(), self.layer, self.variant)
        there.claim(self.settings)
        return there

    def require(self) -> Targets:
        """The same; raises SchemaMismatch with the way out when the variant was not measured."""
        if not self.declared:
            raise SchemaMismatch(self._unmeasured())
        return self

    def _unmeasured(self) -> str:
        return (
            f"the store has no targets {self.variant!r} of layer {self.layer!r}: "
            f"run `vital targets --layer {self.layer}` with the same variant first"
        )

    def require_blocks(self, blocks: Collection[int]) -> None:
        """Refuse blocks whose targets were not measured: a picture of nothing must not be recorded as decided."""
        if missing := self.unwritten(blocks):
            first, last = self.neurons_of(missing[0]).start, self.neurons_of(missing[-1]).stop
            raise SchemaMismatch(
                f"{self.path} has no targets of neurons {first} to {last - 1}: "
                f"run `vital targets --layer {self.layer} --neurons {first}:{last}` with the same variant first"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What they were measured with, by name; raises SchemaMismatch with the way out where they were not."""
        claimed_settings = self.claimed
        if claimed_settings is None:
            raise SchemaMismatch(self._unmeasured())
        return claimed_settings

    @property
    def claimed(self) -> dict[str, Any] | None:
        """The same, None before the first run."""
        group = self.root.get(self.path)
        return claimed(group, "variant") if isinstance(group, zarr.Group) else None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that are matched, in the order in which they run."""
        return tuple(str(node) for node in self.settings["nodes"])

    def importance(
        self, node: str, neurons: Sequence[int], facets: Sequence[int] | None = None
    ) -> Float[np.ndarray, "neuron channel"] | None:
        """How much each channel of a node matters to some neurons, 0 to 1, of their first facets or of those given;
        None where the node has none."""
        name = f"{placed(node)}/{IMPORTANCE}"
        if not self._has(node, name):
            return None
        return self.rows(neurons, [name], facets)[name]

    def mean_rows(
        self, node: str, neurons: Sequence[int], facets: Sequence[int] | None = None
    ) -> Float[np.ndarray, "neuron channel"]:
        """The mean over levels of what some neurons' channels are matched by: relevant rows where there are any."""
        name = self.matched(node)
        return np.asarray(self.rows(neurons, [name], facets)[name].mean(2, dtype=np.float32))

    def matched(self, node: str) -> str:
        """The array of the rows that a node is matched by: relevant ones, where there are any."""
        relevant = f"{placed(node)}/{RELEVANT}"
        return relevant if self._has(node, relevant) else f"{placed(node)}/quantiles"

    def _has(self, node: str, name: str) -> bool:
        """Whether relevance was measured of a node: an array of it, of this ``name``, is there or was removed."""
        return f"{self.path}/{name}" in self.root or node in _relevant(self.claimed or {})

    def reference_facets(self, neurons: Sequence[int]) -> Int8[np.ndarray, "neuron rank"] | None:
        """The facet of each reference of some neurons, the best first, −1 where there is none; None where references
        were not grouped."""
        if self.most_facets == 1:
            return None
        return self.rows(neurons, [REFERENCE_FACET])[REFERENCE_FACET]

    def claim(self, settings: Mapping[str, JSON]) -> None:
        """Record what they are measured with, or refuse other settings under the same name by the field that
        differs."""
        claim(self.root.require_group(self.path), "variant", settings)

    def declare(
        self, levels: Mapping[str, Shaped[np.ndarray, "level"]], channels: Mapping[str, int], arrays: TargetArrays
    ) -> None:
        """Create the arrays and write their levels: once, before any task.

        ``levels`` gives the positions of the levels of every node, and of the neuron itself under ``own``;
        ``channels`` the channels of every node.
        """
        nodes = {node: (channels[node], len(levels[node])) for node in channels}
        specs = target_specs(self.path, nodes, len(levels[OWN]), arrays)
        declare(self.root, specs, sealed=True)
        written = self._read_levels()
        if any(not np.array_equal(written[node], positions) for node, positions in levels.items()):
            for node, positions in levels.items():
                write_whole(self.array("level" if node == OWN else f"{placed(node)}/level"), positions)

    @cached_property
    def levels(self) -> Mapping[str, Shaped[np.ndarray, "level"]]:
        """The positions of the levels by node, and of the neuron itself under ``own``. Read once: they are written
        before any task, and every batch of pictures asks for them."""
        return self._read_levels()

    def _read_levels(self) -> dict[str, Shaped[np.ndarray, "level"]]:
        nodes = map(placed, map(str, (self.claimed or {}).get("nodes", ())))  # of each, where one was removed, too
        parts = sorted({*nodes, *(part for part, _ in self.group.groups())})
        found = together(lambda part: self.array(f"{part}/level"), parts)
        arrays = dict(zip(map(unplaced, parts), found, strict=True)) | {OWN: self.array("level")}
        read = together(lambda array: np.asarray(array[:]), arrays.values())
        return dict(zip(arrays, read, strict=True))


def _relevant(measured: Mapping[str, Any]) -> tuple[str, ...]:
    """The nodes that relevance was measured of, by what targets were ``measured`` with: all but the colours of the
    picture, which come first."""
    return tuple(map(str, measured["nodes"]))[1:] if "relevance" in measured else ()


def target_specs(
    path: str, nodes: Mapping[str, tuple[int, int]], own_levels: int, arrays: TargetArrays
) -> list[ArraySpec]:
    """Arrays of the targets at ``path``: of every node that is matched, given by (channels, levels), and of the neuron
    itself, of so many levels."""
    neurons, block, facets = arrays.neurons, arrays.block, arrays.facets
    types = {"quantiles": "float32", TREND: "float32", RELEVANT: "float32", IMPORTANCE: "float32", "own": "float32"}
    if unknown := arrays.dtypes.keys() - types.keys():
        raise SchemaMismatch(f"types were given for {', '.join(sorted(unknown))}; targets have {', '.join(types)}")
    types |= arrays.dtypes
    specs: list[ArraySpec] = []
    rows = ("neuron", FACET) if facets else ("neuron",)
    length = (neurons, facets[0]) if facets else (neurons,)
    for name, (channels, levels) in nodes.items():
        node, relevance = placed(name), name in arrays.relevant
        axes, shape = (*rows, "channel", "level"), (*length, channels, levels)
        meanings = {"quantiles": "mean of the references' sorted rows"}
        if arrays.trend:
            meanings[TREND] = TREND_MEANS
        if relevance:
            meanings[RELEVANT] = "mean of the references' sorted rows of relevance times activation"
        specs += [
            ArraySpec(f"{path}/{node}/{part}", axes, shape, types[part], meaning, block=block)
            for part, meaning in meanings.items()
        ]
        if relevance:
            at, meaning = f"{path}/{node}/{IMPORTANCE}", IMPORTANCE_MEANS
            specs.append(ArraySpec(at, axes[:-1], shape[:-1], types[IMPORTANCE], meaning, block=block))
        specs.append(ArraySpec(f"{path}/{node}/level", ("level",), (levels,), "float64", LEVEL))
    specs += [
        ArraySpec(
            f"{path}/own",
            (*rows, "level"),
            (*length, own_levels),
            types["own"],
            "mean of the references' sorted rows of the neuron itself; for a class its logit",
            block=block,
        ),
        ArraySpec(f"{path}/level", ("level",), (own_levels,), "float64", f"{LEVEL}, of own"),
        ArraySpec(f"{path}/{COUNT}", rows, length, "int64", "references in the means", block=block),
    ]
    # the flags last: where they are, all is declared
    return [
        *specs,
        *(_facet_specs(path, neurons, facets[1], block) if facets else []),
        *block_specs(path, neurons, block),
    ]


def reference_facet_spec(path: str, neurons: int, ranks: int, block: int) -> ArraySpec:
    """The facets of so many references of each neuron, below ``path``."""
    meaning = "facet of each reference, the best first; -1 where there is none"
    return ArraySpec(f"{path}/{REFERENCE_FACET}", ("neuron", "rank"), (neurons, ranks), "int8", meaning, block=block)


def _facet_specs(path: str, neurons: int, ranks: int, block: int) -> list[ArraySpec]:
    by_chance = "how often references of one meaning, as widely spread, fall as clearly into two groups"
    return [
        reference_facet_spec(path, neurons, ranks, block),
        ArraySpec(f"{path}/{P_VALUE}", ("neuron",), (neurons,), "float32", by_chance, block=block),
    ]
