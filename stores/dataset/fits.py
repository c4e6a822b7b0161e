"""How well a dictionary goes with each layer that it was read from, as the pass found it on some images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import zarr

from stores.arrays.names import placed
from stores.arrays.provenance import JSON
from stores.arrays.schema import group_at
from stores.dataset.directions import DICTIONARIES

FIT = "fit"
CLEARLY = 0.05
"""A layer of which so much more variance is given back is a better one for a dictionary."""


@dataclass(frozen=True)
class DictionaryFit:
    """What a dictionary made of the first images at a layer."""

    layer: str
    """The layer that was read, without the dictionary's name."""
    images: int
    active: float
    """Features that are not zero at a site, on average."""
    silent: float
    """Share of the features that are zero on all of these images."""
    explained: float | None
    """Share of the layer's variance that the decoder gives back; None where there is none."""
    better: str = ""
    """The layer of as many channels of which it gives back most, where that is clearly more."""
    better_explained: float = 0.0
    trained_on: str = ""
    """The layer that the dictionary's file names and the network does not have."""

    def line(self) -> str:
        """All of it in words."""
        words = f"{self.active:.3g} features at a site, {self.silent:.0%} on none of {self.images} images"
        if self.explained is None:
            return f"{words}; it has no decoder that would say how well it goes with {self.layer}"
        return f"{words}; gives back {self.explained:.0%} of the variance of {self.layer}"

    def doubts(self) -> list[str]:
        """What speaks against its having been trained on this layer, of this network."""
        doubts = []
        if self.trained_on:
            doubts.append(
                f"its file says it was trained on {self.trained_on!r}, which is no layer of this network: make sure "
                f"that {self.layer} is the same"
            )
        if self.better:
            doubts.append(
                f"it gives back {self.better_explained:.0%} of the variance of {self.better}, but "
                f"{self.explained:.0%} of {self.layer}: it was probably trained on another layer than this"
            )
        elif self.explained is not None and self.explained < 0:
            doubts.append(
                f"what it gives back of {self.layer} is worse than the mean: it was probably trained on another layer, "
                "or on activations that were centred, scaled or cropped otherwise"
            )
        return doubts


def write_fit(group: zarr.Group, name: str, fit: DictionaryFit) -> None:
    """Keep how well the dictionary of this name goes with a layer."""
    kept = group_at(group, f"{DICTIONARIES}/{placed(name)}")
    known: dict[str, JSON] = dict(_kept(kept))
    kept.attrs[FIT] = known | {fit.layer: asdict(fit)}


def read_fit(group: zarr.Group, name: str, layer: str) -> DictionaryFit | None:
    """How well the dictionary of this name goes with a layer; None where a store does not say it."""
    kept = _kept(group_at(group, f"{DICTIONARIES}/{placed(name)}")).get(layer)
    return DictionaryFit(**kept) if isinstance(kept, dict) else None


def _kept(group: zarr.Group) -> Mapping[str, JSON]:
    kept = group.attrs.get(FIT)
    return kept if isinstance(kept, dict) else {}
