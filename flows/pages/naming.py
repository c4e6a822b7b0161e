"""The words that were found for a layer's neurons, as the pages show them, with the photographs that speak for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.pages.photographs.thumbnails import Thumbnails
from stores import Naming
from stores.pages.content import Column, Word, Words


@dataclass(frozen=True, eq=False)
class LayerWords:
    """The words of a layer, where `vital names` found some."""

    naming: Naming | None

    @property
    def said(self) -> str:
        """What they were found by."""
        return "" if self.naming is None else self.naming.in_words()

    def columns(self) -> list[Column]:
        """How sure the names are, to order and to filter by."""
        if self.naming is None:
            return []
        meaning = (
            "correlation of the name's scores with the neuron's activations over images that had no part in its "
            "choice; unknown where a neuron has no name"
        )
        score = np.where(self.naming.named, self.naming.score[:, 0], np.nan).astype(np.float64)
        return [Column("name score", meaning, score)]

    def of(self, neurons: Sequence[int], photographs: Thumbnails | None) -> tuple[dict[int, Words], dict[str, int]]:
        """The words of some neurons, and the image ids by the names of the photographs beside them."""
        shown: dict[int, Words] = {}
        images: dict[str, int] = {}
        if self.naming is None:
            return shown, images
        naming, named = self.naming, self.naming.named
        for neuron in neurons:
            photos = []
            for image, score in zip(naming.evidence[neuron].tolist(), naming.shown[neuron].tolist(), strict=True):
                if photographs is not None:
                    photos.append(photographs.photo(image, score, None))
                    images[photos[-1].file] = image
            words = [
                Word(
                    str(naming.word[neuron, rank]),
                    float(naming.score[neuron, rank]),
                    float(naming.chosen[neuron, rank]),
                    float(naming.precision[neuron, rank]),
                )
                for rank in np.flatnonzero(naming.word[neuron] != "")
            ]
            shown[neuron] = Words(words, bool(named[neuron]), float(naming.bound[neuron]), photos)
        return shown, images
