"""All that one pass over images gathers: rankings, sums, class members, spectrum and colours; mergeable with
``+``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from vital.measuring.image_sums import ImageSums
from vital.measuring.ranking import Ranking, unit_hash
from vital.measuring.rows import stored_levels
from vital.measuring.sums import LayerSums
from vital.network.arithmetic import arithmetic, widened
from vital.network.layers import Layer, Survey
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.probe import CLASSES, anchor, probe
from vital.settings import Precision

LOWEST = "/lowest"
"""Ends the name of a ranking by the least activation instead of the greatest, as in ``layer4.2/lowest``."""


def ranked_layer(name: str) -> str:
    """The layer that a ranking is of."""
    return name.removesuffix(LOWEST)


@dataclass(frozen=True)
class Plan:
    """What is gathered: ``ranked`` layers get rankings (the layer of classes: members by label; ``LAYER/lowest``: by
    the negated least activation), ``measured`` ones sums; those of sites and directions, which are never matched, have
    no rows."""

    ranked: tuple[str, ...]
    measured: tuple[str, ...]
    ranks: int
    levels: int
    precision: Precision = "float32"
    """Arithmetic of the network; what it gives is ranked and summed in single precision at least."""


def levels_of(layer: Layer, levels: int) -> Float[np.ndarray, "level"]:
    """The levels at which a layer's sorted rows are kept; none for sites and directions of another one."""
    return stored_levels(layer.sites, levels) if layer.readout is None else np.empty(0)


@dataclass(frozen=True)
class Gathered:
    """What is known of a set of images. ``a + b`` joins disjoint sets; `Gathered.none` is the identity."""

    rankings: Mapping[str, Ranking]
    sums: Mapping[str, LayerSums]
    image_sums: ImageSums

    @classmethod
    def none(cls, plan: Plan, survey: Survey, side: int) -> Gathered:
        """What is known of no image: the identity of ``+``."""
        measured = {name: survey.layer(name) for name in plan.measured}
        return cls(
            {name: Ranking.none(survey.layer(ranked_layer(name)).channels, plan.ranks) for name in plan.ranked},
            {
                name: LayerSums.none(layer.channels, len(levels_of(layer, plan.levels)))
                for name, layer in measured.items()
            },
            ImageSums.none(side),
        )

    def __add__(self, other: Gathered) -> Gathered:
        return Gathered(
            {name: ranking + other.rankings[name] for name, ranking in self.rankings.items()},
            {name: sums + other.sums[name] for name, sums in self.sums.items()},
            self.image_sums + other.image_sums,
        )

    def shifted(self, by: int) -> Gathered:
        """All of it with ``by`` added to the image ids: from a shard's own rows to the data set's."""
        return Gathered(
            {name: ranking.shifted(by) for name, ranking in self.rankings.items()}, self.sums, self.image_sums
        )

    def arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Everything as named arrays, for storage; `from_arrays` is the inverse."""
        parts: dict[str, Any] = {"light": self.image_sums}
        parts |= {f"rankings/{name}": ranking for name, ranking in self.rankings.items()}
        parts |= {f"sums/{name}": sums for name, sums in self.sums.items()}
        return {
            f"{path}/{part.name}": np.asarray(getattr(value, part.name))
            for path, value in parts.items()
            for part in fields(value)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> Gathered:
        """The inverse of `arrays`: named arrays from storage as what is known of their images."""
        parts: dict[str, dict[str, Any]] = {}
        for path, array in arrays.items():
            owner, _, name = path.rpartition("/")
            parts.setdefault(owner, {})[name] = int(array) if array.ndim == 0 else array

        def of(kind: str, make: Any) -> dict[str, Any]:
            return {
                owner.removeprefix(f"{kind}/"): make(**values)
                for owner, values in parts.items()
                if owner.startswith(f"{kind}/")
            }

        return cls(of("rankings", Ranking), of("sums", LayerSums), ImageSums(**parts["light"]))


def gather(
    model: Model,
    survey: Survey,
    plan: Plan,
    pixels: UInt8[Tensor, "image 3 side side"],
    rows: Int[np.ndarray, "image"],
    labels: Int[np.ndarray, "image"],
    keys: Sequence[str],
) -> Gathered:
    """What a batch of images gives: one forward pass to the deepest layer of the plan.

    A neuron's score on an image is the maximum of its map, at the first such site; a class token is no site to rank.
    ``labels`` are −1 where unknown; class members are ranked by `unit_hash` of their key.
    """
    with arithmetic(model, plan.precision) as used:
        return _gather(used, survey, plan, pixels, rows, labels, keys)


def _gather(
    model: Model,
    survey: Survey,
    plan: Plan,
    pixels: UInt8[Tensor, "image 3 side side"],
    rows: Int[np.ndarray, "image"],
    labels: Int[np.ndarray, "image"],
    keys: Sequence[str],
) -> Gathered:
    every = dict.fromkeys((*plan.measured, *(ranked_layer(name) for name in plan.ranked if name != CLASSES)))
    inner = tuple(dict.fromkeys(survey.layer(name).reads.layer for name in every))
    rankings: dict[str, Ranking] = {}
    sums: dict[str, LayerSums] = {}
    if inner:
        weight = anchor(model.network)
        with torch.inference_mode(), probe(model.network, inner, survey.layouts()) as run:
            images = model.preprocessing.normalise(pixels.to(weight.device))
            activations = {name: widened(read) for name, read in run(images.to(weight.dtype)).items()}
            for name in every:
                layer = survey.layer(name)
                maps = layer.reads.maps(activations[layer.reads.layer])  # of many directions the dearest: once
                if name in plan.measured:
                    sums[name] = LayerSums.of(maps, plan.levels if layer.readout is None else 0)
                skip = survey.layer(layer.reads.layer).leading_tokens
                for ranked in (name, f"{name}{LOWEST}"):
                    if ranked in plan.ranked and ranked != CLASSES:
                        scored = -maps if ranked.endswith(LOWEST) else maps
                        rankings[ranked] = _ranked(layer.reads, scored, rows, skip, plan.ranks)
    if CLASSES in plan.ranked:
        rankings[CLASSES] = _members(survey.layer(CLASSES).channels, plan.ranks, rows, labels, keys)
    return Gathered(rankings, sums, ImageSums.of(pixels))


def _ranked(
    reads: Readout, maps: Float[Tensor, "image neuron site"], rows: Int[np.ndarray, "image"], skip: int, ranks: int
) -> Ranking:
    peaks, sites = (part.numpy(force=True) for part in (maps if reads.site is not None else maps[..., skip:]).max(-1))
    if reads.site is not None:
        sites = sites + max(0, reads.site - skip)
    return Ranking.of(peaks, rows, sites, ranks)


def _members(
    classes: int, ranks: int, rows: Int[np.ndarray, "image"], labels: Int[np.ndarray, "image"], keys: Sequence[str]
) -> Ranking:
    scores = np.full((len(rows), classes), -np.inf)
    for row, (label, key) in enumerate(zip(labels, keys, strict=True)):
        if 0 <= label < classes:
            scores[row, label] = -unit_hash(key)
    return Ranking.of(scores, rows, np.zeros(scores.shape, np.int64), ranks)
