"""What surrounds the runs of a comparison: checks before them, what each method costs, how real photographs score."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flows.reports.plan import Case, Comparison, ReportJob
from flows.running.neurons import parse_neurons
from flows.running.process import decoders_of, judges_at, load, load_stored, with_directions
from flows.steps.dataset import given_directions
from flows.steps.images import bands_of, load_images
from flows.steps.reading.labels import Labels
from stores import open_atlas, open_statistics
from stores.errors import StoreError
from stores.shards.decoding import decode
from stores.shards.finding import expand
from stores.shards.reading import ShardReader
from stores.shards.writing import hold_out
from vital.errors import UnsuitableInput
from vital.judging.judges import Judge, own_judge
from vital.judging.metrics import frechet_distance
from vital.judging.names import OWN_NETWORK, classification_metrics, metric_name
from vital.measuring.kept.ranking import NOBODY
from vital.network.probe import CLASSES
from vital.pictures.baselines import check_method
from vital.settings import PictureSettings

COSTS, PHOTOGRAPHS = "costs.json", "photographs.json"
LOOKED_AT = 32
"""Photographs in memory at a time."""


def checked(job: ReportJob) -> list[Comparison]:
    """The comparison of every network. Networks, judges, layers, neurons and photographs are tried before any work."""
    out = Path(job.out).absolute()
    shards, held_out = _photographs(job, out)
    comparisons = []
    for model in job.models:
        loaded = with_directions(load(model, job.running.of_flow), given_directions(job.directions))
        for layer in job.layers:
            asked = job.classes if layer == CLASSES else job.neurons
            parse_neurons(asked, loaded.survey.layer(layer).channels, layer)
        judges_at(job.judges, loaded, job.running.of_flow, model.download, job.layers)
        left_out: dict[str, str] = {}
        for method in job.methods:
            try:
                check_method(loaded.model, PictureSettings(method=method))
            except UnsuitableInput as error:
                left_out[method] = str(error)
        folder = out / model.name.replace(":", "_") if len(job.models) > 1 else out
        folder.mkdir(parents=True, exist_ok=True)
        comparisons.append(Comparison(job, model, shards, held_out, folder, left_out))
    return comparisons


def _photographs(job: ReportJob, out: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The shards that references are chosen from, and those that are held out."""
    given = job.shards or (str(resources.files("flows.demo")),)
    if job.held_out:
        names = {shard.name for shard in expand(given)} & {shard.name for shard in expand(job.held_out)}
        if names:
            raise StoreError(f"{min(names)} is among the shards and the held-out ones: give each shard to one of them")
        return given, job.held_out
    references, held = hold_out(given, out / "photographs", job.label_key)
    return (str(references),), (str(held),)


@contextmanager
def costed(comparison: Comparison, case: Case) -> Iterator[None]:
    """Keep how long a picture takes, where the block makes all of a case's pictures: a run that goes on where another
    stopped says nothing about cost."""
    before = _pictures(comparison, case)
    begun = time.monotonic()
    yield
    count = _pictures(comparison, case)
    if before == 0 and count:
        path = comparison.folder / COSTS
        costs = read_record(path)
        costs[f"{case.layer}/{case.name}"] = {"seconds": time.monotonic() - begun, "pictures": count}
        write_record(path, costs)


def _pictures(comparison: Comparison, case: Case) -> int:
    try:
        return int(open_atlas(comparison.atlas(case)).layer(case.layer).made().sum())
    except StoreError:
        return 0


def read_record(path: Path) -> dict[str, Any]:
    """A JSON record of the comparison; empty where it was not written."""
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON record of the comparison, whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")
    unfinished.rename(path)


def photographs(comparison: Comparison) -> None:
    """What the network and the judges say of the held-out photographs of the classes that have pictures: per class and
    metric the mean over its photographs, and the Fréchet distance of all from the references."""
    if CLASSES not in comparison.job.layers:
        return
    job, statistics = comparison.job, open_statistics(comparison.store)
    loaded = load_stored(statistics, job.running)
    judges = {
        OWN_NETWORK: own_judge(loaded.model),
        **judges_at(job.judges, loaded, job.running, comparison.model.download),
    }
    pictured = _pictured(comparison)
    wanted = set(pictured)
    labels, classes = Labels.kept(statistics), loaded.survey.layer(CLASSES).channels
    assert labels is not None  # class references were chosen by them
    bands = bands_of(loaded.model.preprocessing)
    photos = (
        (label, loaded.model.preprocessing.crop(decode(sample.image, bands=bands)))
        for file in expand(comparison.held_out)
        for sample in ShardReader(file, labels.rule(loaded), bands.photographs)
        if sample.image is not None and (label := labels.of_network(sample.label, classes)[0]) in wanted
    )
    seen = _looked(photos, judges)
    if not seen["labels"].size:
        return
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for name in judges:
        for metric, values in classification_metrics(seen[f"{name}/logits"], seen["labels"], name).items():
            for label in np.unique(seen["labels"]):
                scores[str(label)][metric] = float(values[seen["labels"] == label].mean())
    images = np.unique(statistics.reference(CLASSES, "image")[pictured])
    images, decoders = images[images != NOBODY], decoders_of(job.running, loaded.device)
    crops = load_images(statistics, images.tolist(), loaded.model.preprocessing, {}, decoders)
    references = _looked(((0, crop) for _, crop in crops), judges)
    apart = {
        metric_name("frechet", name): frechet_distance(seen[f"{name}/features"], references[f"{name}/features"])
        for name in judges
    }
    write_record(
        comparison.folder / PHOTOGRAPHS,
        {"count": int(seen["labels"].size), "classes": scores, "layer": apart},
    )


def _pictured(comparison: Comparison) -> list[int]:
    """Classes with a picture by any method."""
    classes: set[int] = set()
    for case in comparison.cases():
        if case.layer == CLASSES:
            classes |= set(np.flatnonzero(open_atlas(comparison.atlas(case)).layer(CLASSES).made()).tolist())
    return sorted(classes)


def _looked(photos: Iterator[tuple[int, torch.Tensor]], judges: Mapping[str, Judge]) -> dict[str, np.ndarray]:
    """Logits and features of photographs, by judge, and their labels."""
    labels: list[int] = []
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    while part := list(islice(photos, LOOKED_AT)):
        labels += [label for label, _ in part]
        shown = torch.stack([crop for _, crop in part])
        for name, judge in judges.items():
            look = judge.outputs(shown)
            parts[f"{name}/logits"].append(look.logits.float().numpy(force=True))
            parts[f"{name}/features"].append(look.features.float().numpy(force=True))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()} | {"labels": np.array(labels, np.int64)}
