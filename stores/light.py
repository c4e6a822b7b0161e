"""What the data set's images look like on average: amplitude spectrum and colours; one writer."""

from __future__ import annotations

import numpy as np
import zarr
from jaxtyping import Float

from stores.schema import ArraySpec, array_at, declare, write_whole

SPECTRUM, MEAN, COVARIANCE, SUMS = "spectrum", "colours/mean", "colours/covariance", "light/sums"


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


def write_light_sums(
    group: zarr.Group,
    spectrum: Float[np.ndarray, "3 row column"],
    colour: Float[np.ndarray, "3"],
    products: Float[np.ndarray, "3 3"],
    count: int,
) -> None:
    """Keep what the means are made of, so that later images can be added."""
    axes = ("colour", "row_frequency", "column_frequency")
    sums = {
        "spectrum": (spectrum, axes, "sum over images of the amplitude spectrum"),
        "colour": (colour, axes[:1], "sum over images of the mean logit of their colours"),
        "products": (products, ("colour", "other_colour"), "sum over images of the mean products of colour logits"),
        "count": (np.asarray(count, np.int64), (), "images in the sums"),
    }
    for name, (values, names, meaning) in sums.items():
        declare(group, [ArraySpec(f"{SUMS}/{name}", names, values.shape, str(values.dtype), meaning)])
        write_whole(array_at(group, f"{SUMS}/{name}"), values)


def read_light_sums(
    group: zarr.Group,
) -> tuple[Float[np.ndarray, "3 row column"], Float[np.ndarray, "3"], Float[np.ndarray, "3 3"], int]:
    """What `write_light_sums` kept; raises SchemaMismatch where there is nothing."""
    spectrum, colour, products, count = (
        np.asarray(array_at(group, f"{SUMS}/{name}")[...]) for name in ("spectrum", "colour", "products", "count")
    )
    return spectrum, colour, products, int(count)


def read_colours(group: zarr.Group) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
    """Mean and covariance of the colour logits; raises SchemaMismatch where they were not written."""
    return np.asarray(array_at(group, MEAN)[:]), np.asarray(array_at(group, COVARIANCE)[:])


def read_spectrum(group: zarr.Group) -> Float[np.ndarray, "3 row column"]:
    """The mean amplitude spectrum; raises SchemaMismatch where it was not written."""
    return np.asarray(array_at(group, SPECTRUM)[:])
