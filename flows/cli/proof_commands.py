"""The commands that measure pictures: ``evaluate`` and ``report``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from flows.cli.options import build, options, pick, require
from flows.jobs import EvaluateJob, Running
from flows.reports.plan import ReportJob, models_of
from vital.settings import ModelSettings

SINGULAR = {"layers": "layer", "judges": "judge", "siblings": "sibling", "methods": "method"}
"""Options that may be repeated bear the singular."""
ASKED = (
    "out", "preset", "shards", "held_out", "layers", "classes", "neurons", "methods", "no_ablation", "seeds", "steps",
    "side", "references", "judges", "batch",
)  # fmt: skip
MODEL = ("weights", "download", "input_size", "mean", "std")


@click.command()
@options(EvaluateJob, only=("atlas", "store", "layers", "judges", "download", "siblings", "shards"), names=SINGULAR)
@options(Running)
def evaluate(layer: Sequence[str], judge: Sequence[str], sibling: Sequence[str], **said: Any) -> None:
    """Measure an atlas's pictures; the metrics are kept beside them and shown on its pages.

    \b
    Examples: vital evaluate --atlas atlas.zarr
              vital evaluate --atlas atlas.zarr --judge efficientnet_lite2 --judge squeezenet
    """
    require(said, "atlas")
    many = {"layers": tuple(layer), "judges": tuple(judge), "siblings": tuple(sibling)}
    job = build(EvaluateJob, {**said, **many, "running": build(Running, said)})
    from flows.recipes.evaluation import evaluate_atlas
    from stores import open_atlas

    for line in open_atlas(evaluate_atlas(job)).metric_lines(list(job.layers)):
        click.echo(line)


@click.command()
@options(ReportJob, only=ASKED, names=SINGULAR)
@click.option("--model", default=None, help="the one network to compare methods on, instead of the preset's")
@options(ModelSettings, only=MODEL)
@options(Running)
def report(layer: Sequence[str], method: Sequence[str], judge: Sequence[str], model: str | None, **said: Any) -> None:
    """Compare methods: the same neurons by each of them, measured in the same way, as a page, plots and report.json.

    \b
    Examples: vital report --out report
              vital report --out report --layer classes --method vital --method maco --seeds 1 --steps 100
              vital report --out report --preset iccv2025 --shards 'train-{000000..001280}.tar' --held-out 'val-*.tar'
    """
    require(said, "out")
    many = {"layers": tuple(layer), "methods": tuple(method), "judges": tuple(judge)}
    models = models_of(said.get("preset"), model, pick(said, *MODEL))
    job = build(ReportJob, {**said, **many, "models": models, "running": build(Running, said)})
    from flows.recipes.comparison import compare_methods
    from flows.running.cluster import unwatched

    with unwatched():
        page = compare_methods(job)
    click.echo(f"report: {page}")


COMMANDS = {"evaluate": evaluate, "report": report}
