"""What neurons see in photographs, as a value: it prints as a table, goes into JSON, and shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from rich.cells import cell_len, set_cell_size

from stores.arrays.display import image_html
from vital.errors import in_line

ORDER = "share of the data set's sampled images with a lesser peak, then standard deviations above their mean"
"""By what the neurons of a photograph are put in order."""
SHOWN, SHOWN_NEURONS, SHOWN_SIDE = 8, 6, 112
"""Photographs and neurons of each that a notebook shows, and how large."""
DIMMED = 0.2
"""Brightness of a photograph where a neuron sees nothing."""
ACTIVATION = "activation"
"""What a map is of where it is the layer's own."""
HEADS = ("neuron", "name", "facet", "higher than", "deviations", "activation", "strongest at")


@dataclass(frozen=True, eq=False)
class Sight:
    """What one neuron sees in one photograph."""

    layer: str
    neuron: int
    name: str
    activation: float
    """The greatest of its map, as references are ranked by."""
    share: float
    """Of the images that the data set's sample holds, those with a lesser peak: 0 to 1."""
    deviations: float
    """How far the peak is above the sample's mean, in the neuron's standard deviations over the sample."""
    box: tuple[int, int, int, int]
    """The patch around its strongest site, as of a reference: top, left, height, width in pixels of the crop."""
    map: Float[np.ndarray, "row column"] | None
    """Its activations over the crop; of a neuron with a single site, the relevance of an earlier layer's sites. None
    where there is no such layer, or none whose relevance is known."""
    of: str = ACTIVATION
    """What the map is of: ``activation``, or ``relevance at LAYER``."""
    picture: UInt8[np.ndarray, "_side _side colour"] | None = None
    """The atlas's picture of the neuron, of the facet that sees the photograph; of the first if that is unknown."""
    facet: int | None = None
    """Which of the neuron's facets sees the photograph; None where it has one, or nothing reaches it."""
    facets: int = 1
    """How many it has in the atlas."""

    @property
    def title(self) -> str:
        """The neuron as it is asked for, ``LAYER:NUMBER``, and its name."""
        return f"{self.layer}:{self.neuron} {self.name}"

    @property
    def site(self) -> tuple[int, int] | None:
        """Row and column of the map's greatest site; None where there is no map, or all its sites are the same."""
        if self.map is None or self.map.min() == self.map.max():
            return None
        row, column = divmod(int(self.map.argmax()), self.map.shape[1])
        return row, column

    def cells(self) -> tuple[str, ...]:
        """What a table says of it, under `HEADS`."""
        where = "" if self.map is None else "nowhere"
        if self.map is not None and self.site is not None:
            where = f"row {self.site[0]}, column {self.site[1]} of {self.map.shape[0]} × {self.map.shape[1]}"
            where += "" if self.of == ACTIVATION else f" by {self.of}"
        numbers = f"{100 * self.share:.1f} %", f"{self.deviations:+.1f}", f"{self.activation:.4g}"
        return in_line(f"{self.layer}:{self.neuron}"), in_line(self.name), self.of_facets, *numbers, where

    @property
    def of_facets(self) -> str:
        """Which of its facets, in words; empty where it has one."""
        if self.facets == 1:
            return ""
        return f"{'none' if self.facet is None else self.facet} of 0 to {self.facets - 1}"

    def as_json(self, page: str | None = None) -> dict[str, Any]:
        """All but the picture, as plain values; a number that is none is null. ``page`` is the address of its own."""
        return {
            "layer": self.layer,
            "neuron": self.neuron,
            "name": self.name,
            "facet": self.facet,
            "facets": self.facets,
            "page": page,
            "activation": _number(self.activation),
            "percentile": _number(100 * self.share),
            "deviations": _number(self.deviations),
            "box": list(self.box),
            "map_of": None if self.map is None else self.of,
            "map": None if self.map is None else [[_number(value) for value in row] for row in self.map.tolist()],
        }


@dataclass(frozen=True, eq=False)
class Seen:
    """A photograph as the network gets it, and the neurons that see something in it, the strongest first."""

    name: str
    pixels: UInt8[np.ndarray, "side side colour"]
    sights: tuple[Sight, ...]

    @property
    def title(self) -> str:
        """The file's name without its folders."""
        return PurePath(self.name).name or self.name


@dataclass(frozen=True, eq=False)
class Look:
    """Some photographs seen by an atlas's neurons; ``look[0].sights[0]`` is the first photograph's strongest neuron."""

    atlas: str
    """Where the atlas is, without credentials."""
    sampled: Mapping[str, int]
    """By layer the images of the data set that a percentile is out of."""
    photographs: tuple[Seen, ...]

    def __len__(self) -> int:
        return len(self.photographs)

    def __iter__(self) -> Iterator[Seen]:
        return iter(self.photographs)

    def __getitem__(self, number: int) -> Seen:
        return self.photographs[number]

    def lines(self) -> Iterator[str]:
        """A table for each photograph; columns that say nothing are left out."""
        rows = {seen: [sight.cells() for sight in seen.sights] for seen in self}
        used = [head for head in range(len(HEADS)) if any(row[head] for part in rows.values() for row in part)]
        lines = [HEADS, *(row for part in rows.values() for row in part)]
        wide = [max(cell_len(line[head]) for line in lines) for head in used]
        for seen, cells in rows.items():
            yield in_line(seen.name)
            for row in (HEADS, *cells):
                parts = (_set(row[head], width, head) for head, width in zip(used, wide, strict=True))
                yield f"  {'  '.join(parts)}".rstrip()
        yield f"in the order of the {self.basis}"

    @property
    def basis(self) -> str:
        """What the percentiles are out of, as a sentence."""
        counts = ", ".join(f"{count} for {layer}" for layer, count in self.sampled.items())
        return f"{ORDER}; images sampled: {counts}"

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def as_json(self, links: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Everything but pixels, as plain values. ``links`` are where a layer's neurons have their pages."""

        def page(sight: Sight) -> str | None:
            link = (links or {}).get(sight.layer)
            return f"{link}/{sight.neuron}" if link and sight.picture is not None else None

        return {
            "atlas": self.atlas,
            "order": ORDER,
            "sampled": dict(self.sampled),
            "photographs": [
                {"photograph": seen.name, "neurons": [sight.as_json(page(sight)) for sight in seen.sights]}
                for seen in self
            ],
        }

    def _repr_html_(self) -> str:
        parts = [_row_html(seen) for seen in self.photographs[:SHOWN]]
        more = len(self) - len(parts)
        rest = f"<p>and {more} more photographs</p>" if more > 0 else ""
        return f"{''.join(parts)}{rest}<p>In the order of the {escape(self.basis)}.</p>"


def overlaid(
    pixels: UInt8[np.ndarray, "side side colour"], map_: Float[np.ndarray, "row column"]
) -> UInt8[np.ndarray, "side side colour"]:
    """A photograph that is dark where a map is low, and as it was at the map's greatest site. What is negative counts
    as nothing where anything is positive."""
    values = np.nan_to_num(np.asarray(map_, np.float32), posinf=0.0, neginf=0.0)
    low = 0.0 if values.max() > 0 else float(values.min())
    share = (values - low).clip(0) / max(float(values.max()) - low, np.finfo(np.float32).tiny)
    wide = Image.fromarray(share.astype(np.float32)).resize(pixels.shape[1::-1], Image.Resampling.BILINEAR)
    light = DIMMED + (1 - DIMMED) * np.asarray(wide).clip(0, 1)
    made: np.ndarray = np.round(pixels * light[..., None]).astype(np.uint8)
    return made


def _row_html(seen: Seen) -> str:
    figures = [f"<td>{image_html(seen.pixels, SHOWN_SIDE, seen.name)}<br>{escape(seen.title)}</td>"]
    for sight in seen.sights[:SHOWN_NEURONS]:
        images = [] if sight.picture is None else [sight.picture]
        images += [] if sight.map is None else [overlaid(seen.pixels, sight.map)]
        drawn = "".join(image_html(image, SHOWN_SIDE, sight.title) for image in images)
        facet = f", facet {sight.of_facets}" if sight.of_facets else ""
        deviations = f"{sight.deviations:+.1f}".replace("-", "−")
        says = f"{escape(sight.title)}{facet}<br>higher than {100 * sight.share:.1f} %, {deviations} deviations"
        figures.append(f"<td>{drawn}<br>{says}</td>")
    return f"<table><tr>{''.join(figures)}</tr></table>"


def _set(text: str, width: int, head: int) -> str:
    if HEADS[head] in ("higher than", "deviations", "activation"):
        return text.rjust(width)
    return set_cell_size(text, width)


def _number(value: float) -> float | None:
    """Five significant digits: JSON has no NaN."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
