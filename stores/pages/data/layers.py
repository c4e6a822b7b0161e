"""What the pages are told of a layer: a little that is read first, whatever the layer's size, and parts by need."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from stores.pages.content import LayerPage
from stores.pages.data.search import text_index
from stores.pages.data.values import in_order, in_parts, number, numbers, packed
from stores.pages.sheets import PER_SHEET

MADE = 1
"""The status of a neuron that has a picture."""
WORDS = ("names", "labels")
"""What can be searched by words, each in numbered parts."""
PHOTOGRAPHS = "photographs"
"""What can be searched by the beginning of a key, in numbered parts."""


def layer_files(page: LayerPage) -> Iterator[tuple[str, Any]]:
    """All that is told of a layer by the name of its part: first ``layer``, which says what else there is.

    ``captions-N`` has the names of the neurons of sheet N, which the wall shows, ``values-N`` what was measured of
    them, which their own pages show; ``column-I`` has one value of all neurons, ``name-order`` their order by name,
    ``coordinates`` by which similar ones are near each other, ``status`` why there is no picture of some, and
    ``INDEX-N`` a part of an index.
    """
    made = np.flatnonzero(page.status == MADE)
    columns = [numbers(column.values[made]) for column in page.columns]
    named = len(page.names) == len(page.status)
    names = [str(page.names[neuron]) for neuron in made.tolist()] if named else []
    indexes = dict(zip(WORDS, map(in_parts, _by_words(page, made, names)), strict=True))
    indexes[PHOTOGRAPHS], begins = in_order(
        [(photo.key, [photo.file, photo.label, list(map(int, neurons))]) for photo, neurons in page.photographs]
    )
    told = {"indexes": {name: len(parts) for name, parts in indexes.items()}, "begins": begins}
    yield "layer", _first(page, made, columns, named) | told
    for name, parts in indexes.items():
        yield from ((f"{name}-{index}", part) for index, part in enumerate(parts))
    if len(made) < len(page.status):
        yield "status", "".join(str(min(int(code), 9)) for code in page.status)
    if page.coordinates is not None:
        yield "coordinates", [packed(np.round(row * 9999), "u2") for row in page.coordinates.T]
    if named:
        order = sorted(range(len(made)), key=lambda row: (not names[row], names[row].casefold(), row))
        yield "name-order", packed(made[order], "u4")
    for index, values in enumerate(columns):
        whole = np.full(len(page.status), np.nan)
        whole[made] = [np.nan if value is None else value for value in values]
        yield f"column-{index}", packed(whole, "f4")
    if named:
        yield from _by_sheet("captions", made, names)
    if columns:
        yield from _by_sheet("values", made, [list(values) for values in zip(*columns, strict=True)])


def _first(
    page: LayerPage,
    made: Int[np.ndarray, "picture"],
    columns: list[list[float | int | None]],
    named: bool,
) -> dict[str, Any]:
    reasons, counts = np.unique(page.status[page.status != MADE], return_counts=True)
    every = len(made) == len(page.status)
    return {
        "name": page.name,
        "side": page.side,
        "steps": page.steps,
        "count": len(page.status),
        "made": None if every else packed(np.packbits(page.status == MADE, bitorder="little"), "u1"),
        "meanings": {str(code): text for code, text in page.meanings.items()},
        "missing": [[int(code), int(count)] for code, count in zip(reasons, counts, strict=True)],
        "named": page.named,
        "shown": page.shown,
        "whole": page.whole,
        "matched": page.matched,
        "names": named,
        "coordinates": page.coordinates is not None,
        "columns": [
            {"name": column.name, "meaning": column.meaning, "units": column.units, "ends": _ends(values)}
            for column, values in zip(page.columns, columns, strict=True)
        ],
        "facts": list(page.facts.items()),
        "commands": list(page.commands),
        "lookedAt": list(page.looked_at),
        "measuring": page.measuring,
    }


def _ends(values: list[float | int | None]) -> list[float | int | None] | None:
    """The least and the greatest value; None where none is known."""
    known = [value for value in values if value is not None]
    return [number(min(known)), number(max(known))] if known else None


def _by_words(page: LayerPage, made: Int[np.ndarray, "picture"], names: list[str]) -> Iterator[list[tuple[str, Any]]]:
    """In the order of `WORDS`."""
    yield text_index((name, int(neuron), 1) for name, neuron in zip(names, made, strict=bool(names)) if name)
    yield text_index(((label, neuron, count) for label, neuron, count in page.labels), weighed=True)


def _by_sheet(name: str, made: Int[np.ndarray, "picture"], told: Sequence[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is told of each neuron, as their pictures stand in sheets; of empty texts nothing."""
    for sheet in np.unique(made // PER_SHEET).tolist():
        first, last = np.searchsorted(made, [sheet * PER_SHEET, (sheet + 1) * PER_SHEET]).tolist()
        neurons = made[first:last].tolist()
        yield f"{name}-{sheet}", {str(one): told[row] for row, one in enumerate(neurons, first) if told[row] != ""}
