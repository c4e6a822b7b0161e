"""All that one pass over images gathers: rankings, samples, sums, class members, spectrum and colours; mergeable with
``+``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Num, Shaped
from torch import Tensor

from vital.measuring.image_sums import ImageSums, ImageTotal
from vital.measuring.kept.ranking import Ranker, Ranking
from vital.measuring.kept.sampling import Sample, Sampler, sample_size, unit_hash
from vital.measuring.rows import stored_levels
from vital.measuring.sums import LayerSums, LayerTotal
from vital.network.arithmetic import arithmetic, rounding, widened
from vital.network.layers import Layer, Survey
from vital.network.models import Model
from vital.network.probe import CLASSES, anchor, probe
from vital.settings import Precision

LOWEST = "/lowest"
"""Ends the name of a ranking by the least activation instead of the greatest, as in ``layer4.2/lowest``."""


def ranked_layer(name: str) -> str:
    """The layer that a ranking is of."""
    return name.removesuffix(LOWEST)


@dataclass(frozen=True)
class Plan:
    """What is gathered: ``ranked`` layers get rankings (the layer of classes: members by label; ``LAYER/lowest``: by
    the negated least activation) and samples, ``measured`` ones sums; those of sites and directions, which are never
    matched, have no rows."""

    ranked: tuple[str, ...]
    measured: tuple[str, ...]
    ranks: int
    levels: int
    precision: Precision = "float32"
    """Arithmetic of the network; what it gives is ranked and summed in single precision at least."""
    queries: int = 0
    """Ranks beyond ``ranks``: images that no picture is made from, to ask what it tells of them."""
    sample: int = 0
    """Images drawn by lot, on which every neuron's peak is kept, as far as `sample_size` allows."""

    @property
    def sampled(self) -> tuple[str, ...]:
        """The layers that get a sample."""
        return tuple(name for name in self.ranked if not name.endswith(LOWEST)) if self.sample else ()


def levels_of(layer: Layer, levels: int) -> Float[np.ndarray, "level"]:
    """The levels at which a layer's sorted rows are kept; none for sites and directions of another one."""
    return stored_levels(layer.sites, levels) if layer.readout is None else np.empty(0)


@dataclass(frozen=True)
class Gathered:
    """What is known of a set of images. ``a + b`` joins disjoint sets; `Gathered.none` is the identity."""

    rankings: Mapping[str, Ranking]
    sums: Mapping[str, LayerSums]
    image_sums: ImageSums
    samples: Mapping[str, Sample] = field(default_factory=dict)

    @classmethod
    def none(cls, plan: Plan, survey: Survey, side: int, colours: int = 3) -> Gathered:
        """What is known of no image: the identity of ``+``."""
        measured = {name: survey.layer(name) for name in plan.measured}
        neurons, ranks = {name: survey.layer(ranked_layer(name)).channels for name in plan.ranked}, plan.ranks
        return cls(
            {name: Ranking.none(count, ranks + plan.queries) for name, count in neurons.items()},
            {
                name: LayerSums.none(layer.channels, len(levels_of(layer, plan.levels)))
                for name, layer in measured.items()
            },
            ImageSums.none(side, colours),
            {name: Sample.none(neurons[name], sample_size(neurons[name], plan.sample)) for name in plan.sampled},
        )

    def __add__(self, other: Gathered) -> Gathered:
        return Gathered(
            {name: ranking + other.rankings[name] for name, ranking in self.rankings.items()},
            {name: sums + other.sums[name] for name, sums in self.sums.items()},
            self.image_sums + other.image_sums,
            {name: sample + other.samples[name] for name, sample in self.samples.items()},
        )

    def shifted(self, by: int) -> Gathered:
        """All of it with ``by`` added to the image ids: from a shard's own rows to the data set's."""
        rankings = {name: ranking.shifted(by) for name, ranking in self.rankings.items()}
        samples = {name: sample.shifted(by) for name, sample in self.samples.items()}
        return replace(self, rankings=rankings, samples=samples)

    def arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Everything as named arrays, for storage; `from_arrays` is the inverse."""
        parts: dict[str, Any] = {"light": self.image_sums}
        parts |= {f"rankings/{name}": ranking for name, ranking in self.rankings.items()}
        parts |= {f"sums/{name}": sums for name, sums in self.sums.items()}
        parts |= {f"sample/{name}": sample for name, sample in self.samples.items()}
        return {
            f"{path}/{part.name}": np.asarray(getattr(value, part.name))
            for path, value in parts.items()
            for part in fields(value)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> Gathered:
        """The inverse of `arrays`: named arrays from storage as what is known of their images."""
        parts: dict[str, dict[str, Any]] = {}
        for path, array in arrays.items():
            owner, _, name = path.rpartition("/")
            parts.setdefault(owner, {})[name] = int(array) if array.ndim == 0 else array

        def of(kind: str, make: Any) -> dict[str, Any]:
            return {
                owner.removeprefix(f"{kind}/"): make(**values)
                for owner, values in parts.items()
                if owner.startswith(f"{kind}/")
            }

        image_sums = ImageSums(**parts["light"])
        return cls(of("rankings", Ranking), of("sums", LayerSums), image_sums, of("sample", Sample))


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of a data set that go through the network together."""

    pixels: Num[Tensor, "image colour side side"]
    rows: Int[np.ndarray, "image"]
    """Their ids."""
    labels: Int[np.ndarray, "image"]
    """Their classes, −1 where unknown."""
    keys: Sequence[str]


class Gathering:
    """What a pass gathers while it goes on. Sums stay on the network's device until they are asked for. Of the maps
    only every neuron's peak, and the site of it, leaves the device with each batch.
    """

    def __init__(self, model: Model, survey: Survey, plan: Plan) -> None:
        self._model, self._survey, self._plan = model, survey, plan
        self._device = anchor(model.network).device
        ranked = (ranked_layer(name) for name in plan.ranked if name != CLASSES)
        # classes are ranked by their labels alone: for the peaks of a sample the network runs
        self._layers = {name: survey.layer(name) for name in dict.fromkeys((*plan.measured, *ranked, *plan.sampled))}
        self._inner = tuple(dict.fromkeys(layer.reads.layer for layer in self._layers.values()))
        self._sums = {
            name: LayerTotal(layer.channels, len(levels_of(layer, plan.levels)), self._device)
            for name, layer in self._layers.items()
            if name in plan.measured
        }
        self._images = ImageTotal(model.preprocessing.side, self._device, model.preprocessing.colours)
        self._rankers = {
            name: Ranker(survey.layer(ranked_layer(name)).channels, plan.ranks + plan.queries)
            for name in plan.ranked
            if name != CLASSES
        }
        channels = {name: survey.layer(name).channels for name in plan.sampled}
        self._samplers = {name: Sampler(count, sample_size(count, plan.sample)) for name, count in channels.items()}
        self._seen: list[tuple[Int[np.ndarray, "image"], Int[np.ndarray, "image"], Sequence[str]]] = []
        self._behind: tuple[torch.cuda.Event, _BatchPeaks] | None = None

    def add(self, images: Batch) -> None:
        """Add a batch of images: one forward pass to the deepest layer of the plan. Ids ascend from batch to batch.

        A neuron's score on an image is the maximum of its map, at the first such site; a class token is no site to
        rank. After an error, such as of memory, what was gathered is of no use.
        """
        pixels = images.pixels.to(self._device, non_blocking=True)
        with arithmetic(self._model, self._plan.precision) as used, torch.inference_mode():
            activations = self._activations(used, pixels)
            # of many directions the dearest: once
            maps = {name: layer.reads.maps(activations[layer.reads.layer]) for name, layer in self._layers.items()}
            peaks = {name: self._peaks(name, maps) for name in (*self._rankers, *self._samplers.keys() - self._rankers)}
            copied = torch.cuda.current_stream(self._device).record_event() if pixels.is_cuda else None
            for name, sums in self._sums.items():
                sums.add(maps[name], self._plan.levels if self._layers[name].readout is None else 0)
            with rounding():  # whatever the network may round
                self._images.add(pixels)
        self._seen.append((images.rows, images.labels, images.keys))
        self._catch_up()
        draws = [unit_hash(key) for key in images.keys] if self._samplers else []
        batch = _BatchPeaks(peaks, images.rows, np.array(draws, np.float64))
        if copied is None:
            self._keep(batch)
        else:
            self._behind = copied, batch

    def _activations(self, used: Model, pixels: Num[Tensor, "image colour side side"]) -> dict[str, Tensor]:
        if not self._inner:
            return {}
        with probe(used.network, self._inner, self._survey.layouts()) as run:
            images = used.preprocessing.normalise(pixels).to(anchor(used.network).dtype)
            return {name: widened(read) for name, read in run(images).items()}

    def gathered(self) -> Gathered:
        """What is known of all images that were added."""
        self._catch_up()
        rankings = {name: self._rankers[name].ranking() for name in self._plan.ranked if name != CLASSES}
        if CLASSES in self._plan.ranked:
            rankings[CLASSES] = self._members()
        sums = {name: total.sums() for name, total in self._sums.items()}
        samples = {name: sampler.sample() for name, sampler in self._samplers.items()}
        return Gathered({name: rankings[name] for name in self._plan.ranked}, sums, self._images.sums(), samples)

    def _catch_up(self) -> None:
        """Keep what counts of the batch before, whose peaks a GPU copies while it goes on with the next."""
        behind, self._behind = self._behind, None
        if behind:
            copied, batch = behind
            copied.synchronize()
            self._keep(batch)

    def _keep(self, batch: _BatchPeaks) -> None:
        for name, ranker in self._rankers.items():
            scores = batch.peaks[name].scores.numpy()
            if self._layers[ranked_layer(name)].reads.sparse:  # an image that a feature is zero on says nothing of it
                scores = np.where(scores > 0, scores, -np.inf)
            ranker.add(scores, batch.rows, batch.peaks[name].sites)
        for name, sampler in self._samplers.items():
            sampler.add(batch.lots, batch.rows, batch.peaks[name].scores.numpy())

    def _peaks(self, name: str, maps: Mapping[str, Tensor]) -> _Peaks:
        layer = ranked_layer(name)
        reads = self._layers[layer].reads
        own = self._survey.layer(reads.layer).own
        if reads.site is None:
            return _Peaks.of(maps[layer][..., own], name.endswith(LOWEST))
        return _Peaks.of(maps[layer], name.endswith(LOWEST), max(0, reads.site - own.start))

    def _members(self) -> Ranking:
        none = np.zeros(0, np.int64)
        rows, labels = (np.concatenate([none, *(batch[part] for batch in self._seen)]) for part in (0, 1))
        keys = [key for batch in self._seen for key in batch[2]]
        ranks = self._plan.ranks + self._plan.queries
        return Ranking.of_members(self._survey.layer(CLASSES).channels, ranks, rows, labels, keys)


@dataclass(frozen=True)
class _Peaks:
    """Every neuron's greatest value, or the least negated, on the host; and where it is, asked for when it counts."""

    scores: Float[Tensor, "image neuron"]
    sites: Callable[[int, Int[np.ndarray, "candidate"]], Int[np.ndarray, "candidate"]]

    @classmethod
    def of(cls, maps: Float[Tensor, "image neuron site"], lowest: bool, first: int = 0) -> _Peaks:
        """Of some maps; sites are counted from ``first``, and of equal values the earliest counts."""
        if maps.device.type == "cpu":
            # an argmax of all maps would take as long as the rest of a ranking

            def sites(image: int, neurons: Int[np.ndarray, "candidate"]) -> Int[np.ndarray, "candidate"]:
                chosen = maps[image, torch.from_numpy(neurons)]
                return (chosen.argmin(-1) if lowest else chosen.argmax(-1)).numpy() + first

            return cls((-maps.amin(-1) if lowest else maps.amax(-1)).float(), sites)
        peaks, where = maps.min(-1) if lowest else maps.max(-1)
        peaks, sites_there = (
            part.to("cpu", non_blocking=True) for part in ((-peaks if lowest else peaks).float(), where)
        )
        return cls(peaks, lambda image, neurons: sites_there[image].numpy()[neurons] + first)


@dataclass(frozen=True)
class _BatchPeaks:
    """The peaks of a batch by layer, the ids of its images, and their lots where a sample is drawn."""

    peaks: Mapping[str, _Peaks]
    rows: Int[np.ndarray, "image"]
    lots: Float64[np.ndarray, "_lot"]


def gather(model: Model, survey: Survey, plan: Plan, images: Batch) -> Gathered:
    """What a batch of images gives: `Gathering` of it alone."""
    gathering = Gathering(model, survey, plan)
    gathering.add(images)
    return gathering.gathered()
