"""Pictures of Lite0's neurons on the embedded photographs, measured and laid side by side.

    python benchmarks/pictures.py --layer _blocks.13 --neurons 8 --try '{}' --try '{"own_weight": 3}' --out sheet.png

Every ``--try`` is a JSON object of picture settings; ``nodes``, ``references``, ``crop`` and ``relevance`` in it are
settings of the targets. The first row of the sheet is each neuron's best reference, then one row per try. All figures
are of the stored 8-bit pictures, shifted by 8 px and blurred by 1 px (at 224 px): the share of channels whose peak
reaches the references' mean peak, and that of the best natural image; the share that are among the three most
activated of their layer; for classes the share that the network classifies as theirs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

from flows.jobs import ReferencesJob, Running, TargetsJob
from flows.recipes.references import select_references
from flows.running.blocks import tasks_of
from flows.running.process import load
from flows.steps.images import load_images
from flows.steps.targets import declare_targets, live_neurons, measured_blocks, read_targets, usual_of, variant_of
from stores import open_statistics
from vital.judging.metrics import class_ranks, peak_ranks
from vital.measuring.image_sums import ColourDistribution
from vital.network.probe import CLASSES
from vital.pictures.optimise import optimise
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

RANKS = 12


def main() -> None:
    """Measure, print one JSON object per try, and save the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", required=True)
    parser.add_argument("--neurons", type=int, default=8, help="how many, evenly spread over the live ones")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--side", type=int, default=144)
    parser.add_argument("--try", dest="tries", action="append", default=[], type=json.loads)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "vital-pictures.zarr")
    options = parser.parse_args()
    store, layer = str(options.store), options.layer
    select_references(
        ReferencesJob(
            shards=(str(resources.files("flows.demo")),),
            store=store,
            layers=(CLASSES, layer),
            nodes=tuple(node for one in options.tries for node in one.get("nodes", ())),
            statistics=StatisticsSettings(references=RANKS),
        )
    )
    rows: list[list[Image.Image]] = []
    for attempt in options.tries or [{}]:
        variant = VariantSettings(
            **{
                **({"fewest": 2} if layer == CLASSES else {}),
                **{name: attempt.pop(name) for name in list(attempt) if name in VariantSettings.model_fields},
            }
        )
        figures, sheet = attempt_pictures(store, layer, variant, options, attempt)
        print(json.dumps({**figures, "settings": attempt}), flush=True)
        rows = rows or [sheet[0]]
        rows.append(sheet[1])
        if options.out:
            save(rows, options.out)


def attempt_pictures(
    store: str, layer: str, variant: VariantSettings, options: argparse.Namespace, said: dict[str, Any]
) -> tuple[dict[str, Any], tuple[list[Image.Image], list[Image.Image]]]:
    """The figures of one try, and its row of the sheet after the row of references."""
    statistics = open_statistics(store, "r+")
    loaded = load(ModelSettings(), Running())
    job = TargetsJob(store=store, layer=layer, variant=variant)
    targets = declare_targets(statistics, job, loaded)
    for blocks in tasks_of(targets, range(targets.count), live_neurons(statistics, targets)):
        measured_blocks(job, blocks, {})()
    live = np.flatnonzero(targets.made())
    neurons = [int(one) for one in live[np.linspace(0, len(live) - 1, min(options.neurons, len(live))).astype(int)]]
    settings = PictureSettings(steps=options.steps, side=options.side, **said)
    begun, pixels, usual = time.perf_counter(), [], usual_of(statistics, targets)
    for start in range(0, len(neurons), 8):
        target = read_targets(targets, neurons[start : start + 8], usual)
        kind = variant_of(targets).relevance
        made = optimise(
            loaded.model,
            target,
            settings,
            loaded.survey.layouts(),
            kind,
            colours=ColourDistribution(*statistics.colours()),
        )
        pixels.append(made.pixels)
    seconds, pictures = time.perf_counter() - begun, np.concatenate(pixels)
    references = statistics.references(layer, variant.references)
    figures: dict[str, Any] = {
        "layer": layer,
        "pictures": len(neurons),
        "seconds_each": round(seconds / len(neurons), 2),
    }
    if layer == CLASSES:
        ranks = class_ranks(loaded.model, neurons, pictures)
        figures |= {"top1": float((ranks == 0).mean()), "top5": float((ranks < 5).mean())}
    else:
        mean, deviation = (statistics.statistic(layer, name) for name in ("peak_mean", "peak_deviation"))
        reads = loaded.survey.layer(layer).reads
        found = peak_ranks(loaded.model, reads, neurons, pictures, loaded.survey.layouts(), (mean, deviation))
        scores = np.where(references.image[neurons] >= 0, references.score[neurons], np.nan)
        share = found.peak / np.nanmean(scores, 1)
        figures |= {
            "reach_mean_peak": float((share >= 1).mean()),
            "reach_best": float((found.peak >= np.nanmax(scores, 1)).mean()),
            "median_share": round(float(np.median(share)), 3),
            "least_share": round(float(share.min()), 3),
            "top3": float((found.rank < 3).mean()),
            "ranks": found.rank.tolist(),
        }
    best = {int(references.image[neuron, 0]) for neuron in neurons}
    photos = dict(load_images(statistics, sorted(best), loaded.model.preprocessing, {}))
    first = [Image.fromarray(photos[int(references.image[one, 0])].permute(1, 2, 0).numpy()) for one in neurons]
    return figures, (first, [Image.fromarray(picture) for picture in pictures])


def save(rows: list[list[Image.Image]], out: Path, side: int = 144) -> None:
    """Rows of pictures as one image."""
    sheet = Image.new("RGB", (len(rows[0]) * (side + 4), len(rows) * (side + 4)), "white")
    for down, row in enumerate(rows):
        for right, picture in enumerate(row):
            sheet.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (right * (side + 4), down * (side + 4)))
    sheet.save(out)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
