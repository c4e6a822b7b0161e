"""A layer of an atlas as the pages show it: read chunk by chunk, so that a few dozen pictures are in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float

from flows.pages import again
from flows.pages.naming import LayerWords
from flows.pages.photographs.shown import NeuronPhotographs
from flows.pages.similarity import coordinates_of
from flows.steps.targets import origin_of
from stores import Atlas, AtlasLayer, Statistics, Targets
from stores.arrays.blocks import COUNT
from stores.arrays.display import as_shown, shown_in_words
from stores.atlas.origin import Origin
from stores.dataset.targets import TREND
from stores.errors import PICTURE_STATUS_MEANINGS
from stores.files import safe_url
from stores.pages.content import (
    TRUST,
    Column,
    Curve,
    FacetPage,
    LayerPage,
    NeuronPage,
    Sources,
    TrustLine,
    Words,
)
from vital.judging.metrics import curve_distance
from vital.judging.names import split_name
from vital.judging.readability import FEW
from vital.judging.trust.findings import LOOKED_AT, NOT_STEERED, STEERED, Trust, is_of_neuron, trust, trust_of_layer
from vital.network.probe import CLASSES

STRONGEST = 8
"""Channels of a node on a neuron's page."""
AT_ONCE = 4096
"""Neurons whose rows are in memory together."""


@dataclass(frozen=True, eq=False)
class LayerSource:
    """A layer of an atlas, and the statistics it was made from where they can be reached."""

    atlas: Atlas
    pictures: AtlasLayer
    store: str
    """URL of the statistics, as it is shown."""
    statistics: Statistics | None
    shown: Sequence[int] = ()
    """The channels that are shown, where nobody has asked for others."""
    class_names: Mapping[int, str] = field(default_factory=dict)
    """What the data set calls the network's classes, by their numbers."""

    @property
    def layer(self) -> str:
        """The layer's name, as the atlas has it."""
        return self.pictures.name

    @cached_property
    def variant(self) -> str:
        """The targets that the pictures were made for."""
        return self.pictures.variant

    @cached_property
    def targets(self) -> Targets | None:
        """The targets that the pictures were made for; None where the statistics cannot be reached."""
        return self.statistics.targets(self.layer, self.variant) if self.statistics is not None else None

    @cached_property
    def origin(self) -> Targets | Origin | None:
        """What these targets were made of, where it is kept."""
        return origin_of(self.statistics, self.pictures)

    @cached_property
    def made(self) -> list[int]:
        """Numbers of the neurons that have a picture, in ascending order: for all of the layer's pages the same."""
        return [int(neuron) for neuron in np.flatnonzero(self.pictures.made())]

    def page(self) -> LayerPage:
        """What the overview shows of the layer."""
        status, settings = self.pictures.status(), self.pictures.settings
        return LayerPage(
            self.layer,
            int(settings["side"]),
            status,
            {int(code): meaning for code, meaning in PICTURE_STATUS_MEANINGS.items()},
            names=self._names(len(status)),
            columns=self._columns(len(status)),
            coordinates=self._coordinates(len(status)),
            steps=int(settings.get("steps", 0)),
            facts=again.facts(self.atlas, self.pictures),
            commands=again.commands(safe_url(self.atlas.url), self.pictures, self.store, self.statistics),
            looked_at=self._looked_at,
            measuring="" if self._measured else again.measuring(safe_url(self.atlas.url), self.layer, self.statistics),
            shown=shown_in_words(self.shown, self.pictures.colours),
            named=self.words.said,
            whole=self.whole,
            matched=self._matched,
        )

    @property
    def whole(self) -> bool:
        """Whether pictures match whole images, and not the patch that excites the neuron most."""
        return self.variant.startswith("image")

    @property
    def _matched(self) -> Literal["", "references", "trend"]:
        """What pictures match: their neurons' references, the trend of these, or nothing."""
        settings, targets = self.pictures.settings, self.targets
        if settings.get("method", "vital") != "vital":
            return ""
        learnt = targets is not None and TREND in (targets.claimed or {})
        return "trend" if learnt and float(settings.get("emphasis", 0)) > 0 else "references"

    @cached_property
    def words(self) -> LayerWords:
        """The words that were found for its neurons."""
        return LayerWords(self.pictures.naming())

    def neurons(
        self,
        neurons: Sequence[int],
        photos: Mapping[int, NeuronPhotographs],
        words: Mapping[int, Words] | None = None,
        maps_of: str = "",
    ) -> list[NeuronPage]:
        """Pages of some neurons that have pictures; ``maps_of`` says what the maps of photographs are made of."""
        none = NeuronPhotographs((), (), (), (), {})
        several = [COUNT] if self.pictures.most_facets > 1 else []
        rows = self.pictures.rows(neurons, ("pixels", "alpha", "loss", "seed", *several))
        kept = self.pictures.reached(neurons)
        reached = [(node, *kept[node]) for node in self._in_order(kept)]
        sources, trusted = self._sources(neurons), self._trusted(neurons)
        facets = self._facets(neurons, photos)
        return [
            NeuronPage(
                neuron,
                as_shown(rows["pixels"][position], self.shown),
                alpha=None if (rows["alpha"][position] == 255).all() else rows["alpha"][position],
                loss=rows["loss"][position],
                seed=int(rows["seed"][position]),
                curves=[Curve(node, target[position], picture[position]) for node, picture, target in reached],
                sources=sources.get(neuron, []),
                photos=(seen := photos.get(neuron, none)).references,
                trust=trusted[position],
                references=int(rows[COUNT][position]) if COUNT in rows else 0,
                facets=facets.get(neuron, ()),
                words=(words or {}).get(neuron),
                across=seen.across,
                lowest=seen.lowest,
                maps_of=maps_of if seen.shown else "",
                trust_of_first=self._trusted_facet(neuron, 0) if neuron in facets else None,
            )
            for position, neuron in enumerate(neurons)
        ]

    def _facets(self, neurons: Sequence[int], photos: Mapping[int, NeuronPhotographs]) -> dict[int, list[FacetPage]]:
        """The facets of some neurons, after the first of each."""
        counts = self.pictures.facets(neurons)
        further = [(neuron, facet) for neuron, count in zip(neurons, counts, strict=True) for facet in range(1, count)]
        pages: dict[int, list[FacetPage]] = {}
        if not further:
            return pages
        several, numbers = zip(*further, strict=True)
        rows = self.pictures.rows(several, ("pixels", COUNT), numbers)
        for row, (neuron, facet) in enumerate(further):
            seen = photos[neuron].facets.get(facet, ()) if neuron in photos else ()
            pixels, trusted = as_shown(rows["pixels"][row], self.shown), self._trusted_facet(neuron, facet)
            pages.setdefault(neuron, []).append(FacetPage(pixels, int(rows[COUNT][row]), seen, trusted))
        return pages

    @cached_property
    def _metrics(self) -> Mapping[str, np.ndarray]:
        """Metrics of the neurons by name; other kinds of array that a program may have written are not shown."""
        count = self.pictures.count
        return {
            name: values.astype(np.float64)
            for name, values in sorted(self.pictures.metrics().items())
            if values.shape == (count,) and values.dtype.kind in "fiu"
        }

    @cached_property
    def _asked(self) -> bool:
        """Whether a judge was asked, so that what is not known now cannot be."""
        return bool(self.pictures.judged_by)

    @property
    def _measured(self) -> bool:
        """Whether another evaluation would add nothing: a judge was asked about every picture."""
        known = [np.isfinite(values) for values in self._metrics.values()]
        return self._asked and bool(np.any(known, 0)[self.made].all())

    @property
    def _looked_at(self) -> tuple[str, ...]:
        """The things that trust in a picture follows from."""
        return (*LOOKED_AT, *((NOT_STEERED,) if STEERED in self._metrics else ()))

    def _trusted(self, neurons: Sequence[int]) -> list[TrustLine | None]:
        return [_line(one) for one in trust_of_layer(self._metrics, neurons, self._asked)]

    def _trusted_facet(self, neuron: int, facet: int) -> TrustLine | None:
        """How far one picture of several can be trusted; what is of the neuron's photographs is of all of them."""
        own = {name: float(values[neuron, facet]) for name, values in self._facet_metrics.items()}
        all_ = {name: float(values[neuron]) for name, values in self._metrics.items() if is_of_neuron(name)}
        return _line(trust({**all_, **own}, self._asked))

    @cached_property
    def _facet_metrics(self) -> Mapping[str, np.ndarray]:
        return self.pictures.facet_metrics()

    def _in_order(self, nodes: Collection[str]) -> list[str]:
        """Nodes in the order in which they run where the statistics tell."""
        known = list(self.targets.nodes) if self.targets is not None else []
        return sorted(nodes, key=lambda node: (known.index(node) if node in known else len(known), node))

    def _sources(self, neurons: Sequence[int]) -> dict[int, list[Sources]]:
        if self.origin is None:
            return {}
        sources: dict[int, list[Sources]] = {neuron: [] for neuron in neurons}
        first, last = min(neurons), max(neurons)
        for node in reversed(self.origin.nodes):
            rows = self.origin.importance(node, range(first, last + 1))
            if rows is None:
                continue
            for neuron in neurons:
                row = rows[neuron - first]
                order = np.argsort(-row, kind="stable")[:STRONGEST]
                order = order[row[order] > 0]
                if len(order):
                    sources[neuron].append(Sources(node, order.tolist(), row[order].tolist()))
        return sources

    def _names(self, count: int) -> list[str]:
        if len(self.pictures.names) == count:
            return self.pictures.names
        named = self.class_names if self.layer == CLASSES else {}
        return [named.get(number, f"class {number}") for number in range(count)] if named else []

    def _columns(self, count: int) -> list[Column]:
        columns = []
        made = self.made
        parts = [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
        lines = (
            line for start in range(0, len(made), AT_ONCE) for line in self._trusted(made[start : start + AT_ONCE])
        )
        levels = np.full(count, np.nan)
        levels[made] = [np.nan if line is None else line.level for line in lines]
        if not np.isnan(levels).all():
            things = self._looked_at
            columns.append(Column(TRUST, f"how many hold of {', '.join(things)}: {len(things)} is best", levels))
        loss = np.asarray(self.pictures.rows(range(count), ["loss"])["loss"], np.float64)
        columns.append(Column("loss", "loss at the last step", loss[:, -1]))
        if self.pictures.most_facets > 1:
            facets = self.pictures.facets().astype(np.float64)
            columns.append(Column("facets", "groups that its references fall into, each with a picture", facets))
        distances = [curve_distance(self.pictures.reached(part)) for part in parts]
        known = [distance for distance in distances if distance is not None]
        if known and len(known) == len(parts):
            meaning = "how far the picture's rows are from the target's, of the target's length"
            columns.append(Column("distance", meaning, np.concatenate(known)))
        if self.statistics is not None and self.statistics.was_measured(self.layer):
            for key, name in (("active", "activation frequency"), ("peak_mean", "mean peak")):
                kept = self.statistics.statistic(self.layer, key)
                if kept.shape == (count,):
                    columns.append(Column(name, self.statistics.meaning(self.layer, key), kept.astype(np.float64)))
        for name, values in self._metrics.items():
            if split_name(name)[0] in FEW:  # of one neuron mostly chance: a report has their mean
                continue
            meaning, units = self.pictures.metric_meaning(name)
            columns.append(Column(name, meaning, values, units))
        return [*columns, *self.words.columns()]

    def _coordinates(self, count: int) -> Float[np.ndarray, "neuron 2"] | None:
        if self.origin is None or (isinstance(self.origin, Targets) and not self.origin.done().any()):
            return None
        made = self.made
        coordinates = coordinates_of(self.origin, made)
        if coordinates is None:
            return None
        everywhere = np.zeros((count, 2))
        everywhere[made] = coordinates
        return everywhere


def _line(told: Trust) -> TrustLine | None:
    return TrustLine([finding.holds for finding in told.findings], told.sentence) if told.known else None
