"""The reference images of every neuron: which image, how strong, where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import zarr
from jaxtyping import Float32, Int32, Int64

from stores.schema import ArraySpec, array_at, declare, write_whole


@dataclass(frozen=True)
class References:
    """References of the neurons of one layer, best first.

    ``image`` is an image id, −1 where a neuron has fewer; ``score`` the neuron's activation
    (for classes minus the lot of the image's key), NaN where there is no image; ``site`` the row-major position of its
    maximum, −1 where there is no image; ``box`` is top, left, height, width in pixels of the preprocessed input.
    """

    image: Int64[np.ndarray, "neuron rank"]
    score: Float32[np.ndarray, "neuron rank"]
    site: Int32[np.ndarray, "neuron rank"]
    box: Int32[np.ndarray, "neuron rank 4"]

    def best(self, count: int) -> References:
        """The first ``count`` of every neuron."""
        return References(self.image[:, :count], self.score[:, :count], self.site[:, :count], self.box[:, :count])


def reference_specs(layer: str, neurons: int, ranks: int) -> list[ArraySpec]:
    """Arrays of ``references/LAYER``; one writer. ``layer`` may go deeper, as in ``layer4.2/lowest``."""
    axes, shape, path = ("neuron", "rank"), (neurons, ranks), f"references/{layer}"
    lowest = layer.endswith("/lowest")
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


def write_references(group: zarr.Group, layer: str, references: References) -> None:
    """Declare and write ``references/LAYER`` whole, over earlier ones of the same shape.

    Raises:
        SchemaMismatch: the layer has references of another shape.
    """
    neurons, ranks = references.image.shape
    declare(group, reference_specs(layer, neurons, ranks))
    for name in ("box", "site", "score", "image"):
        write_whole(array_at(group, f"references/{layer}/{name}"), getattr(references, name))


def read_references(group: zarr.Group, layer: str) -> References:
    """References of a layer; raises SchemaMismatch where there are none."""
    return References(
        **{
            name: np.asarray(array_at(group, f"references/{layer}/{name}")[...])
            for name in ("image", "score", "site", "box")
        }
    )
