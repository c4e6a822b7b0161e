"""What the targets of an atlas's pictures were made of, kept beside the pictures where no store keeps the targets.

It answers as `stores.dataset.targets.Targets` do, with the same values: which channels mattered, what references have
in common, and into which facets they fall.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int8

from stores.arrays.blocks import FACET, Blocks
from stores.arrays.names import placed
from stores.arrays.schema import ArraySpec, group_at
from stores.dataset.targets import IMPORTANCE, IMPORTANCE_MEANS, REFERENCE_FACET, reference_facet_spec
from stores.together import together

ORIGIN, MEAN = "origin", "mean"


@dataclass(frozen=True, eq=False)
class Origin:
    """Of the neurons of a layer of an atlas; of those that have no picture it means nothing."""

    pictures: Blocks

    @classmethod
    def of(cls, pictures: Blocks) -> Origin | None:
        """What is kept beside some pictures; None where nothing is."""
        group = pictures.group
        return cls(pictures) if ORIGIN in group.attrs or ORIGIN in group else None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that it is known of, in the order in which they run."""
        return self._known("nodes")

    @property
    def _relevant(self) -> tuple[str, ...]:
        return self._known("relevant")

    def _known(self, what: str) -> tuple[str, ...]:
        """As the layer has it, also where the group of the origin was removed. Those made before have the nodes in that
        group alone."""
        group = self.pictures.group
        kept: Any = group.attrs[ORIGIN] if ORIGIN in group.attrs else group_at(group, ORIGIN).attrs
        return tuple(map(str, kept.get(what, ())))

    def require(self) -> None:
        """Refuse to go on where an array of it was removed: blocks would be written without.

        Raises:
            SchemaMismatch: it names the array and the way out.
        """
        parts = [(node, MEAN) for node in self.nodes] + [(node, IMPORTANCE) for node in self._relevant]
        names = [f"{ORIGIN}/{placed(node)}/{part}" for node, part in parts]
        together(self.pictures.array, [*names, *[f"{ORIGIN}/{REFERENCE_FACET}"] * (self.pictures.most_facets > 1)])

    def importance(
        self, node: str, neurons: Sequence[int], facets: Sequence[int] | None = None
    ) -> Float[np.ndarray, "neuron channel"] | None:
        """How much each channel of a node matters to some neurons, 0 to 1; None where the node has none."""
        name = f"{ORIGIN}/{placed(node)}/{IMPORTANCE}"
        known = node in self._relevant or f"{self.pictures.path}/{name}" in self.pictures.root
        return self.pictures.rows(neurons, [name], facets)[name] if known else None

    def mean_rows(
        self, node: str, neurons: Sequence[int], facets: Sequence[int] | None = None
    ) -> Float[np.ndarray, "neuron channel"]:
        """The mean over levels of what some neurons' channels are matched by."""
        name = f"{ORIGIN}/{placed(node)}/{MEAN}"
        return self.pictures.rows(neurons, [name], facets)[name]

    def reference_facets(self, neurons: Sequence[int]) -> Int8[np.ndarray, "neuron rank"] | None:
        """The facet of each reference of some neurons, the best first, −1 where there is none; None where references
        were not grouped."""
        if self.pictures.most_facets == 1:
            return None
        name = f"{ORIGIN}/{REFERENCE_FACET}"
        return self.pictures.rows(neurons, [name])[name]


def origin_specs(
    layer: str,
    neurons: int,
    block: int,
    channels: Mapping[str, int],
    relevant: Collection[str],
    facets: tuple[int, int] | None = None,
) -> list[ArraySpec]:
    """Arrays of the layer at the path ``layer``, written in blocks of ``block`` neurons: of ``channels`` of each node,
    of which some are ``relevant``. ``facets`` are the most of a neuron, and its references."""
    rows, length = (("neuron", FACET), (neurons, facets[0])) if facets else (("neuron",), (neurons,))
    axes, specs = (*rows, "channel"), []
    for node, count in channels.items():
        parts = {MEAN: "mean over levels of what is matched: of relevant rows, where there are any"}
        parts |= {IMPORTANCE: IMPORTANCE_MEANS} if node in relevant else {}
        specs += [
            ArraySpec(f"{layer}/{ORIGIN}/{placed(node)}/{part}", axes, (*length, count), "float32", said, block=block)
            for part, said in parts.items()
        ]
    if facets:
        specs.append(reference_facet_spec(f"{layer}/{ORIGIN}", neurons, facets[1], block))
    return specs
