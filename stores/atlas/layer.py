"""One layer of an atlas: the pictures of its neurons, their metrics, and what they were made with.

Arrays cover the whole layer: a neuron's row is its channel or class number. Only the blocks that were asked for are
written; the rest takes no space and reads as not made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float, Shaped, UInt8

from stores.arrays.blocks import COUNT, FACET, Blocks, block_specs
from stores.arrays.names import placed, unplaced
from stores.arrays.provenance import JSON, claim, claimed, fingerprint
from stores.arrays.schema import ArraySpec, declare, group_at
from stores.arrays.writing import write_all
from stores.atlas.naming import NAMES, Naming, read_naming, write_naming
from stores.atlas.origin import ORIGIN, origin_specs
from stores.together import together

METRICS, BY_FACET, REACHED = "metrics", "metrics/by_facet", "reached"


@dataclass(frozen=True)
class PictureArrays:
    """What arrays a layer's pictures have, of so many ``neurons``, written in blocks of ``block``."""

    neurons: int
    block: int
    records: int
    """Losses kept along the optimisation."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Levels of each node whose rows are kept in ``LAYER/reached/NODE/{picture,target}``."""
    facets: int = 1
    """Most pictures of a neuron: more than one add this axis, and ``count``, which is zero where a neuron has fewer."""
    colours: int = 3


@dataclass(frozen=True, eq=False)
class AtlasLayer(Blocks):
    """The group of a layer in an atlas."""

    beside = (f"{METRICS}/", f"{NAMES}/")

    @classmethod
    def of(cls, root: zarr.Group, layer: str) -> AtlasLayer:
        """That of an atlas, whether it is there or not."""
        return cls(root, placed(layer))

    @property
    def name(self) -> str:
        """What the layer is called in the network, or ``classes``."""
        return unplaced(self.path)

    @property
    def always(self) -> tuple[str, ...]:
        """What every layer has."""
        return ("pixels", "alpha", "loss", "seed", *super().always)

    # What the pictures were made with

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of the pictures by name, the variant of their targets and the algorithm's version; empty where
        nothing was claimed."""
        return claimed(self.group, "atlas") or {}

    @property
    def fingerprint(self) -> str:
        """Digest of `settings`: pictures with the same are of one kind."""
        return fingerprint(self.settings)

    @property
    def variant(self) -> str:
        """The targets that the pictures were made for."""
        return str(self.settings["variant"])

    @property
    def side(self) -> int:
        """Side of every picture, in pixels."""
        return int(self.settings["side"])

    def claim(self, settings: Mapping[str, JSON]) -> None:
        """Record what the pictures are made with, or refuse other settings by the field that differs. Before anything
        is created: else the shape they give would be what is refused."""
        claim(self.root.require_group(self.path), "atlas", settings)

    def declare(self, arrays: PictureArrays) -> None:
        """Create the arrays once, before any task."""
        declare(self.root, picture_specs(self.path, self.side, arrays), sealed=True)
        self._keep(REACHED, list(arrays.nodes))

    def _keep(self, name: str, value: JSON) -> None:
        """Note something in an attribute; a single writer."""
        group = self.group
        if group.attrs.get(name) != value:
            group.attrs[name] = value

    def declare_origin(
        self,
        neurons: int,
        block: int,
        channels: Mapping[str, int],
        relevant: Collection[str],
        facets: tuple[int, int] | None = None,
    ) -> None:
        """Have the origin of the targets kept, too, as `stores.atlas.origin.origin_specs` has it: once, before any
        task."""
        declare(self.root, origin_specs(self.path, neurons, block, channels, relevant, facets))
        self._keep(ORIGIN, {"nodes": list(channels), "relevant": list(relevant)})

    @property
    def per_task(self) -> int | None:
        """Most pictures that one task makes; None where no run has chosen yet."""
        kept: Any = self.group.attrs.get("per_task")
        return None if kept is None else int(kept)

    def write_per_task(self, pictures: int) -> None:
        """Keep how many pictures one task makes at most: other runs are to have the same tasks. A single writer."""
        self.group.attrs["per_task"] = pictures

    @property
    def shown(self) -> tuple[int, ...]:
        """The channels that people are shown as red, green and blue, or one as grey; empty where they are colours."""
        kept: Any = self.group.attrs.get("shown", ())
        return tuple(map(int, kept))

    @property
    def colours(self) -> int:
        """How many numbers a pixel of a picture has."""
        return int(self.array("pixels").shape[-1])

    def write_shown(self, shown: Sequence[int]) -> None:
        """Keep which channels people are shown; a single writer."""
        if self.shown or shown:
            self._keep("shown", list(shown))

    # Names of the neurons

    @property
    def names(self) -> list[str]:
        """The names of classes. Of other layers those that `vital names` gave, "" for neurons that got none; empty
        where nobody gave any."""
        kept: Any = self.group.attrs.get("names") or []
        return [str(name) for name in kept] or (self._given if self.name != "classes" else [])

    @cached_property
    def _given(self) -> list[str]:
        # read once: a neuron's name is asked for thousands of times
        naming = self.naming()
        return [] if naming is None else naming.names

    def naming(self) -> Naming | None:
        """The words that `vital names` found for the neurons, and what speaks for them; None where it did not run."""
        return read_naming(self.root, self.path)

    def write_naming(self, naming: Naming) -> None:
        """Keep such words, in place of earlier ones; a single writer."""
        write_naming(self.root, self.path, naming)

    def write_names(self, names: Sequence[str]) -> None:
        """Keep the names of the neurons; a single writer."""
        if self.group.attrs.get("names") != list(names):
            self.group.attrs["names"] = list(names)

    def neuron_name(self, neuron: int) -> str:
        """The class's name; or the number of the channel, of a direction's or feature's neuron, and the word that was
        found for it."""
        return self.neuron_names([neuron])[0]

    def neuron_names(self, neurons: Sequence[int]) -> list[str]:
        """The same of some neurons; what they are called is read once for all of them."""
        names, classes = self.names, self.name == "classes"
        kind = "class" if classes else "neuron" if "~" in self.name else "channel"
        words = [names[neuron] if neuron < len(names) else "" for neuron in neurons]
        return [
            word if classes and word else f"{kind} {neuron}{f', {word}' if word else ''}"
            for neuron, word in zip(neurons, words, strict=True)
        ]

    # Pictures

    def pixels(
        self, neurons: Sequence[int], facets: Sequence[int] | None = None
    ) -> UInt8[np.ndarray, "neuron side side colour"]:
        """Pictures of some neurons, in that order, of their first facets or of those given; raises SchemaMismatch where
        a neuron is out of range."""
        return self.rows(neurons, ["pixels"], facets)["pixels"]

    def reached(
        self, neurons: Sequence[int] | None = None, facets: Sequence[int] | None = None
    ) -> dict[str, tuple[Float[np.ndarray, "neuron level"], Float[np.ndarray, "neuron level"]]]:
        """By node, the pictures' own rows and their targets', both averaged over channels, of all neurons or of some,
        of their first facets or of those given; empty where none are kept."""
        kept: Any = self.group.attrs.get(REACHED)
        nodes = self._nodes_there() if kept is None else set(map(placed, kept))
        names = {node: (f"{REACHED}/{node}/picture", f"{REACHED}/{node}/target") for node in sorted(nodes)}
        asked = range(self.count) if neurons is None else neurons
        rows = self.rows(asked, [name for both in names.values() for name in both], facets)
        return {unplaced(node): (rows[picture], rows[target]) for node, (picture, target) in names.items()}

    def _nodes_there(self) -> set[str]:
        """As the groups of nodes are called, of a layer that was made before it noted its nodes."""
        parent = self.root.get(f"{self.path}/{REACHED}")
        if not isinstance(parent, zarr.Group):
            return set()
        # of either: where one was removed, it is asked for, and said to be
        return {name.partition("/")[0] for name, one in parent.members(max_depth=1) if isinstance(one, zarr.Array)}

    # Metrics

    def metrics(self) -> dict[str, Shaped[np.ndarray, "neuron"]]:
        """All metrics of the neurons by name; empty where none were written."""
        return self._metrics(METRICS)

    def metric_names(self) -> list[str]:
        """The names of the metrics of neurons, in order, without reading their values."""
        return self._names_in(METRICS)

    def facet_metrics(self) -> dict[str, Float[np.ndarray, "neuron facet"]]:
        """All metrics of each picture of every neuron by name, NaN where it has fewer facets; empty where neurons have
        one picture, of which `metrics` says all."""
        return self._metrics(BY_FACET)

    def _names_in(self, path: str) -> list[str]:
        parent = self.root.get(f"{self.path}/{path}")
        return sorted(parent.array_keys()) if isinstance(parent, zarr.Group) else []

    def _metrics(self, path: str) -> dict[str, np.ndarray]:
        parent = self.root.get(f"{self.path}/{path}")
        if not isinstance(parent, zarr.Group):
            return {}
        arrays = dict(parent.arrays())
        self._found.update({f"{path}/{name}": array for name, array in arrays.items()})
        return dict(zip(arrays, together(lambda array: np.asarray(array[:]), arrays.values()), strict=True))

    def metric_meaning(self, name: str) -> tuple[str, str]:
        """What a metric of the neurons means, and its unit."""
        attributes = self.array(f"{METRICS}/{name}").attrs
        return str(attributes.get("meaning", name)), str(attributes.get("units", ""))

    def layer_metrics(self) -> dict[str, dict[str, Any]]:
        """Metrics of the layer as a whole, by name: ``value`` (None where it could not be measured), ``meaning``,
        ``units``."""
        parent = self.root.get(f"{self.path}/{METRICS}")
        kept: Any = parent.attrs.get("layer", {}) if isinstance(parent, zarr.Group) else {}
        return dict(kept)

    @property
    def judged_by(self) -> dict[str, str]:
        """The judges that looked at the pictures, with digests of their weights; empty where none did."""
        parent = self.root.get(f"{self.path}/{METRICS}")
        kept: Any = parent.attrs.get("judged_by", {}) if isinstance(parent, zarr.Group) else {}
        return dict(kept)

    def write_metrics(
        self,
        metrics: Mapping[str, Shaped[np.ndarray, "neuron"]],
        meanings: Mapping[str, tuple[str, str]],
        of_layer: Mapping[str, float] | None = None,
        judged_by: Mapping[str, str] | None = None,
        by_facet: Mapping[str, Shaped[np.ndarray, "neuron facet"]] | None = None,
        *,
        anew: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """Declare and write ``metrics/NAME`` (neuron) as float32, NaN where unknown; and those of pictures ``by_facet``
        as ``metrics/by_facet/NAME`` (neuron, facet) where neurons have several. A single writer. What other evaluations
        wrote under other names stays, but for names that are ``anew`` and are not given now: they go before anything is
        written, since of pictures that have changed meanwhile they would say what was.

        ``meanings`` gives each metric's meaning and unit. Metrics ``of_layer`` and the digests of the networks that the
        pictures were ``judged_by`` become attributes of ``metrics``.
        """
        several = (by_facet or {}) if self.most_facets > 1 else {}
        specs, values = list[ArraySpec](), dict[str, np.ndarray]()
        for folder, axes, kind in ((METRICS, ("neuron",), metrics), (BY_FACET, ("neuron", FACET), several)):
            for name in self._names_in(folder):
                if name not in kind and anew(name):
                    del self.root[f"{self.path}/{folder}/{name}"]
                    self._found.pop(f"{folder}/{name}", None)
            for name in sorted(kind):
                (meaning, units), path = meanings.get(name, (name, "")), f"{self.path}/{folder}/{name}"
                specs.append(ArraySpec(path, axes, kind[name].shape, "float32", meaning, units, fill=np.nan))
                values[path] = kind[name].astype(np.float32)
        write_all(self.root, specs, values)
        # only now: its attributes are written together, and another evaluation may have written its own meanwhile
        parent = group_at(self.root, self.path).require_group(METRICS)
        known = self.layer_metrics()
        for name, value in (of_layer or {}).items():
            meaning, units = meanings.get(name, (name, ""))
            # JSON has no NaN
            known[name] = {"value": value if np.isfinite(value) else None, "meaning": meaning, "units": units}
        parent.attrs["layer"] = known
        parent.attrs["judged_by"] = {**self.judged_by, **(judged_by or {})}


def picture_specs(layer: str, side: int, arrays: PictureArrays) -> list[ArraySpec]:
    """Arrays of the layer at the path ``layer``, whose pictures have this side."""
    neurons, block, records, colours = arrays.neurons, arrays.block, arrays.records, arrays.colours
    several = arrays.facets > 1
    each, length = (("neuron", FACET), (neurons, arrays.facets)) if several else (("neuron",), (neurons,))
    square, row = (*each, "row", "column"), (*each, "level")
    whole = (*length, side, side)
    specs = [
        ArraySpec(
            f"{layer}/pixels", (*square, "colour"), (*whole, colours), "uint8",
            "the picture in RGB" if colours == 3 else "the picture in the network's channels", block=block,
        ),
        ArraySpec(f"{layer}/alpha", square, whole, "uint8", "opacity: how much a pixel mattered", block=block),
        ArraySpec(
            f"{layer}/loss", (*each, "record"), (*length, records), "float32", "loss along the optimisation",
            block=block,
        ),
        ArraySpec(
            f"{layer}/seed", ("neuron",), (neurons,), "int64", "seed of the picture's random stream", block=block
        ),
    ]  # fmt: skip
    own = "the picture's sorted row, mean over channels weighted by importance"
    aimed = "the target's row, averaged in the same way"
    for node, levels in arrays.nodes.items():
        for name, meaning in (("picture", own), ("target", aimed)):
            path = f"{layer}/{REACHED}/{placed(node)}/{name}"
            specs.append(ArraySpec(path, row, (*length, levels), "float32", meaning, block=block))
    if several:
        specs.append(ArraySpec(f"{layer}/{COUNT}", each, length, "int64", "references of the facet", block=block))
    return [*specs, *block_specs(layer, neurons, block)]  # the flags last: where they are, all is declared
