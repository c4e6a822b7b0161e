"""What the data set's images look like on average: amplitude spectrum and colours; one writer."""

from __future__ import annotations

import numpy as np
import zarr
from jaxtyping import Float

from stores.schema import ArraySpec, array_at, declare, write_whole

SPECTRUM, MEAN, COVARIANCE = "spectrum", "colours/mean", "colours/covariance"


def write_light(
    group: zarr.Group,
    spectrum: Float[np.ndarray, "3 row column"],
    mean: Float[np.ndarray, "3"],
    covariance: Float[np.ndarray, "3 3"],
) -> None:
    """Write the mean amplitude spectrum (half of it, as of a real transform) and the statistics of colour logits."""
    declare(
        group,
        [
            ArraySpec(
                SPECTRUM, ("colour", "row_frequency", "column_frequency"), spectrum.shape, "float32",
                "mean amplitude spectrum of the images at the network's input size, orthonormal, half of it",
            ),
            ArraySpec(MEAN, ("colour",), (3,), "float64", "mean logit of the images' colours"),
            ArraySpec(COVARIANCE, ("colour", "other_colour"), (3, 3), "float64", "covariance of the colours' logits"),
        ],
    )  # fmt: skip
    for path, values in ((SPECTRUM, spectrum.astype(np.float32)), (MEAN, mean), (COVARIANCE, covariance)):
        write_whole(array_at(group, path), values)


def read_colours(group: zarr.Group) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
    """Mean and covariance of the colour logits; raises SchemaMismatch where they were not written."""
    return np.asarray(array_at(group, MEAN)[:]), np.asarray(array_at(group, COVARIANCE)[:])


def read_spectrum(group: zarr.Group) -> Float[np.ndarray, "3 row column"]:
    """The mean amplitude spectrum; raises SchemaMismatch where it was not written."""
    return np.asarray(array_at(group, SPECTRUM)[:])
