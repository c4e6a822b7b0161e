"""How readable settings make channel pictures, on the embedded photographs.

    python benchmarks/readability.py --layer _blocks.13 --neurons 64:96 --try '{}' --try '{"method": "maco"}'

Every ``--try`` is a JSON object of picture settings; ``references``, ``crop`` and ``nodes`` in it are settings of the
targets. Each is measured by `vital evaluate` with two judges that the pictures were not made for, and one line of JSON
is printed: the mean over channels of both judges' readability with its standard error, that of all references, as they
are and compared as pictures are, of the four strongest, and of as many as there are pictures, the difference to the
first try, channel by channel, and what the pictures cost. Of class pictures (``--layer classes --neurons 0:1000``) it
is the judges' surprise instead, with how many they recognise.
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

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import numpy as np
import torch

from flows.jobs import AtlasJob, EvaluateJob, ReferencesJob, Running, TargetsJob
from flows.recipes.atlas import build_atlas
from flows.recipes.evaluation import evaluate_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from stores import open_atlas
from vital.judging.names import metric_name
from vital.network.probe import CLASSES
from vital.settings import EMBEDDED, ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

JUDGES = {
    "efficientnet_lite0": ("squeezenet", "efficientnet_lite2"),
    "squeezenet": ("efficientnet_lite0", "efficientnet_lite2"),
}
REFERENCES = 12
MEANS = ("processing_gap", "clipped", "variation", "mean_peak_ratio")
KINDS = ("readability", "readability_references", "readability_as_pictures", "readability_as_many", "readability_four")
OF_CLASSES = ("surprise", "top1")
"""Of every judge and, as the first of either, the one by which tries are compared."""


def main() -> None:
    """Measure every try and print its line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(JUDGES), default=EMBEDDED)
    parser.add_argument("--layer", required=True)
    parser.add_argument("--neurons", default="0:32", help="whole blocks of 32")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=None, help="pictures together (default: 8, on a GPU what fits)")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--try", dest="tries", action="append", default=[], type=json.loads)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "vital-readability")
    options = parser.parse_args()
    store = str(options.out / f"{options.model}.zarr")
    running = Running(threads=options.threads)
    select_references(
        ReferencesJob(
            shards=(str(resources.files("flows.demo")),), store=store, model=ModelSettings(name=options.model),
            layers=(options.layer,), statistics=StatisticsSettings(references=REFERENCES), running=running,
        )
    )  # fmt: skip
    first: np.ndarray | None = None
    for number, attempt in enumerate(options.tries or [{}]):
        found, said = measured(store, options, attempt, number, running)
        compared = (OF_CLASSES if options.layer == CLASSES else KINDS)[0]
        mine = found.pop(compared)
        first = mine if first is None else first
        reached = found["mean_peak_ratio"] >= 0.9 if "mean_peak_ratio" in found else found["top1_own"]
        line = {
            compared: [*_mean(mine)],
            "against_first": [*_mean(mine - first)],
            "reached": float(np.nanmean(reached)),
            **{name: round(float(np.nanmean(values)), 3) for name, values in found.items()},
        }
        print(json.dumps({**line, **said, "settings": attempt}), flush=True)


def measured(
    store: str, options: argparse.Namespace, attempt: dict[str, Any], number: int, running: Running
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Values of a try by channel, and what it cost."""
    of_targets = {name: attempt[name] for name in attempt if name in VariantSettings.model_fields}
    of_pictures = {name: attempt[name] for name in attempt if name not in of_targets}
    variant = VariantSettings.model_validate(of_targets)
    picture = PictureSettings.model_validate({"steps": options.steps, "side": options.side, **of_pictures})
    shared = {"store": store, "layer": options.layer, "neurons": options.neurons, "variant": variant}
    measure_targets(TargetsJob(**shared, running=running))
    out = tempfile.mkdtemp(prefix=f"try-{number}-", dir=options.out)
    begun = time.perf_counter()
    batch = options.batch or ("auto" if torch.cuda.is_available() else 8)
    build_atlas(AtlasJob(**shared, out=f"{out}/atlas.zarr", picture=picture, batch=batch, running=running))
    seconds = time.perf_counter() - begun
    judges = JUDGES[options.model]
    evaluate_atlas(EvaluateJob(atlas=f"{out}/atlas.zarr", judges=judges, running=running))
    layer = open_atlas(f"{out}/atlas.zarr").layer(options.layer)
    metrics, made = layer.metrics(), layer.made()
    found = {name: metrics[name][made] for name in (*MEANS, "top1_own") if name in metrics}
    for kind in OF_CLASSES if options.layer == CLASSES else KINDS:
        by_judge = np.stack([metrics[metric_name(kind, judge)][made] for judge in judges])
        found[kind] = by_judge.mean(0)
        found |= {metric_name(kind, judge): values for judge, values in zip(judges, by_judge, strict=True)}
    return found, {"pictures": int(made.sum()), "seconds_each": round(seconds / made.sum(), 2), "atlas": out}


def _mean(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    values = values[np.isfinite(values)]
    return round(float(values.mean()), 3), round(float(values.std(ddof=1) / np.sqrt(len(values))), 3)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
