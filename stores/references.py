"""The reference images of every neuron: which image, how strong, where."""

from dataclasses import dataclass

import numpy as np
import zarr
from jaxtyping import Float32, Int32, Int64

from stores.schema import ArraySpec, array_at, declare, write_whole


@dataclass(frozen=True)
class References:
    """References of the neurons of one layer, best first.

    ``image`` is an image id, −1 where a neuron has fewer; ``score`` the neuron's activation; ``site`` the row-major
    position of its maximum; ``box`` is top, left, height, width in pixels of the preprocessed input.
    """

    image: Int64[np.ndarray, "neuron rank"]
    score: Float32[np.ndarray, "neuron rank"]
    site: Int32[np.ndarray, "neuron rank"]
    box: Int32[np.ndarray, "neuron rank 4"]


def reference_specs(layer: str, neurons: int, ranks: int) -> list[ArraySpec]:
    """Arrays of ``references/LAYER``; one writer. ``layer`` may go deeper, as in ``layer4.2/lowest``."""
    axes, shape, path = ("neuron", "rank"), (neurons, ranks), f"references/{layer}"
    return [
        ArraySpec(f"{path}/image", axes, shape, "int64", "image id: row of the index, -1 where there is none", fill=-1),
        ArraySpec(f"{path}/score", axes, shape, "float32", "the neuron's activation on the image"),
        ArraySpec(
            f"{path}/site", axes, shape, "int32", "row-major position of the maximum in the layer's map", fill=-1
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
