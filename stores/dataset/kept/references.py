"""The best images of every neuron of a layer, those right beyond, and the lowest."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import zarr
from jaxtyping import Bool, Float32, Int32, Int64, Shaped

from stores.arrays.blocks import read_rows
from stores.arrays.names import placed
from stores.arrays.schema import ArraySpec, array_at
from stores.arrays.writing import write_all
from stores.together import together

LOWEST = "/lowest"
"""Ends the name of references by the least activation."""
NOBODY = -1
"""Image id of a rank that no image took."""
REFERENCES, QUERIES = "references", "queries"
"""Where the best images of each neuron lie, and those of the ranks right beyond."""


@dataclass(frozen=True)
class References:
    """References of the neurons of one layer, best first.

    ``image`` is an image id, −1 where a neuron has fewer; ``score`` the neuron's activation (for classes minus a number
    drawn from the image's key), NaN where there is no image; ``site`` the row-major position of its maximum, −1 where
    there is no image; ``box`` is top, left, height, width in pixels of the preprocessed input.
    """

    image: Int64[np.ndarray, "neuron rank"]
    score: Float32[np.ndarray, "neuron rank"]
    site: Int32[np.ndarray, "neuron rank"]
    box: Int32[np.ndarray, "neuron rank 4"]

    def live(self, fewest: int = 1) -> Bool[np.ndarray, "neuron"]:
        """Neurons with at least so many references."""
        return live_of(self.image, fewest)

    def best(self, count: int) -> References:
        """The first ``count`` of every neuron."""
        return References(self.image[:, :count], self.score[:, :count], self.site[:, :count], self.box[:, :count])

    def beyond(self, count: int) -> References:
        """All but the first ``count`` of every neuron."""
        return References(self.image[:, count:], self.score[:, count:], self.site[:, count:], self.box[:, count:])

    def and_then(self, others: References) -> References:
        """These and, behind them, others of the same neurons."""
        both = (np.concatenate([getattr(self, name), getattr(others, name)], 1) for name in ROWS)
        return References(*both)


def live_of(image: Int64[np.ndarray, "neuron rank"], fewest: int = 1) -> Bool[np.ndarray, "neuron"]:
    """Neurons with at least so many references, by the image ids of these."""
    enough: np.ndarray = (image != NOBODY).sum(1) >= fewest
    return enough


ROWS = tuple(part.name for part in fields(References))


def references_path(layer: str, folder: str = REFERENCES) -> str:
    """Where the references of a layer lie, or of its least activations: ``LAYER/lowest``; or its `QUERIES`."""
    whole = layer.removesuffix(LOWEST)
    return f"{folder}/{placed(whole)}{layer[len(whole) :]}"


def reference_specs(layer: str, neurons: int, ranks: int, folder: str = REFERENCES) -> list[ArraySpec]:
    """Arrays of ``references/LAYER``, or of ``queries/LAYER``; one writer. ``layer`` may go deeper, as in
    ``layer4.2/lowest``."""
    axes, shape, path = ("neuron", "rank"), (neurons, ranks), references_path(layer, folder)
    lowest = layer.endswith(LOWEST)
    end = "minimum" if lowest else "maximum"
    score = f"{end} over the sites of the neuron's activation on the image"
    if layer == "classes":
        score = "minus a number from 0 to 1 drawn from the image's key alone: members of the class are chosen by it"
    return [
        ArraySpec(f"{path}/image", axes, shape, "int64", "image id: row of the index, -1 where there is none", fill=-1),
        ArraySpec(f"{path}/score", axes, shape, "float32", score),
        ArraySpec(
            f"{path}/site",
            axes,
            shape,
            "int32",
            f"row-major position of the {end} in the layer's map, -1 where there is no image",
            fill=-1,
        ),
        ArraySpec(
            f"{path}/box",
            (*axes, "edge"),
            (*shape, 4),
            "int32",
            "patch in the preprocessed input: top, left, height, width",
            "pixel",
        ),
    ]


def write_references(group: zarr.Group, layer: str, references: References, folder: str = REFERENCES) -> None:
    """Declare and write ``references/LAYER`` whole, or ``queries/LAYER``, over earlier ones of the same shape.

    Raises:
        SchemaMismatch: the layer has references of another shape.
    """
    neurons, ranks = references.image.shape
    path = references_path(layer, folder)
    specs = reference_specs(layer, neurons, ranks, folder)
    write_all(group, specs, {f"{path}/{name}": getattr(references, name) for name in ROWS})


def read_references(
    group: zarr.Group, layer: str, neurons: Int64[np.ndarray, "neuron"] | None = None, folder: str = REFERENCES
) -> References:
    """References of a layer, or of some of its neurons in that order; raises SchemaMismatch where there are none."""
    return References(*together(lambda name: read_reference(group, layer, name, neurons, folder), ROWS))


def read_reference(
    group: zarr.Group,
    layer: str,
    name: str,
    neurons: Int64[np.ndarray, "neuron"] | None = None,
    folder: str = REFERENCES,
) -> Shaped[np.ndarray, "neuron rank ..."]:
    """One part of them, such as ``image``."""
    array = array_at(group, f"{references_path(layer, folder)}/{name}")
    return read_rows(array, np.arange(array.shape[0]) if neurons is None else neurons)
