"""Statistics of the images themselves: their mean spectrum and the distribution of their colours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import zarr
from jaxtyping import Float, Shaped

from stores.arrays.schema import ArraySpec, array_at
from stores.arrays.writing import write_all
from stores.together import together

SPECTRUM, MEAN, COVARIANCE, SUMS = "spectrum", "colours/mean", "colours/covariance", "light/sums"
_AXES = ("colour", "row_frequency", "column_frequency")
_PARTED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "spectrum": (_AXES, "sum over images of the amplitude spectrum"),
    "colour": (_AXES[:1], "sum over images of the mean logit of their colours"),
    "products": (("colour", "other_colour"), "sum over images of the mean products of colour logits"),
    "rows": (("colour", "level"), "sum over images of each colour's sorted bytes"),
}
_SUMS: Mapping[str, tuple[tuple[str, ...], str]] = {
    **{name: (axes, f"{meaning}, in whole steps of 2⁻¹²") for name, (axes, meaning) in _PARTED.items()},
    **{f"{name}_rest": (axes, f"{meaning}, what is below these steps") for name, (axes, meaning) in _PARTED.items()},
    "count": ((), "images in the sums"),
}
"""Axes and meaning of each sum."""


def write_images(
    group: zarr.Group,
    spectrum: Float[np.ndarray, "colour row column"],
    mean: Float[np.ndarray, "colour"],
    covariance: Float[np.ndarray, "colour colour"],
) -> None:
    """Write the mean amplitude spectrum (half of it, as of a real transform) and the statistics of colour logits."""
    specs = [
        ArraySpec(
            SPECTRUM, ("colour", "row_frequency", "column_frequency"), spectrum.shape, "float32",
            "mean amplitude spectrum of the images at the network's input size, orthonormal, half of it",
        ),
        ArraySpec(MEAN, ("colour",), mean.shape, "float64", "mean logit of the images' colours"),
        ArraySpec(
            COVARIANCE, ("colour", "other_colour"), covariance.shape, "float64", "covariance of the colours' logits"
        ),
    ]  # fmt: skip
    write_all(group, specs, {SPECTRUM: spectrum.astype(np.float32), MEAN: mean, COVARIANCE: covariance})


def write_image_sums(group: zarr.Group, sums: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Keep what the means are made of, so that later images can be added: ``spectrum``, ``colour``, ``products``
    and ``rows``, each with its ``…_rest``, and ``count``."""
    values = {f"{SUMS}/{name}": np.asarray(sums[name]) for name in _SUMS}
    specs = [
        ArraySpec(path, axes, values[path].shape, str(values[path].dtype), meaning)
        for path, (axes, meaning) in zip(values, _SUMS.values(), strict=True)
    ]
    write_all(group, specs, values)


def read_image_sums(group: zarr.Group) -> dict[str, Shaped[np.ndarray, "..."]]:
    """What `write_image_sums` kept, by name; raises SchemaMismatch where there is nothing."""
    return dict(zip(_SUMS, together(lambda name: _read(group, f"{SUMS}/{name}"), _SUMS), strict=True))


def read_colour_rows(group: zarr.Group) -> Float[np.ndarray, "colour level"]:
    """The mean of the images' sorted colours, in bytes; raises SchemaMismatch where they were not written."""
    coarse, rest, count = together(lambda name: _read(group, f"{SUMS}/{name}"), ("rows", "rows_rest", "count"))
    mean: np.ndarray = (coarse + rest) / max(int(count), 1)
    return mean


def read_colours(group: zarr.Group) -> tuple[Float[np.ndarray, "colour"], Float[np.ndarray, "colour colour"]]:
    """Mean and covariance of the colour logits; raises SchemaMismatch where they were not written."""
    mean, covariance = together(lambda path: _read(group, path), (MEAN, COVARIANCE))
    return mean, covariance


def read_spectrum(group: zarr.Group) -> Float[np.ndarray, "colour row column"]:
    """The mean amplitude spectrum; raises SchemaMismatch where it was not written."""
    return _read(group, SPECTRUM)


def _read(group: zarr.Group, path: str) -> Shaped[np.ndarray, "..."]:
    return np.asarray(array_at(group, path)[...])
