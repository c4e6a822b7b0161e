"""A layer of an atlas as the pages show it: read chunk by chunk, so that a few dozen pictures are in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import zarr
from jaxtyping import Float, UInt8

from flows.pages import again as recipes
from flows.pages.similarity import places
from flows.steps.targets import target_nodes
from stores.arrays.provenance import claimed
from stores.arrays.schema import array_at, group_at
from stores.atlas import finished, made, read_metrics, read_pictures
from stores.dataset.layers import read_layer
from stores.dataset.targets import done_blocks, target_path
from stores.errors import PICTURE_STATUS_MEANINGS, PictureStatus, SchemaMismatch
from stores.pages.content import Column, Curve, LayerPage, NeuronPage, Photo, Sources
from vital.network.probe import CLASSES

STRONGEST = 8
"""Channels of a node on a neuron's page."""


@dataclass(frozen=True)
class LayerSource:
    """A layer of an atlas, and the statistics it was made from where they can be reached."""

    atlas: zarr.Group
    atlas_url: str
    layer: str
    store: str
    statistics: zarr.Group | None
    class_names: Sequence[str] = ()

    @property
    def variant(self) -> str:
        """The targets that the pictures were made for."""
        return str((claimed(group_at(self.atlas, self.layer), "atlas") or {})["variant"])

    def made(self) -> list[int]:
        """Neurons with a picture."""
        return [int(neuron) for neuron in np.flatnonzero(made(self.atlas, self.layer))]

    def pixels(self, neuron: int) -> UInt8[np.ndarray, "side side 3"]:
        """One picture."""
        return np.asarray(array_at(self.atlas, f"{self.layer}/pixels")[neuron])

    def page(self) -> LayerPage:
        """What the overview shows of the layer."""
        status = np.asarray(array_at(self.atlas, f"{self.layer}/status")[:], np.uint8)
        status[~finished(self.atlas, self.layer)] = PictureStatus.NOT_MADE
        fields = claimed(group_at(self.atlas, self.layer), "atlas") or {}
        return LayerPage(
            self.layer,
            int(fields["side"]),
            status,
            {int(code): meaning for code, meaning in PICTURE_STATUS_MEANINGS.items()},
            self._names(len(status)),
            self._columns(len(status)),
            self._places(len(status)),
            int(fields.get("steps", 0)),
            recipes.facts(self.atlas, self.layer),
            recipes.commands(self.atlas, self.atlas_url, self.layer, self.store, self.statistics),
        )

    def neurons(self, neurons: Sequence[int], photos: Mapping[int, Sequence[Photo]]) -> list[NeuronPage]:
        """Pages of some neurons that have pictures."""
        rows = read_pictures(self.atlas, self.layer, neurons)
        nodes = self._nodes(rows)
        sources = self._sources(neurons)
        return [
            NeuronPage(
                neuron,
                rows["pixels"][place],
                None if (rows["alpha"][place] == 255).all() else rows["alpha"][place],
                rows["loss"][place],
                int(rows["seed"][place]),
                [
                    Curve(node, rows[f"reached/{node}/target"][place], rows[f"reached/{node}/picture"][place])
                    for node in nodes
                ],
                sources.get(neuron, []),
                photos.get(neuron, ()),
            )
            for place, neuron in enumerate(neurons)
        ]

    def _nodes(self, rows: Mapping[str, np.ndarray]) -> list[str]:
        """Nodes with rows, in the order in which they run where the statistics tell."""
        found = [name.split("/", 1)[1].rpartition("/")[0] for name in sorted(rows) if name.startswith("reached/")]
        known = list(target_nodes(self.statistics, self.layer, self.variant)) if self.statistics is not None else []
        return sorted(set(found), key=lambda node: (known.index(node) if node in known else len(known), node))

    def _sources(self, neurons: Sequence[int]) -> dict[int, list[Sources]]:
        if self.statistics is None:
            return {}
        found: dict[int, list[Sources]] = {neuron: [] for neuron in neurons}
        first, last = min(neurons), max(neurons)
        for node in reversed(target_nodes(self.statistics, self.layer, self.variant)):
            path = f"{target_path(self.layer, self.variant)}/{node}/importance"
            if path not in self.statistics:
                continue
            rows = np.asarray(array_at(self.statistics, path)[first : last + 1])
            for neuron in neurons:
                row = rows[neuron - first]
                order = np.argsort(-row, kind="stable")[:STRONGEST]
                order = order[row[order] > 0]
                if len(order):
                    found[neuron].append(Sources(node, order.tolist(), row[order].tolist()))
        return found

    def _names(self, count: int) -> list[str]:
        recorded = group_at(self.atlas, self.layer).attrs.get("names") or []
        assert isinstance(recorded, list)
        if len(recorded) == count:
            return [str(name) for name in recorded]
        # the list beside the shards is of the data set's classes: the network's own where it has as many
        return list(self.class_names) if self.layer == CLASSES and len(self.class_names) == count else []

    def _columns(self, count: int) -> list[Column]:
        loss = np.asarray(array_at(self.atlas, f"{self.layer}/loss")[:], np.float64)
        columns = [Column("loss", "loss at the last step", loss[:, -1])]
        if (distance := self.distance()) is not None:
            columns.append(
                Column("distance", "how far the picture's rows are from the target's, of the target's length", distance)
            )
        if self.statistics is not None:
            try:
                kept = read_layer(self.statistics, self.layer)
            except SchemaMismatch:
                kept = {}
            for key, name in (("active", "activation frequency"), ("peak_mean", "mean peak")):
                if key in kept and kept[key].shape == (count,):
                    meaning = str(array_at(self.statistics, f"layers/{self.layer}/{key}").attrs.get("meaning", name))
                    columns.append(Column(name, meaning, kept[key].astype(np.float64)))
        for name, values in sorted(read_metrics(self.atlas, self.layer).items()):
            if values.shape == (count,) and values.dtype.kind in "fiu":
                said = array_at(self.atlas, f"{self.layer}/metrics/{name}").attrs
                columns.append(
                    Column(name, str(said.get("meaning", name)), values.astype(np.float64), str(said.get("units", "")))
                )
        return columns

    def distance(self) -> Float[np.ndarray, "neuron"] | None:
        """Mean over nodes of |picture − target| / |target|, both sorted rows."""
        parent = self.atlas.get(f"{self.layer}/reached")
        if not isinstance(parent, zarr.Group):
            return None
        parts = []
        # node names may hold slashes no deeper than a group each
        for name, array in parent.members(max_depth=None):
            if isinstance(array, zarr.Array) and name.endswith("/target"):
                target = np.asarray(array[:], np.float64)
                picture = np.asarray(array_at(parent, f"{name.removesuffix('/target')}/picture")[:], np.float64)
                length = np.linalg.norm(target, axis=1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    parts.append(np.linalg.norm(picture - target, axis=1) / length)
        return np.mean(parts, axis=0) if parts else None

    def _places(self, count: int) -> Float[np.ndarray, "neuron 2"] | None:
        if self.statistics is None:
            return None
        there = self.made()
        blocks = done_blocks(self.statistics, self.layer, self.variant)
        if not blocks.any():
            return None
        found = places(self.statistics, self.layer, self.variant, there)
        if found is None:
            return None
        everywhere = np.zeros((count, 2))
        everywhere[there] = found
        return everywhere
