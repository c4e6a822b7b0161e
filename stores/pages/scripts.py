"""What the pages' scripts are told of a layer and its neurons: plain values, written as scripts.

Scripts, since pages that are opened from a disk may not fetch data.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from stores.pages.content import Curve, LayerPage, NeuronPage, Photo, Words

MADE = 1
"""The status of a neuron that has a picture."""
CURVE_POINTS = 36
PER_FILE = 4096
"""Photographs of a file that says which neurons they excite."""


def layer_data(page: LayerPage, made: Int[np.ndarray, "picture"]) -> dict[str, Any]:
    """What the overview of a layer needs; ``made`` are the neurons that have pictures."""
    reasons, counts = np.unique(page.status[page.status != MADE], return_counts=True)
    places = None if page.places is None else np.round(page.places[made] * 9999).astype(int)
    return {
        "name": page.name,
        "side": page.side,
        "steps": page.steps,
        "status": "".join(str(min(int(code), 9)) for code in page.status),
        "meanings": {str(code): text for code, text in page.meanings.items()},
        "missing": [[int(code), int(count)] for code, count in zip(reasons, counts, strict=True)],
        "made": made.tolist(),
        "named": page.named,
        "shown": page.shown,
        "names": [str(page.names[neuron]) for neuron in made] if len(page.names) == len(page.status) else None,
        "places": None if places is None else [places[:, 0].tolist(), places[:, 1].tolist()],
        "columns": [
            {
                "name": column.name,
                "meaning": column.meaning,
                "units": column.units,
                "values": numbers(column.values[made]),
            }
            for column in page.columns
        ],
        "facts": list(page.facts.items()),
        "commands": list(page.commands),
        "lookedAt": list(page.looked_at),
        "measuring": page.measuring,
        "photographs": -(-len(page.photographs) // PER_FILE),
    }


def photograph_files(page: LayerPage) -> list[dict[str, list[int]]]:
    """The neurons by a photograph's key in as many parts as it takes, each key in the part that `part_of` names."""
    parts: list[dict[str, list[int]]] = [{} for _ in range(-(-len(page.photographs) // PER_FILE))]
    for key, neurons in page.photographs.items():
        parts[part_of(key, len(parts))][key] = [int(neuron) for neuron in neurons]
    return parts


def part_of(key: str, parts: int) -> int:
    """A number below ``parts`` that follows from a key alone; the pages' own script computes it too.

    >>> part_of("a", 7), part_of("ab", 1000)
    (6, 105)
    """
    units = np.frombuffer(key.encode("utf-16-le", "surrogatepass"), "<u2")
    total = 0
    for unit in units.tolist():
        total = (total * 31 + unit) % 1_000_003
    return total % parts


def chunk_data(pages: Sequence[NeuronPage]) -> dict[str, Any]:
    """What the pages of some neurons show, by number. Photographs that are no references are many neurons' together, so
    they stand once in ``shared``, and a neuron names their places there."""
    shared: dict[tuple[str, ...], int] = {}

    def named(photos: Sequence[Photo]) -> list[list[Any]]:
        rows = []
        for photo in photos:
            file, key, score, label, credit, *more = _photo_data(photo)
            rows.append([shared.setdefault((file, key, label, credit), len(shared)), score, *more])
        return rows

    found: dict[str, Any] = {
        str(page.neuron): neuron_data(page) | {"across": named(page.across), "lowest": named(page.lowest)}
        for page in pages
    }
    return found | {"shared": list(shared)}


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
        "trust": None if page.trust is None else [list(page.trust.findings), page.trust.text],
        "words": None if page.words is None else _words_data(page.words),
        **(_facet_data(page) if page.facets else {}),
    }


def _facet_data(page: NeuronPage) -> dict[str, Any]:
    """Of the first facet how many references it has, of each further one that and its photographs."""
    further = [[facet.references, [_photo_data(photo) for photo in facet.photos]] for facet in page.facets]
    return {"references": page.references, "facets": further}


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


_UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def script(key: str, value: Any) -> bytes:
    """A script that hands ``value`` to the page under ``key``; nothing in it can end a script or begin a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"VITAL.put({json.dumps(key)},{text});\n".translate(_UNSAFE).encode("ascii")


def number(value: float) -> float | int | None:
    """Four significant digits, which is more than a plot shows; None where the value is unknown.

    >>> number(0.123456), number(float("nan")), number(2.0)
    (0.1235, None, 2)
    """
    value = float(value)
    if not math.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def numbers(values: Any) -> list[float | int | None]:
    """`number` of each."""
    return [number(value) for value in np.asarray(values, np.float64).ravel()]
