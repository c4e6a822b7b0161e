"""Which facet of a neuron sees a photograph: the one whose references are most like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor

from flows.pages.looking.sights import Sight
from flows.running.process import LoadedModel
from flows.steps.targets import origin_of, variant_of
from stores import AtlasLayer, Statistics, Targets
from stores.atlas.origin import Origin
from vital.errors import UnsupportedOperation
from vital.measuring.targets import Attribution, photo_vectors


def with_facets(
    loaded: LoadedModel,
    statistics: Statistics,
    layers: Sequence[AtlasLayer],
    seen: Sequence[Sequence[Sight]],
    pixels: Num[Tensor, "photo colour side side"],
) -> list[list[Sight]]:
    """The sights of each photograph, those of neurons with several facets with the facet that sees it.

    A photograph is described by the channels of the last matched node that had to do with the neuron's activation on
    it; a facet by the mean of that over its references, which its target has. The direction alone counts: the facet of
    the greatest cosine.
    """
    sights = [list(row) for row in seen]
    for pictures in layers:
        of_layer = [
            (photo, rank)
            for photo, row in enumerate(sights)
            for rank, one in enumerate(row)
            if one.layer == pictures.name
        ]
        if pictures.most_facets == 1 or not of_layer:
            continue
        numbers = np.array([sights[photo][rank].neuron for photo, rank in of_layer])
        counts = np.asarray(pictures.facets(numbers.tolist()))
        several = [
            (photo, rank, count) for (photo, rank), count in zip(of_layer, counts.tolist(), strict=True) if count > 1
        ]
        if not several:
            continue
        targets, origin = statistics.targets(pictures.name, pictures.variant), origin_of(statistics, pictures)
        attribution = Attribution.of(loaded.survey, pictures.name, variant_of(targets).relevance)
        asked, shown = numbers[counts > 1], pixels[[photo for photo, _, _ in several]]
        try:
            vectors = photo_vectors(loaded.model, attribution, asked, shown, targets.nodes[-1])
        except UnsupportedOperation:  # how strongly is known all the same
            vectors = np.zeros((len(asked), 0), np.float32)
        for (photo, rank, count), vector, neuron in zip(several, vectors, asked.tolist(), strict=True):
            known = origin if vector.size else None
            facet = None if known is None else nearest(vector, middles(known, targets.nodes[-1], neuron, count))
            sights[photo][rank] = replace(sights[photo][rank], facet=facet, facets=count)
    return sights


def middles(origin: Targets | Origin, node: str, neuron: int, count: int) -> Float[np.ndarray, "facet channel"]:
    """What the references of each facet of a neuron have in common: the importance of the channels of the last
    ``node``, or for classes, which have none, their mean activation."""
    facets = [neuron] * count, range(count)
    shares = origin.importance(node, *facets)
    return origin.mean_rows(node, *facets) if shares is None else shares


def nearest(vector: Float[np.ndarray, "channel"], middles: Float[np.ndarray, "facet channel"]) -> int | None:
    """The row of the greatest cosine with a vector; the first of equal ones, and None for a vector without a direction.

    >>> nearest(np.array([0.0, 3.0]), np.array([[9.0, 1.0], [0.1, 0.2]]))
    1
    """
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length == 0:
        return None
    lengths = np.maximum(np.linalg.norm(middles, axis=1), np.finfo(np.float32).tiny)
    return int((middles @ vector / lengths).argmax())
