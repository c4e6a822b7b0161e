"""What the pages show, as plain data: an atlas, its layers, their neurons. Texts may be anything; they are escaped when
they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8


@dataclass(frozen=True)
class Photo:
    """A reference photograph of a neuron.

    ``file`` is its name in the site without folder and ending; photographs of one name are the same and are written
    once. ``box`` is the patch as (top, left, height, width), fractions of the photograph as the network saw it, or
    None where the neuron sees all of it or has no site. ``score`` is the neuron's activation, NaN where not
    known. ``above`` is the share of the data set's images, from 0 to 1, that excite the neuron less, where asked.
    """

    file: str
    key: str
    score: float
    label: str = ""
    credit: str = ""
    box: tuple[float, float, float, float] | None = None
    above: float | None = None


@dataclass(frozen=True)
class Curve:
    """A node's sorted row, of the target and of the picture, from the smallest to the greatest."""

    node: str
    target: Float[np.ndarray, "level"]
    picture: Float[np.ndarray, "level"]


@dataclass(frozen=True)
class Sources:
    """The channels of an earlier node that matter most to a neuron, most important first, and how much each does, 0
    to 1."""

    node: str
    channels: Sequence[int]
    importance: Sequence[float]


@dataclass(frozen=True)
class FacetPage:
    """A further facet of a neuron: its picture, photographs of its ``references``, and how far this picture by itself
    can be trusted."""

    pixels: UInt8[np.ndarray, "side side colour"]
    references: int
    photos: Sequence[Photo] = ()
    trust: TrustLine | None = None


@dataclass(frozen=True)
class TrustLine:
    """How far a picture can be trusted: whether each of the things that are looked at holds, None where that is not
    known, and a sentence that says so."""

    findings: Sequence[bool | None]
    text: str

    @property
    def level(self) -> int:
        """How many of the findings hold, from 0 to as many as there are; what is not known does not."""
        return sum(holds is True for holds in self.findings)


@dataclass(frozen=True)
class Word:
    """A word for a neuron. ``score`` is the correlation of its scores with the neuron's activations over images that
    had no part in its choice, ``chosen`` that over those that had; ``precision`` how well it finds the strongest."""

    text: str
    score: float
    chosen: float
    precision: float


@dataclass(frozen=True)
class Words:
    """Words for a neuron, the best first, which is its name where it is ``named``: where it scores more than
    ``bound``, which chance reaches. ``photos`` excite it most of those that scored; their score is the first word's."""

    words: Sequence[Word]
    named: bool
    bound: float
    photos: Sequence[Photo] = ()


@dataclass(frozen=True)
class NeuronPage:
    """What the pages show of one neuron. ``alpha`` is its picture's opacity, or None for an opaque picture; ``loss``
    runs from the first step to the last; ``trust`` is None where nothing of it was measured, ``words`` where none were
    looked for.

    ``photos`` are its references, ``across`` are photographs from its strongest to its weakest, ``lowest`` those of its
    least activation. ``maps_of`` tells what the maps of these and of its facets' photographs are made of, and is empty
    where there are none."""

    neuron: int
    pixels: UInt8[np.ndarray, "side side colour"]
    alpha: UInt8[np.ndarray, "side side"] | None = None
    loss: Float32[np.ndarray, "record"] = field(default_factory=lambda: np.empty(0, np.float32))
    seed: int = 0
    curves: Sequence[Curve] = ()
    sources: Sequence[Sources] = ()
    photos: Sequence[Photo] = ()
    trust: TrustLine | None = None
    references: int = 0
    """Of its first facet, where it has further ones."""
    facets: Sequence[FacetPage] = ()
    """Those after the first, whose picture and photographs are the neuron's own."""
    words: Words | None = None
    across: Sequence[Photo] = ()
    lowest: Sequence[Photo] = ()
    maps_of: str = ""
    trust_of_first: TrustLine | None = None
    """Of the first facet's picture by itself, where it has further ones: ``trust`` is of all of them."""

    @property
    def every_photo(self) -> list[Photo]:
        """All photographs: first those that may have maps, in the order of these, then those of words."""
        others = [photo for facet in self.facets for photo in facet.photos]
        if self.words is not None:
            others += self.words.photos
        return [*self.photos, *self.across, *self.lowest, *others]


TRUST = "trust"
"""Name of the column that has each neuron's `TrustLine.level`."""


@dataclass(frozen=True)
class Column:
    """A number for every neuron of a layer, to order and to filter by; NaN where unknown."""

    name: str
    meaning: str
    values: Float[np.ndarray, "neuron"]
    units: str = ""


@dataclass(frozen=True)
class LayerPage:
    """A layer of an atlas. Arrays and names have a row for every neuron of the network's layer.

    ``status`` is a code by neuron, 1 where there is a picture, and ``meanings`` says what the others mean.
    ``coordinates`` are two, 0 to 1, in which neurons with like targets lie close, or None. ``facts`` and ``commands``
    say how to make the pictures again; ``{neuron}`` in a command stands for the neuron's number. ``looked_at`` are the
    things that trust in a picture follows from, and ``measuring`` is the command that looks at them all.
    ``photographs`` are those that lead to neurons, each with the neurons that it excites; which it excites most come
    first. ``labels`` are texts that stand on references, each with a neuron and on how many of its references.
    """

    name: str
    side: int
    status: UInt8[np.ndarray, "neuron"]
    meanings: Mapping[int, str]
    names: Sequence[str] = ()
    columns: Sequence[Column] = ()
    coordinates: Float[np.ndarray, "neuron 2"] | None = None
    steps: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    looked_at: Sequence[str] = ()
    measuring: str = ""
    shown: str = ""
    """Which channels of the pictures are shown, and how; empty where they are colours."""
    named: str = ""
    """What words for the neurons were found by; empty where none were looked for."""
    whole: bool = False
    """Whether pictures match whole images; else the patches that photographs have."""
    matched: Literal["", "references", "trend"] = ""
    """What pictures match: what a neuron's references have; their trend, what goes with its activation in images of
    every strength; or nothing, as those of a method that activates the neuron alone."""
    photographs: Sequence[tuple[Photo, Sequence[int]]] = ()
    labels: Iterable[tuple[str, int, int]] = ()


@dataclass(frozen=True)
class AtlasPage:
    """An atlas of the site: a short title, its store's URL, and what it was made from."""

    title: str
    url: str
    facts: Mapping[str, str] = field(default_factory=dict)
