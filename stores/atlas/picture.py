"""One picture of an atlas."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float32, UInt8

from stores.arrays.display import as_shown, image_html
from stores.errors import PICTURE_STATUS_MEANINGS, PictureStatus


@dataclass(frozen=True, eq=False)
class AtlasPicture:
    """A neuron's picture, or the reason why there is none; shows itself in a notebook.

    ``pixels`` are RGB, or the network's own channels; ``alpha`` says how much a pixel mattered, 255 at most; ``loss``
    runs along the optimisation. Where ``status`` is not ``MADE`` they mean nothing.
    """

    layer: str
    neuron: int
    name: str
    status: PictureStatus
    pixels: UInt8[np.ndarray, "side side colour"]
    alpha: UInt8[np.ndarray, "side side"]
    loss: Float32[np.ndarray, "record"]
    facet: int = 0
    facets: int = 1
    """How many facets the neuron has, each with a picture; they are counted from 0."""
    shown: tuple[int, ...] = ()
    """Of other channels than colours those that are seen as red, green and blue, or one as grey."""

    @property
    def title(self) -> str:
        """Layer, number and name; and which of several facets."""
        which = f", facet {self.facet}" if self.facets > 1 else ""
        return f"{self.layer}:{self.neuron} {self.name}{which}"

    def __repr__(self) -> str:
        side = len(self.pixels)
        return f"<picture {self.title}, {side} × {side}, {PICTURE_STATUS_MEANINGS[self.status]}>"

    def _repr_html_(self) -> str:
        if self.status != PictureStatus.MADE:
            return f"<p>{escape(repr(self))}</p>"
        image = image_html(as_shown(self.pixels, self.shown), len(self.pixels), self.title)
        return f"<figure>{image}<figcaption>{escape(self.title)}</figcaption></figure>"
