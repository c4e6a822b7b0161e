"""Statistics over the data set: of every layer its activations, and of the images their spectrum and colours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import zarr
from jaxtyping import Float, Shaped

from stores.arrays.schema import ArraySpec, array_at, declare, group_at, write_whole

LEVEL = "position of the level in a sorted row, from 0, the smallest, to 1"


def layer_specs(node: str, channels: int, levels: int) -> list[ArraySpec]:
    """Arrays of ``layers/NODE``: the data set's statistics, and under ``sums`` what extends them; one writer."""
    path, rows = f"layers/{node}", ("channel", "level")
    by_channel = {
        "mean": "mean over images and sites",
        "deviation": "standard deviation over images and sites",
        "minimum": "least value",
        "maximum": "greatest value",
        "active": "fraction of images and sites with a value above 0",
        "peak_mean": "mean over images of the greatest value",
        "peak_deviation": "standard deviation over images of the greatest value",
    }
    sums = {
        "total": "sum over images of the mean over sites",
        "squares": "sum over images of the mean square over sites",
        "active": "sum over images of the fraction of sites with a value above 0",
        "peaks": "sum over images of the greatest value",
        "peak_squares": "sum over images of the square of the greatest value",
    }
    return [
        ArraySpec(f"{path}/quantiles", rows, (channels, levels), "float32", "mean of the sorted rows of all images"),
        ArraySpec(f"{path}/level", ("level",), (levels,), "float64", LEVEL),
        *(
            ArraySpec(f"{path}/{name}", ("channel",), (channels,), "float32", meaning)
            for name, meaning in by_channel.items()
        ),
        ArraySpec(
            f"{path}/sums/quantiles", rows, (channels, levels), "float64", "sum of the sorted rows of all images"
        ),
        *(
            ArraySpec(f"{path}/sums/{name}", ("channel",), (channels,), "float64", meaning)
            for name, meaning in sums.items()
        ),
        ArraySpec(f"{path}/sums/count", (), (), "int64", "images in the sums"),
    ]


def write_layer(group: zarr.Group, node: str, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Write arrays of ``layers/NODE`` by relative path, such as ``mean`` or ``sums/total``; a single writer.

    Raises:
        SchemaMismatch: an array was not declared, or has another shape.
    """
    parent = group_at(group, f"layers/{node}")
    for name in sorted(arrays):
        write_whole(array_at(parent, name), np.asarray(arrays[name]))


def read_layer(group: zarr.Group, node: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """All arrays of ``layers/NODE`` by relative path; raises SchemaMismatch where there are none."""
    parent = group_at(group, f"layers/{node}")
    return {
        name: np.asarray(array[...]) for name, array in parent.members(max_depth=1) if isinstance(array, zarr.Array)
    }


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
