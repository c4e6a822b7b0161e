"""Where images lie in their shards: what it takes to read them again.

References keep the places of their images beside them. A task then reads those of its own neurons, and never the
index, which may have millions of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import zarr
from jaxtyping import Int32, Int64, UInt32

from stores.arrays.blocks import read_rows
from stores.arrays.schema import ArraySpec, array_at
from stores.arrays.writing import write_all
from stores.dataset.index import SampleRows, read_columns
from stores.dataset.kept.references import NOBODY, REFERENCES, references_path
from stores.together import together


@dataclass(frozen=True)
class Places:
    """Distinct images in ascending order, and of each its shard (a row of ``shards/``), its first byte and length in
    the tar, and the CRC-32 of its bytes."""

    image: Int64[np.ndarray, "image"]
    shard: Int32[np.ndarray, "image"]
    offset: Int64[np.ndarray, "image"]
    size: Int64[np.ndarray, "image"]
    checksum: UInt32[np.ndarray, "image"]

    def __len__(self) -> int:
        return len(self.image)

    def of(self, images: Int64[np.ndarray, "..."]) -> Places:
        """The places of some of these images alone."""
        asked = np.isin(self.image, images)
        return Places(**{part.name: getattr(self, part.name)[asked] for part in fields(self)})


COLUMNS = tuple(part.name for part in fields(Places) if part.name != "image")


def read_places(group: zarr.Group, images: Int64[np.ndarray, "..."]) -> Places:
    """The places of any images by the index, each once; ranks that no image took are left out.

    Raises:
        SchemaMismatch: there is no index, or it has no such image.
    """
    distinct = np.unique(images[images != NOBODY])
    return Places(distinct, **read_columns(group, distinct, COLUMNS))


def read_reference_places(
    group: zarr.Group, layer: str, neurons: Int64[np.ndarray, "neuron"], count: int, folder: str = REFERENCES
) -> Places:
    """The places of the best ``count`` references, or queries, of some neurons of a layer; raises SchemaMismatch where
    it has none. What is read does not grow with the index."""
    path = references_path(layer, folder)
    read = together(lambda name: read_rows(array_at(group, f"{path}/{name}"), neurons), ("image", *COLUMNS))
    image, *columns = (column[:, :count] for column in read)
    distinct, first = np.unique(image, return_index=True)
    taken = distinct != NOBODY
    columns_of_taken = {name: column.reshape(-1)[first[taken]] for name, column in zip(COLUMNS, columns, strict=True)}
    return Places(distinct[taken], **columns_of_taken)


def write_reference_places(
    group: zarr.Group, layer: str, images: Int64[np.ndarray, "neuron rank"], folder: str = REFERENCES
) -> None:
    """Declare and write the places of a layer's references, or queries, from the index; a single writer.

    Raises:
        SchemaMismatch: the index has no such image, or the layer has references of another shape.
    """
    places, path = read_places(group, images), references_path(layer, folder)
    taken, row = images != NOBODY, np.searchsorted(places.image, images)
    specs, values = list[ArraySpec](), dict[str, np.ndarray]()
    for name, column in ((name, SampleRows.stored()[name]) for name in COLUMNS):
        at = f"{path}/{name}"
        specs.append(ArraySpec(at, ("neuron", "rank"), images.shape, column.dtype, column.meaning, column.units))
        values[at] = np.zeros(images.shape, column.in_memory)
        values[at][taken] = getattr(places, name)[row[taken]]
    write_all(group, specs, values)
