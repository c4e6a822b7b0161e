"""The metrics of a layer's pictures: what the network itself and judges say of them, and how near their references
they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
import zarr
from jaxtyping import Float, UInt8
from torch import Tensor

from flows.jobs import EvaluateJob
from flows.pages.atlas import atlas_layers, statistics_url
from flows.pages.layer import LayerSource
from flows.running.process import Worker, judges_at, stored_model, stored_worker, worker_at
from flows.running.progress import tick
from flows.steps.dataset import references_of
from flows.steps.images import moved_urls, reference_crops
from flows.steps.targets import recorded_variant
from stores.arrays.provenance import claimed
from stores.arrays.schema import array_at, group_at, open_store
from stores.atlas import made, write_metrics
from stores.errors import SchemaMismatch
from stores.files import safe_url
from vital.errors import nearest
from vital.judging.judges import Judge, own_judge
from vital.judging.metrics import diversity, frechet_distance, nearest_similarity, peak_ranks, variation
from vital.judging.names import OWN_NETWORK, classification_metrics, meaning_of, metric_name
from vital.network.probe import CLASSES

CHUNK = 32
"""Pictures in memory at a time."""
USUAL = ("peak_mean", "peak_deviation")
"""Statistics of a layer that tell how far a neuron is raised."""
COMPARED = 10
"""References of a neuron that its picture is compared with, the best first."""


@dataclass(frozen=True)
class Measured:
    """A layer in an atlas, with what is needed to measure it."""

    atlas: zarr.Group
    statistics: zarr.Group
    layer: str
    store: str

    @property
    def neurons(self) -> list[int]:
        """Those with a picture."""
        return [int(neuron) for neuron in np.flatnonzero(made(self.atlas, self.layer))]

    @property
    def fields(self) -> dict[str, object]:
        """What the pictures were made with."""
        return claimed(group_at(self.atlas, self.layer), "atlas") or {}

    @property
    def side(self) -> int:
        """Of a picture."""
        return int(str(self.fields["side"]))

    def pixels(self, neurons: Sequence[int]) -> Iterator[UInt8[np.ndarray, "picture side side 3"]]:
        """Pictures in chunks."""
        array = array_at(self.atlas, f"{self.layer}/pixels")
        for start in range(0, len(neurons), CHUNK):
            yield np.stack([np.asarray(array[neuron]) for neuron in neurons[start : start + CHUNK]])


def check_evaluation(job: EvaluateJob) -> dict[str, int]:
    """How many pictures each asked layer has. Whatever the metrics need is asked for here, before any work.

    Raises:
        SchemaMismatch: the atlas has no such layer or no picture, or its statistics or references are out of reach; a
            sibling is not one.
        UnsuitableInput: a judge knows other classes than the network.
    """
    atlas = open_store(job.atlas, "atlas", "r")
    present = atlas_layers(atlas)
    for layer in job.layers:
        if layer not in present:
            raise SchemaMismatch(
                f"{safe_url(job.atlas)} has no layer {layer!r}; the nearest are {nearest(layer, present)}: "
                "choose from these, or leave out --layer for all"
            )
    parts = [measured(job, layer) for layer in job.layers or present]
    counts = {part.layer: len(part.neurons) for part in parts}
    if not any(counts.values()):
        raise SchemaMismatch(f"{safe_url(job.atlas)} holds no finished picture yet: `vital info` says how far it is")
    for part in parts:
        references_of(part.statistics, part.layer, None)
        if part.layer != CLASSES:
            for name in USUAL:
                array_at(part.statistics, f"layers/{part.layer}/{name}")
        for url in job.siblings:
            _check_sibling(part, url)
    here = stored_worker(parts[0].statistics, job.running.here)
    judges_at(job.judges, here, job.running.here, job.download, counts)
    return {layer: count for layer, count in counts.items() if count}


def measured(job: EvaluateJob, layer: str) -> Measured:
    """The layer with its statistics; raises SchemaMismatch where these are out of reach."""
    atlas = open_store(job.atlas, "atlas", "r")
    store = statistics_url(atlas, job.atlas, job.store)
    return Measured(atlas, open_store(store, "statistics", "r"), layer, store)


def _check_sibling(part: Measured, url: str) -> None:
    other = open_store(url, "atlas", "r")
    fields = claimed(group_at(other, part.layer), "atlas") or {}
    different = [
        name for name in sorted(fields.keys() | part.fields.keys()) if fields.get(name) != part.fields.get(name)
    ]
    if different != ["seed"]:
        raise SchemaMismatch(
            f"{safe_url(url)} differs from the atlas in {', '.join(different) or 'nothing'} of layer {part.layer!r} "
            "but a sibling differs in its seed alone: give an atlas made with the same settings and another --seed"
        )


def evaluate(job: EvaluateJob, layer: str) -> None:
    """Measure one layer's pictures and write what was found; neurons without a picture have NaN."""
    part = measured(job, layer)
    here = stored_worker(part.statistics, job.running)
    judges = judges_at(job.judges, here, job.running, job.download)
    at_side = worker_at(stored_model(part.statistics), job.running, part.side)
    mine, found = own_judge(at_side.model), _Looks(layer == CLASSES, part.neurons)
    for pixels in part.pixels(part.neurons):
        found.add({OWN_NETWORK: mine, **judges}, _tensor(pixels, at_side))
        tick(len(pixels))
    columns: dict[str, np.ndarray] = {"curve_distance": _distances(part)}
    for name in (OWN_NETWORK, *judges):
        columns |= found.named(name)
    if layer != CLASSES:
        columns |= _raised(part, here, at_side)
    unnamed = job.model_copy(update={"atlas": "", "layers": (), "siblings": ()})
    photos = _references(unnamed, part.store, layer, str(part.fields["variant"]), tuple(part.neurons), part.side)
    columns["nearest_reference"] = nearest_similarity(
        found.features(OWN_NETWORK), [photos.features[OWN_NETWORK][rows] for rows in photos.rows]
    )
    natural = np.array([photos.variation[rows].mean() if len(rows) else np.nan for rows in photos.rows])
    columns["variation"] = np.concatenate([variation(pixels) for pixels in part.pixels(part.neurons)]) / natural
    if job.siblings:
        columns["diversity"] = diversity(np.stack([found.features(OWN_NETWORK), *_siblings(job, part, mine, at_side)]))
    apart = {
        metric_name("frechet", name): frechet_distance(found.features(name), photos.features[name])
        for name in (OWN_NETWORK, *judges)
    }
    meanings = {name: meaning_of(name, (OWN_NETWORK, *judges)) for name in (*columns, *apart)}
    write_metrics(
        open_store(job.atlas, "atlas", "a"),
        layer,
        {name: _spread(part, values) for name, values in columns.items()},
        {name: (said.text, said.units) for name, said in meanings.items()},
        apart,
        {name: str(judge.identity.get("weights", "")) for name, judge in judges.items()},
    )


class _Looks:
    """What networks say of a layer's pictures, chunk by chunk."""

    def __init__(self, classes: bool, neurons: Sequence[int]) -> None:
        self._classes, self._neurons = classes, neurons
        self._features: dict[str, list[np.ndarray]] = {}
        self._named: dict[str, list[dict[str, np.ndarray]]] = {}

    def add(self, judges: Mapping[str, Judge], pixels: UInt8[Tensor, "picture 3 row column"]) -> None:
        """Have every judge look at some pictures."""
        for name, judge in judges.items():
            seen = self._features.setdefault(name, [])
            before = sum(map(len, seen))
            output = judge.outputs(pixels)
            seen.append(output.features.float().numpy(force=True))
            if self._classes:
                own = self._neurons[before : before + len(pixels)]
                self._named.setdefault(name, []).append(
                    classification_metrics(output.logits.float().numpy(force=True), own, name)
                )

    def features(self, name: str) -> Float[np.ndarray, "picture feature"]:
        """Of all pictures, in a judge's eyes."""
        return np.concatenate(self._features[name])

    def named(self, name: str) -> dict[str, np.ndarray]:
        """How a judge names the classes; nothing for other layers."""
        parts = self._named.get(name, [])
        return {metric: np.concatenate([part[metric] for part in parts]) for metric in (parts[0] if parts else ())}


def _tensor(pixels: np.ndarray, here: Worker) -> Tensor:
    device = next(here.model.network.parameters()).device
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).to(device)


def _spread(part: Measured, values: np.ndarray) -> np.ndarray:
    """Over the rows of the whole layer."""
    rows = np.full(array_at(part.atlas, f"{part.layer}/status").shape[0], np.nan, np.float32)
    rows[part.neurons] = values
    return rows


def _distances(part: Measured) -> np.ndarray:
    found = LayerSource(part.atlas, "", part.layer, "", None).distance()
    return np.full(len(part.neurons), np.nan) if found is None else found[part.neurons]


def _raised(part: Measured, here: Worker, at_side: Worker) -> dict[str, np.ndarray]:
    """What the pictures do to their own neuron, against what natural images do."""
    scores = references_of(part.statistics, part.layer, None).score[part.neurons]
    # As the statistics have it: pictures of another side are read at the same place.
    readout = here.found.layer(part.layer).readout
    usual = [np.asarray(array_at(part.statistics, f"layers/{part.layer}/{name}")[:]) for name in USUAL]
    peaks, places = [], []
    for start, pixels in zip(range(0, len(part.neurons), CHUNK), part.pixels(part.neurons), strict=True):
        neurons = part.neurons[start : start + CHUNK]
        one = peak_ranks(
            at_side.model, part.layer, neurons, pixels, here.found.layouts(), (usual[0], usual[1]), readout
        )
        peaks.append(one.peak)
        places.append(one.rank)
    peak, rank = np.concatenate(peaks), np.concatenate(places)
    best = np.nanmax(scores, axis=1)
    return {
        "peak": peak,
        "peak_ratio": np.where(best > 0, peak / np.where(best > 0, best, 1), np.nan),
        "references_reached": 100 * (scores <= peak[:, None]).sum(1) / np.isfinite(scores).sum(1),
        "rank": rank,
        "most_activated": rank == 0,
    }


@dataclass(frozen=True)
class _Photos:
    """A layer's references: rows of each neuron's among all that were looked at, these in every judge's features, and
    how much their neighbouring pixels differ at the pictures' side."""

    rows: Sequence[Sequence[int]]
    features: Mapping[str, Float[np.ndarray, "image feature"]]
    variation: Float[np.ndarray, "image"]


@lru_cache(maxsize=2)
def _references(job: EvaluateJob, store: str, layer: str, variant: str, neurons: tuple[int, ...], side: int) -> _Photos:
    """Each image and crop is looked at once. The same for all atlases of the same neurons, so it is kept: of ``job``
    only what does not name an atlas counts."""
    statistics = open_store(store, "statistics", "r")
    here = stored_worker(statistics, job.running)
    judges = {OWN_NETWORK: own_judge(here.model), **judges_at(job.judges, here, job.running, job.download)}
    used = recorded_variant(statistics, layer, variant).references
    found = references_of(statistics, layer, used).best(COMPARED)
    whole, urls = variant.startswith("image"), moved_urls(statistics, job.shards)
    crops = reference_crops(statistics, here.model.preprocessing, found, whole, neurons, urls)
    rows: list[list[int]] = [[] for _ in neurons]
    features: dict[str, list[np.ndarray]] = {name: [] for name in judges}
    flat: list[np.ndarray] = []
    count = 0
    while part := list(islice(crops, CHUNK)):
        for _, places in part:
            for place in places:
                rows[place].append(count)
            count += 1
        shown = torch.stack([pixels for pixels, _ in part])
        for name, judge in judges.items():
            features[name].append(judge.outputs(shown).features.float().numpy(force=True))
        smaller = F.interpolate(shown, (side, side), mode="bilinear", antialias=True)
        flat.append(variation(smaller.permute(0, 2, 3, 1).numpy()))
    return _Photos(rows, {name: np.concatenate(parts) for name, parts in features.items()}, np.concatenate(flat))


def _siblings(job: EvaluateJob, part: Measured, mine: Judge, here: Worker) -> list[np.ndarray]:
    """The features of the same neurons' pictures in atlases of other seeds."""
    features = []
    for url in job.siblings:
        other = Measured(open_store(url, "atlas", "r"), part.statistics, part.layer, part.store)
        looked = [
            mine.outputs(_tensor(pixels, here)).features.float().numpy(force=True)
            for pixels in other.pixels(part.neurons)
        ]
        there = np.isin(part.neurons, other.neurons)
        features.append(np.where(there[:, None], np.concatenate(looked), np.nan))
    return features
