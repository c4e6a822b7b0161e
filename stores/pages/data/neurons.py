"""What the pages are told of some neurons: what a neuron's own page shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stores.pages.content import Curve, NeuronPage, Photo, TrustLine, Words
from stores.pages.data.values import number, numbers

CURVE_POINTS = 36


def chunk_data(pages: Sequence[NeuronPage]) -> dict[str, Any]:
    """What the pages of some neurons show, by number. Photographs that are no references are many neurons' together, so
    they stand once in ``shared``, and a neuron names their indices there."""
    shared: dict[tuple[str, ...], int] = {}

    def named(photos: Sequence[Photo]) -> list[list[Any]]:
        rows = []
        for photo in photos:
            file, key, score, label, credit, *more = _photo_data(photo)
            rows.append([shared.setdefault((file, key, label, credit), len(shared)), score, *more])
        return rows

    told: dict[str, Any] = {
        str(page.neuron): neuron_data(page) | {"across": named(page.across), "lowest": named(page.lowest)}
        for page in pages
    }
    return told | {"shared": list(shared)}


def neuron_data(page: NeuronPage) -> dict[str, Any]:
    """What a neuron's page shows beside its picture."""
    return {
        "seed": str(page.seed),
        "mask": page.alpha is not None,
        "loss": numbers(page.loss),
        "curves": [_curve_data(curve) for curve in page.curves],
        "sources": [
            [source.node, list(map(int, source.channels)), numbers(source.importance)] for source in page.sources
        ],
        "photos": [_photo_data(photo) for photo in page.photos],
        "across": [_photo_data(photo) for photo in page.across],
        "lowest": [_photo_data(photo) for photo in page.lowest],
        "maps": bool(page.maps_of),
        "trust": _trust_data(page.trust),
        "words": None if page.words is None else _words_data(page.words),
        **(_facet_data(page) if page.facets else {}),
    }


def _facet_data(page: NeuronPage) -> dict[str, Any]:
    """Of the first facet how many references it has and how far to trust it, of each further one its photographs,
    too."""
    further = [
        [facet.references, [_photo_data(photo) for photo in facet.photos], _trust_data(facet.trust)]
        for facet in page.facets
    ]
    return {"references": page.references, "first": _trust_data(page.trust_of_first), "facets": further}


def _trust_data(trust: TrustLine | None) -> list[Any] | None:
    return None if trust is None else [list(trust.findings), trust.text]


def _curve_data(curve: Curve) -> list[Any]:
    """Node, least and greatest value, and both rows as thousandths between them: half the bytes, and no less to see."""
    rows = [np.asarray(_thinned(row), np.float64) for row in (curve.target, curve.picture)]
    known = np.concatenate(rows)
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    span = high - low or 1.0
    shown = [
        [round(float(value)) if np.isfinite(value) else None for value in (row - low) / span * 999] for row in rows
    ]
    return [curve.node, number(low), number(high), *shown]


def _thinned(row: Float[np.ndarray, "level"]) -> Float[np.ndarray, "point"]:
    """At most `CURVE_POINTS` of a row's levels, the ends among them."""
    if len(row) <= CURVE_POINTS:
        return row
    kept: np.ndarray = row[np.linspace(0, len(row) - 1, CURVE_POINTS).round().astype(int)]
    return kept


def _words_data(words: Words) -> list[Any]:
    rows = [[word.text, number(word.score), number(word.chosen), number(word.precision)] for word in words.words]
    return [words.named, number(words.bound), rows, [_photo_data(photo) for photo in words.photos]]


def _photo_data(photo: Photo) -> list[Any]:
    box = None if photo.box is None else numbers(photo.box)
    level = [] if photo.above is None else [number(photo.above)]
    return [photo.file, photo.key, number(photo.score), photo.label, photo.credit, box, *level]
