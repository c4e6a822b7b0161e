"""What adds: sums and rankings over images, which merge with ``+`` whatever the order of their parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64, UInt8
from torch import Tensor

from vital.measuring.rows import cachefuls, resample, share_out, site_levels, sort_rows, stored_levels


@dataclass(frozen=True)
class LayerSums:
    """What is known of a node's channels over a set of images, as sums: ``+`` joins disjoint sets, ``LayerSums.none``
    is its identity.

    Sums are float64. ``quantiles`` sums each image's sorted row read at the stored levels; ``total`` and ``squares``
    sum the spatial means and mean squares; ``active`` sums the shares of sites with a positive activation, ``peaks``
    and ``peak_squares`` the spatial maxima and their squares.
    """

    quantiles: Float[np.ndarray, "channel level"]
    total: Float[np.ndarray, "channel"]
    squares: Float[np.ndarray, "channel"]
    minimum: Float[np.ndarray, "channel"]
    maximum: Float[np.ndarray, "channel"]
    active: Float[np.ndarray, "channel"]
    peaks: Float[np.ndarray, "channel"]
    peak_squares: Float[np.ndarray, "channel"]
    count: int

    @classmethod
    def none(cls, channels: int, levels: int) -> LayerSums:
        """The sums of no image."""

        def zero() -> np.ndarray:
            return np.zeros(channels)

        infinity = np.full(channels, np.inf)
        rows = np.zeros((channels, levels))
        return cls(rows, zero(), zero(), infinity, -infinity, zero(), zero(), zero(), 0)

    @classmethod
    def of(cls, activations: Float[Tensor, "image channel site"], levels: int) -> LayerSums:
        """The sums of a batch of images, at ``stored_levels(sites, levels)``."""
        rows = _described(activations.float(), levels)
        # One image after the other: the sum of a batch must not depend on how the images were batched.
        return cls(
            sum_in_order(rows.kept),
            sum_in_order(rows.mean),
            sum_in_order(rows.square),
            rows.lowest.double().numpy(force=True).min(0, initial=np.inf),
            rows.highest.double().numpy(force=True).max(0, initial=-np.inf),
            sum_in_order(rows.active),
            sum_in_order(rows.highest),
            sum_in_order(rows.highest.square()),
            len(activations),
        )

    def __add__(self, other: LayerSums) -> LayerSums:
        if self.quantiles.shape != other.quantiles.shape:
            raise ValueError(
                f"sums of shape {self.quantiles.shape} and {other.quantiles.shape} cannot be added: "
                "same node, same input size only"
            )
        return LayerSums(
            self.quantiles + other.quantiles,
            self.total + other.total,
            self.squares + other.squares,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
            self.active + other.active,
            self.peaks + other.peaks,
            self.peak_squares + other.peak_squares,
            self.count + other.count,
        )


@dataclass(frozen=True)
class _Rows:
    """What is kept of sorted rows."""

    kept: Float[Tensor, "*row level"]
    mean: Float[Tensor, "*row"]
    square: Float[Tensor, "*row"]
    active: Float[Tensor, "*row"]
    lowest: Float[Tensor, "*row"]
    highest: Float[Tensor, "*row"]


def _described(activations: Float[Tensor, "*row site"], levels: int) -> _Rows:
    """Each row sorted and read at ``stored_levels(sites, levels)``, its mean, its mean square, and the share of it that
    is positive."""
    sites = activations.shape[-1]
    have, want = site_levels(sites), stored_levels(sites, levels)
    if activations.device.type != "cpu":
        rows = sort_rows(activations)
        square, active = rows.square().mean(-1), (rows > 0).float().mean(-1)
        return _Rows(resample(rows, have, want), rows.mean(-1), square, active, rows[..., 0], rows[..., -1])
    flat = activations.detach().flatten(0, -2).contiguous().numpy()
    kept = np.empty((len(flat), len(want)), np.float32)
    parts = np.empty((5, len(flat)), np.float32)

    def work(part: slice) -> None:
        rows = np.sort(flat[part], axis=1)
        kept[part] = resample(torch.from_numpy(rows), have, want).numpy()
        mean, square, active, lowest, highest = parts[:, part]
        lowest[:], highest[:] = rows[:, 0], rows[:, -1]
        with np.errstate(over="ignore", invalid="ignore"):  # an activation may be infinite
            mean[:], active[:] = rows.mean(1), (rows > 0).mean(1)
            square[:] = np.square(rows, out=rows).mean(1)

    share_out(cachefuls(*flat.shape), work)  # a node's sorted rows are never in memory together
    shape = activations.shape[:-1]
    return _Rows(torch.from_numpy(kept).reshape(*shape, len(want)), *torch.from_numpy(parts).reshape(5, *shape))


def sum_in_order(rows: Float[Tensor, "image *rest"]) -> Float[np.ndarray, "*rest"]:
    """Float64 sum over images, in their order: it does not depend on how they were batched."""
    total = np.zeros(rows.shape[1:])
    for row in rows.double().numpy(force=True):
        total += row
    return total


NOBODY = -1
"""Image id of a rank that nobody took."""


@dataclass(frozen=True)
class Ranking:
    """Scores, image ids and winning sites by rank; the score descends, equal scores are in the order of the image ids.

    Empty ranks stand at the end with the score −∞ and the image `NOBODY`.
    """

    scores: Float64[np.ndarray, "neuron rank"]
    images: Int64[np.ndarray, "neuron rank"]
    sites: Int64[np.ndarray, "neuron rank"]

    @classmethod
    def none(cls, neurons: int, ranks: int) -> Ranking:
        """A ranking of no image: the identity of ``+``."""
        shape = (neurons, ranks)
        return cls(np.full(shape, -np.inf), np.full(shape, NOBODY, np.int64), np.zeros(shape, np.int64))

    @classmethod
    def of(
        cls,
        scores: Float[np.ndarray, "image neuron"],
        images: Int[np.ndarray, "image"],
        sites: Int[np.ndarray, "image neuron"],
        ranks: int,
    ) -> Ranking:
        """The ranking of a batch of images. A score that is not a number is no candidate."""
        wide = np.where(np.isnan(scores), -np.inf, scores.astype(np.float64)).T
        ids = np.where(np.isneginf(wide), NOBODY, np.broadcast_to(images.astype(np.int64), wide.shape))
        empty = cls.none(wide.shape[0], ranks)
        return empty + cls(wide, ids, sites.T.astype(np.int64))

    def __add__(self, other: Ranking) -> Ranking:
        """The best of both, as many ranks as the left one has."""
        if len(self.scores) != len(other.scores):
            raise ValueError(
                f"rankings of {len(self.scores)} and {len(other.scores)} neurons cannot be merged: same layer only"
            )
        scores, images, sites = (
            np.concatenate([mine, theirs], axis=1)
            for mine, theirs in ((self.scores, other.scores), (self.images, other.images), (self.sites, other.sites))
        )
        ranks = self.scores.shape[1]
        # Nobody ranks behind everybody, whatever the score.
        order = np.lexsort((images, -scores, images == NOBODY), axis=1)[:, :ranks]
        return Ranking(*(np.take_along_axis(part, order, axis=1) for part in (scores, images, sites)))

    def shifted(self, by: int) -> Ranking:
        """The same with image ids counted from another start: from a shard's own rows to the data set's."""
        return replace(self, images=np.where(self.images == NOBODY, NOBODY, self.images + by))

    @property
    def taken(self) -> Int[np.ndarray, "neuron"]:
        """How many ranks each neuron has filled."""
        filled: np.ndarray = (self.images != NOBODY).sum(axis=1)
        return filled


def unit_hash(key: str) -> float:
    """A number from 0 to 1 that depends on nothing but the key: the first of a class by it are its references,
    however sharded.

    >>> 0 <= unit_hash("n01440764_10026") < 1
    True
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


LOGIT_MARGIN = 0.02
"""Colours are kept this far from black and white when their logits are taken."""


@dataclass(frozen=True)
class ColourDistribution:
    """Mean and covariance of the logits of a data set's colours (red, green, blue in 0..1)."""

    mean: Float[np.ndarray, "3"]
    covariance: Float[np.ndarray, "3 3"]

    def basis(self) -> Float[np.ndarray, "3 3"]:
        """The symmetric square root of the covariance: independent unit colours become colours distributed like the
        data's."""
        values, vectors = np.linalg.eigh(self.covariance)
        root: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return root


GREY = ColourDistribution(np.zeros(3), np.eye(3))
"""No knowledge of colours: independent ones around a medium grey."""


@dataclass(frozen=True)
class ImageSums:
    """Sums over images of the amplitude spectrum (3, row frequency, column frequency), and of colour logits with
    their products."""

    spectrum: Float[np.ndarray, "3 row column"]
    colour: Float[np.ndarray, "3"]
    products: Float[np.ndarray, "3 3"]
    count: int

    def __add__(self, other: ImageSums) -> ImageSums:
        return ImageSums(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    @classmethod
    def none(cls, side: int) -> ImageSums:
        """The light of no image."""
        return cls(np.zeros((3, side, side // 2 + 1)), np.zeros(3), np.zeros((3, 3)), 0)

    @classmethod
    def of(cls, pixels: UInt8[Tensor, "image 3 side side"]) -> ImageSums:
        """The sums of a batch, one image added after the other, so that they do not depend on how images were
        batched."""
        colours = pixels.float() / 255
        amplitudes = torch.fft.rfft2(colours - colours.mean((2, 3), keepdim=True), norm="ortho").abs()
        logits = torch.logit(colours.clamp(LOGIT_MARGIN, 1 - LOGIT_MARGIN)).flatten(2)
        products = logits @ logits.transpose(1, 2) / logits.shape[2]
        return cls(sum_in_order(amplitudes), sum_in_order(logits.mean(2)), sum_in_order(products), len(pixels))

    def colours(self) -> ColourDistribution:
        """Mean and covariance of the colour logits."""
        mean = self.colour / max(self.count, 1)
        return ColourDistribution(mean, self.products / max(self.count, 1) - np.outer(mean, mean))
