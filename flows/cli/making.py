"""The commands that make something: each takes what its flow is asked, runs it, and yields the lines to print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import ExistingDirectory, ExistingFile, PositiveInt
from cyclopts.validators import Number

from flows.cli.options import without
from flows.cli.parsing import PATH
from flows.jobs import AtlasJob, EvaluateJob, NamesJob, ReferencesJob, TargetsJob
from flows.reports.plan import ReportJob, models_of
from vital.settings import ModelSettings

Neurons = Annotated[int, Parameter(validator=Number(gte=1, lte=192))]
Layer = Annotated[str | None, Parameter(metavar="LAYER")]
Network = Annotated[ModelSettings, without("name")]
USUAL = ModelSettings()
AnyPath = Annotated[Path, PATH]


def demo(*, out: AnyPath = Path("demo"), steps: PositiveInt | None = None, neurons: Neurons = 32) -> Iterator[str]:
    """The whole pipeline on the embedded model and photographs; prints the atlas's path.

    Example: vital demo --steps 60 --neurons 8

    Args:
        out: folder for stores and pages  [default: demo]
        steps: optimisation steps  [from 1; default: as the demo is tuned]
        neurons: channels of the layer  [from 1 to 192; default: 32]
    """
    from flows.recipes.demonstration import run_demo

    yield from run_demo(out, steps, neurons)


def layers(
    model: str, /, *, all_: bool = False, conservation: Layer = None, settings: Network = USUAL
) -> Iterator[str]:
    """Layers, channels and default nodes of MODEL.

    Example: vital layers resnet50 --weights random --conservation layer4.2

    Args:
        model: torchvision name, efficientnet_lite0, timm/NAME, hf/ORGANISATION/NAME, open_clip/ARCHITECTURE/WEIGHTS, or
            package.module:factory
        all_: every module, not only stages, blocks and activations
        conservation: instead: how much relevance of this layer's neurons arrives at their nodes, and what loses it
    """
    from flows.cli.describe import conservation_table, layer_lines

    settings = settings.model_copy(update={"name": model})
    yield from conservation_table(settings, conservation) if conservation else layer_lines(settings, all_)


def pack(
    folder: Annotated[ExistingDirectory, PATH], /, *, out: AnyPath, per_shard: PositiveInt = 1000
) -> Iterator[str]:
    """Write a folder of images (torchvision's ImageFolder, or flat) as webdataset shards.

    Class folders named by numbers keep these; others are counted in the order of their names. Links are followed.

    Example: vital pack photos --out shards

    Args:
        folder: images, a sub-folder for each class or all in one
        out: folder for the shards  [required]
        per_shard: images of a shard  [from 1; default: 1000]
    """
    from flows.running.progress import bar
    from stores.shards.folders import survey
    from stores.shards.writing import pack as pack_folder

    surveyed = survey(folder)
    with bar("images packed", None) as line:
        written = pack_folder(surveyed, out, per_shard, line.reach)
    yield from surveyed.lines()
    yield f"{len(written)} shard{'' if len(written) == 1 else 's'} in {out}"


def references(job: ReferencesJob) -> Iterator[str]:
    """Stream SHARDS once: which images excite which neuron, and statistics of the layers.

    For example:
      vital references 'train-{000000..001280}.tar' --store stats.zarr \\
          --model resnet50 --layer layer4.2 --layer classes
    """
    from flows.cli.describe import network_notes
    from flows.recipes.references import select_references
    from stores import open_any

    if job.model.weights:  # somebody's file: what was taken of it is said before it is used
        yield from network_notes(job.model, job.running)
    select_references(job)
    if not job.model.weights:
        yield from network_notes(job.model, job.running)
    yield from open_any(job.store).summary()


def targets(job: TargetsJob) -> Iterator[str]:
    """Measure neurons' references: the targets that their pictures will match.

    Example: vital targets stats.zarr --layer layer4.2 --neurons 0:64
    """
    from flows.cli.describe import rounding
    from flows.recipes.targets import measure_targets

    yield from rounding(job.store, job.layer, job.neurons)
    yield f"targets/{job.layer}/{measure_targets(job)} of {job.store}"


def atlas(job: AtlasJob) -> Iterator[str]:
    """Make the pictures.

    Example: vital atlas s.zarr --layer layer4.2 --neurons 0:64 --out a.zarr
    """
    from flows.cli.describe import rounding
    from flows.recipes.atlas import build_atlas
    from stores import open_any

    yield from rounding(job.store, job.layer, job.neurons)
    build_atlas(job)
    yield from open_any(job.out).summary()


def evaluate(job: EvaluateJob) -> Iterator[str]:
    """Measure an atlas's pictures; the metrics are kept beside them and shown on its pages.

    Example: vital evaluate atlas.zarr --judge efficientnet_lite2
    """
    from flows.recipes.evaluation import evaluate_atlas
    from stores import open_atlas

    yield from open_atlas(evaluate_atlas(job)).metric_lines(list(job.layers))


def names(job: NamesJob) -> Iterator[str]:
    """Find words for the neurons of ATLAS: those whose scores on the data set's images go along with their activations.

    Half of the images choose the words, the others score them; a neuron whose words score as chance does has no name.

    For example:
      vital names atlas.zarr --vocabulary classes
      vital names atlas.zarr --vocabulary words.txt --judge open_clip:ViT-B-32/FILE
    """
    from flows.recipes.names import name_atlas
    from stores import open_atlas

    yield from open_atlas(name_atlas(job)).name_lines(list(job.layers))


def report(*, job: Annotated[ReportJob, without("models")], network: ModelSettings = USUAL) -> Iterator[str]:
    """Compare methods: the same neurons by each of them, measured in the same way, as a page, plots and report.json.

    With --model, on that network alone instead of the preset's.

    For example:
      vital report --out report --layer classes --method vital --method maco \\
          --seeds 1 --steps 100
      vital report --out report --preset iccv2025 \\
          --shards 'train-{000000..001280}.tar' --held-out 'val-*.tar'
    """
    from flows.recipes.comparison import compare_methods
    from flows.running.cluster import unwatched

    asked = network.model_dump(exclude_unset=True)
    models = models_of(job.preset, asked.pop("name", None), asked)
    with unwatched():
        yield f"report: {compare_methods(job.model_copy(update={'models': models}))}"


def run(file: Annotated[ExistingFile, PATH], /) -> Iterator[str]:
    """Run what a settings file says: full-run, references, targets, atlas, evaluate, names or report.

    The part under a flow's name is the parameter `job` of the deployment of that name; docs/job.yaml is an example.

    Example: vital run job.yaml

    Args:
        file: YAML with a flow's name, and under it what the flow is asked
    """
    from flows.cli.job_files import flow_of, read_job
    from stores import open_any

    asked = read_job(file)
    flow_of(asked.flow)(asked.job)
    url = next(filter(None, (getattr(asked.job, name, None) for name in ("out", "atlas", "store"))))
    yield from [f"report: {url}"] if asked.flow == "report" else open_any(url).summary()
