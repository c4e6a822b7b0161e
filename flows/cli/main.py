"""The ``vital`` command: arguments in, flows and stores called, one sentence when something is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flows.cli.options import build, options, pick, require
from flows.cli.page_commands import COMMANDS as PAGE_COMMANDS
from flows.cli.proof_commands import COMMANDS as PROOF_COMMANDS
from flows.jobs import AtlasJob, ReferencesJob, Running, TargetsJob
from stores.errors import StoreError
from vital.errors import VitalError
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings


class Vital(click.Group):
    """The command's group: knows which errors are the user's to mend."""

    def invoke(self, context: click.Context) -> Any:
        """Run a subcommand; an error of ours, or of the operating system, is one sentence and exit code 1."""
        try:
            return super().invoke(context)
        except (VitalError, StoreError, OSError) as error:
            if context.params.get("verbose"):
                raise
            raise click.ClickException(str(error)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # a bug, or an input that nobody foresaw: still one sentence
            if context.params.get("verbose"):
                raise
            first = (str(error).splitlines() or [""])[0]
            raise click.ClickException(
                f"unexpected {type(error).__name__}: {first}; `vital --verbose …` shows where it came from"
            ) from error

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order in which they are used."""
        return list(self.commands)


@click.group(cls=Vital, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="vital-atlas", prog_name="vital")
@click.option("--verbose", is_flag=True, help="show Prefect's logs, and tracebacks of errors")
def main(verbose: bool) -> None:
    """Pictures of what every neuron of a vision network responds to.

    \b
    Try it:           vital demo
    Your own images:  vital pack FOLDER --out shards
                      vital references shards --store stats.zarr --model resnet50 --layer layer4.2
                      vital targets --store stats.zarr --layer layer4.2 --neurons 0:64
                      vital atlas --store stats.zarr --layer layer4.2 --neurons 0:64 --out atlas.zarr
                      vital pages atlas.zarr --out pages
    """
    _quiet(verbose)


def _quiet(verbose: bool) -> None:
    """Before Prefect is imported: nothing is reported to anybody, and only trouble is logged."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="folder for stores and pages",
)
@click.option(
    "--steps", type=click.IntRange(1), default=None, help="optimisation steps  [default: as the demo is tuned]"
)
@click.option("--neurons", type=click.IntRange(1, 192), default=32, show_default=True, help="channels of the layer")
def demo(out: Path, steps: int | None, neurons: int) -> None:
    """The whole pipeline on the embedded model and photographs; prints the atlas's path."""
    from flows.recipes.demonstration import run_demo

    for line in run_demo(out, steps, neurons):
        click.echo(line)


@main.command()
@click.argument("model")
@options(ModelSettings, only=("weights", "download", "input_size", "mean", "std"))
@click.option("--all", "all_", is_flag=True, help="every module, not only stages, blocks and activations")
@click.option(
    "--conservation",
    "layer",
    default=None,
    metavar="LAYER",
    help="instead: how much relevance of this layer's neurons arrives at their nodes, and which operations lose it",
)
def layers(model: str, all_: bool, layer: str | None, **said: Any) -> None:
    """Layers, channels and default nodes of MODEL.

    \b
    Examples: vital layers resnet50 --weights random
              vital layers resnet50 --weights random --conservation layer4.2
    """
    from flows.cli.describe import conservation_table, layer_table

    settings = build(ModelSettings, {"name": model, **said})
    for line in layer_table(settings, all_) if layer is None else conservation_table(settings, layer):
        click.echo(line)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder for the shards")
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True, help="images of a shard")
def pack(folder: Path, out: Path, per_shard: int) -> None:
    """Write a folder of images (torchvision's ImageFolder, or flat) as webdataset shards."""
    from flows.running.progress import bar
    from stores.shards.writing import pack as pack_folder

    with bar("images packed", None) as line:
        written = pack_folder(folder, out, per_shard, line.reach)
    click.echo(f"{len(written)} shards in {out}")


@main.command()
@click.argument("shards", nargs=-1, required=True)
@click.option("--store", required=True, help="statistics store to write: a path or an fsspec URL")
@click.option("--model", "name", default=None, help="torchvision name, efficientnet_lite0, or package.module:factory")
@options(ModelSettings, only=("weights", "download", "input_size", "mean", "std"))
@click.option(
    "--layer",
    "layers",
    multiple=True,
    required=True,
    help="layer whose neurons get references; repeatable. A module such as layer4.2, 'classes', layer4.2@3,3 (row 3, "
    "column 3 of every channel), or layer4.2~NAME (directions)",
)
@options(StatisticsSettings)
@options(ReferencesJob, only=("directions", "manifest", "allow_rejected", "extend"))
@options(Running)
def references(shards: Sequence[str], store: str, layers: Sequence[str], **said: Any) -> None:
    """Stream SHARDS once: which images excite which neuron, and statistics of the layers.

    Example: vital references 'train-{000000..001280}.tar' --store stats.zarr --model resnet50 --layer layer4.2
    --layer classes
    """
    parts = {
        "model": build(ModelSettings, said),
        "statistics": build(StatisticsSettings, said),
        "running": build(Running, said),
    }
    job = build(
        ReferencesJob,
        {
            "shards": tuple(shards),
            "store": store,
            "layers": tuple(layers),
            **parts,
            "directions": said["directions"],
            **pick(said, "manifest", "allow_rejected", "extend"),
        },
    )
    from flows.recipes.references import select_references
    from stores import open_any

    select_references(job)
    for line in open_any(store).summary():
        click.echo(line)


@main.command()
@options(TargetsJob, only=("store", "layer", "neurons", "shards"))
@options(VariantSettings, names={"nodes": "node"})
@options(Running)
def targets(node: Sequence[str], **said: Any) -> None:
    """Measure neurons' references: the targets that their pictures will match.

    Example: vital targets --store stats.zarr --layer layer4.2 --neurons 0:64
    """
    require(said, "store", "layer")
    parts = {"variant": build(VariantSettings, {**said, "nodes": tuple(node)}), "running": build(Running, said)}
    job = build(TargetsJob, {**pick(said, "store", "layer", "neurons", "shards"), **parts})
    from flows.cli.describe import rounding
    from flows.recipes.targets import measure_targets

    for line in rounding(job.store, job.layer, job.neurons):
        click.echo(line)
    click.echo(f"targets/{job.layer}/{measure_targets(job)} of {job.store}")


@main.command()
@options(AtlasJob, only=("store", "layer", "out", "neurons"))
@options(PictureSettings)
@click.option(
    "--batch",
    default="auto",
    show_default=True,
    help="pictures optimised together; auto measures one and takes what fits. Halved when memory runs out",
)
@options(VariantSettings, only=("crop", "relevance", "references"))
@options(Running)
def atlas(batch: str, **said: Any) -> None:
    """Make the pictures.

    Example: vital atlas --store stats.zarr --layer layer4.2 --neurons 0:64 --out atlas.zarr
    """
    require(said, "store", "layer", "out")
    if batch != "auto" and not (batch.isdigit() and int(batch) > 0):
        raise click.UsageError(f"--batch: auto or a number from 1 was expected, but {batch!r} was given")
    parts = {
        "picture": build(PictureSettings, said),
        "variant": build(VariantSettings, said),
        "running": build(Running, said),
        "batch": batch if batch == "auto" else int(batch),
    }
    job = build(AtlasJob, {**pick(said, "store", "layer", "out", "neurons"), **parts})
    from flows.cli.describe import rounding
    from flows.recipes.atlas import build_atlas
    from stores import open_any

    for line in rounding(job.store, job.layer, job.neurons):
        click.echo(line)
    build_atlas(job)
    for line in open_any(job.out).summary():
        click.echo(line)


@main.command()
@click.argument("file", metavar="JOB.yaml", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def run(file: Path) -> None:
    """Run what a settings file says: full-run, references, targets, atlas, evaluate or report.

    The same file's part under the flow's name is the parameter `job` of the deployment of that name. Example:
    docs/job.yaml.
    """
    from flows.cli.job_files import flow_of, read_job
    from stores import open_any

    asked = read_job(file)
    flow_of(asked.flow)(asked.job)
    if asked.flow == "report":
        click.echo(f"report: {asked.job.out}")  # type: ignore[attr-defined]
        return
    places = (getattr(asked.job, name, None) for name in ("out", "atlas", "store"))
    for line in open_any(next(place for place in places if place)).summary():
        click.echo(line)


@main.command()
@click.argument("url")
@click.option("--watch", is_flag=True, help="keep it up to date until every block is written; Ctrl-C ends it")
def info(url: str, watch: bool) -> None:
    """What a store holds, how complete it is, and what it was made from."""
    if watch:
        from flows.cli.describe import watch as keep_watching

        keep_watching(url)
        return
    from stores import open_any

    for line in open_any(url).summary():
        click.echo(line)


for _command in (*PROOF_COMMANDS.values(), *PAGE_COMMANDS.values()):
    main.add_command(_command)


if __name__ == "__main__":
    sys.exit(main())
