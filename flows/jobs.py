"""What a flow is asked to do: frozen settings, the parameters of the deployments and the options of the command."""

from __future__ import annotations

import os
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stores.files import has_secret, local_path, safe_url
from vital.settings import ModelSettings, PictureSettings, Precision, Settings, StatisticsSettings, VariantSettings


def _without_secret(location: str) -> str:
    if has_secret(location):
        raise ValueError(
            f"{safe_url(location)} was given with a password or a signed query, and what a job says is kept in "
            "Prefect's database: give credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "fsspec's FSSPEC_… variables), and the plain URL"
        )
    return location


Location = Annotated[str, AfterValidator(_without_secret)]
"""A path or an fsspec URL."""


def _local(location: str) -> str:
    path = local_path(location)
    if path is None:
        raise ValueError(
            f"pages are written into a folder, and {safe_url(location)} is a URL: give a folder, and copy it"
        )
    return str(path)


Folder = Annotated[str, Field(min_length=1), AfterValidator(_local)]
"""A path on this machine."""


def _auto_or_number(batch: object) -> object:
    if batch != "auto" and not (str(batch).isdecimal() and int(str(batch)) > 0):
        raise ValueError(f"auto or a number from 1 was expected, but {str(batch)!r} was given")
    return batch


Batch = Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], BeforeValidator(_auto_or_number)]
BATCH = "pictures optimised together; auto measures one and takes what fits. Halved when memory runs out"
IMAGES = "images forwarded together; auto is 32, on a GPU 128. Halved when memory runs out"

TOGETHER = "references in one pass; auto takes 8 on a CPU, and what fits on a GPU. Halved when memory runs out"
LABELS = (
    "which class of the network a label is: match, by what the data set's classes are called; number, as it stands; "
    "ignore; or a JSON file of classes and the network's numbers or names  [default: match]"
)
LABEL_KEY = (
    "what says the class of a sample: the ending of its file, such as cls or txt, or a key of its .json, such as label"
)
PRECISION = "arithmetic of the network: float32 is exact, tf32 and bfloat16 are faster on a GPU; kept in the store"

BLOCK = 32
"""Neurons of a block: one Zarr shard, written by one task."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Running(Settings):
    """Where tasks run: in this process, unless ``workers`` or a ``scheduler`` is given."""

    workers: int | None = Field(
        None, ge=1, description="worker processes on this machine, each with its own model; in this process by default"
    )
    scheduler: str | None = Field(
        None, description="address of an existing Dask scheduler, e.g. tcp://host:8786, instead of workers here"
    )
    threads: int | None = Field(None, ge=1, description="torch's threads of a task  [default: cores / workers]")
    decoders: int | None = Field(
        None, ge=1, description="threads of a task that decode images  [default: its worker's cores, cores / workers]"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    deterministic: bool = Field(
        False,
        description="the same bytes each time on the same kind of GPU: only operations that have one order, and "
        "a batch that does not depend on free memory; slower",
    )
    lease: float = Field(
        60.0,
        gt=0,
        description="seconds until a block that another run began, and no longer says it works on, is taken over; at "
        "once where that run is seen to have ended",
    )

    @model_validator(mode="after")
    def _workers_or_scheduler(self) -> Running:
        if self.workers and self.scheduler:
            raise ValueError("workers are started here, a scheduler has its own: give one of the two")
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether tasks run in other processes."""
        return bool(self.workers or self.scheduler)

    @property
    def on_gpu(self) -> bool:
        """Whether tasks are to be given a GPU."""
        return self.device.startswith("cuda")

    @property
    def of_flow(self) -> Running:
        """Where the flow itself asks the model for its layers: the GPU may be on the workers alone."""
        return self.model_copy(update={"device": "cpu", "threads": None}) if self.elsewhere else self

    @property
    def of_task(self) -> Running:
        """The same with as many threads as the workers of this machine leave for each."""
        each = max(1, cores() // self.workers) if self.workers else None
        return self.model_copy(update={"threads": self.threads or each, "decoders": self.decoders or each})


LABEL_WORDS = ("match", "number", "ignore")
"""What ``labels`` may say instead of a file."""


class _Pass(Settings):
    """What a pass over shards is asked, by itself or as the first part of a full run."""

    shards: tuple[Location, ...] = Field(
        min_length=1, description="tars, or folders of images: paths, folders, globs, braces {000..009} or URLs"
    )
    store: Location = Field(description="statistics store: a path or an fsspec URL")
    model: ModelSettings = ModelSettings()
    directions: tuple[Location, ...] = Field(
        (),
        description="matrices of directions × channels (.npy or a Zarr array); layer LAYER~NAME has a neuron for each "
        "direction of the file NAME",
    )
    dictionaries: tuple[Location, ...] = Field(
        (),
        description="encoders of sparse autoencoders, as SAELens, saev or Overcomplete wrote them, or .npz; layer "
        "LAYER~NAME has a neuron for each feature of the file NAME",
    )
    statistics: StatisticsSettings = StatisticsSettings()
    precision: Precision = Field("float32", description=PRECISION)
    manifest: Location | None = Field(
        None,
        description="JSON file with the number of samples of each shard, against which they are checked  "
        "[default: sizes.json or _info.json beside the shards, if it is there]",
    )
    labels: Location | None = Field(None, description=LABELS)
    label_key: str = Field("cls", min_length=1, description=LABEL_KEY)
    allow_rejected: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of shards that may be short, and of images that may be unusable where it is more than half, "
        "without failing the run",
    )
    extend: bool = Field(
        False,
        description="add the given shards that the store has not read; they must sort after those that it has read, "
        "which are not read again",
    )
    running: Running = Running()


class ReferencesJob(_Pass):
    """One pass over shards: rankings of layers, statistics of nodes, the sample index."""

    layers: tuple[str, ...] = Field(
        min_length=1,
        description="layers whose neurons get references: a module such as layer4.2, 'classes' for the network's "
        "output, layer4.2@3,3 for one site of each channel, layer4.2~NAME for directions or features",
    )
    batch: Batch = Field("auto", description=IMAGES)


class TargetsJob(Settings):
    """Targets of a layer's neurons from their references."""

    store: Location = Field(description="statistics store that holds the references")
    layer: str = Field(description="the neurons' layer, or 'classes'")
    neurons: str = Field("", description="ranges and lists, e.g. 0:64,70; all by default, rounded out to whole blocks")
    variant: VariantSettings = VariantSettings()
    precision: Precision = Field("float32", description=PRECISION)
    shards: tuple[Location, ...] = Field(
        (), description="where the shards are now, when they moved since the index was made"
    )
    batch: Batch = Field("auto", description=TOGETHER)
    running: Running = Running()


class AtlasJob(Settings):
    """Pictures of a layer's neurons from their targets."""

    store: Location = Field(description="statistics store that holds the targets")
    layer: str = Field(description="the neurons' layer, or 'classes'")
    out: Location = Field(description="atlas store to write: a path or an fsspec URL")
    neurons: str = Field("", description="ranges and lists, e.g. 0:64,70; all by default, rounded out to whole blocks")
    variant: VariantSettings = VariantSettings()
    picture: PictureSettings = PictureSettings()
    batch: Batch = Field("auto", description=BATCH)
    running: Running = Running()


class EvaluateJob(Settings):
    """Metrics of an atlas's pictures, written beside them."""

    atlas: Location = Field(description="atlas store whose pictures are measured")
    store: Location | None = Field(None, description="its statistics store  [default: where the atlas says it is]")
    layers: tuple[str, ...] = Field((), description="layers to measure; all of the atlas by default")
    judges: tuple[str, ...] = Field(
        (),
        description="other networks that look at the pictures: efficientnet_lite2, squeezenet, a torchvision model, "
        "package.module:factory, or open_clip:ARCHITECTURE/WEIGHTS",
    )
    download: bool = Field(False, description="fetch weights of judges that are not in the local cache")
    siblings: tuple[Location, ...] = Field(
        (), description="atlases of the same neurons made with other seeds: adds how much the pictures differ"
    )
    shards: tuple[Location, ...] = Field(
        (), description="where the shards are now, when they moved since the index was made"
    )
    running: Running = Running()


CLASS_WORDS = "classes"
"""What ``vocabulary`` may say instead of a file."""


class NamesJob(Settings):
    """Words for the neurons of an atlas's layers, written beside their pictures."""

    atlas: Location = Field(description="atlas store whose neurons are named")
    vocabulary: Location = Field(
        CLASS_WORDS,
        min_length=1,
        description="'classes', those of the data set or of the judge; or a text file of words, one a line, which "
        "takes a CLIP model as judge",
    )
    judge: str | None = Field(
        None,
        description="network that says how much a word is in an image: one that classifies, by its logits, or "
        "open_clip:ARCHITECTURE/WEIGHTS, by cosines  [default: the data set's labels say it]",
    )
    broader: Location | None = Field(
        None, description='JSON file of broader words, such as {"dog": ["golden retriever", "n02085620", 153]}'
    )
    layers: tuple[str, ...] = Field((), description="layers whose neurons are named; all of the atlas by default")
    words: int = Field(3, ge=1, le=20, description="words kept of a neuron")
    shuffles: int = Field(200, ge=20, description="how often images are shuffled to find what chance reaches")
    quantile: float = Field(
        0.95, gt=0, lt=1, description="share of the shuffles above whose best word a name must score"
    )
    download: bool = Field(False, description="fetch weights of the judge that are not in the local cache")
    store: Location | None = Field(None, description="its statistics store  [default: where the atlas says it is]")
    shards: tuple[Location, ...] = Field(
        (), description="where the shards are now, when they moved since the index was made"
    )
    running: Running = Running()


class LayerJob(Settings):
    """What a full run makes of one layer."""

    layer: str = Field(description="the neurons' layer, or 'classes'")
    neurons: str = Field("", description="ranges and lists, e.g. 0:64,70; all by default, rounded out to whole blocks")
    variant: VariantSettings = VariantSettings()
    picture: PictureSettings = PictureSettings()


class FullJob(_Pass):
    """Everything from shards to an atlas: one pass for all layers, then targets and pictures layer by layer."""

    out: Location = Field(description="atlas store: a path or an fsspec URL")
    pages: Folder | None = Field(
        None,
        description="folder for the atlas's pages, brought up to date when all pictures are made; an artifact links to "
        "it",
    )
    layers: tuple[LayerJob, ...] = Field(min_length=1, description="the layers, each with its own settings")
    pass_batch: Batch = Field("auto", description=IMAGES)
    target_batch: Batch = Field("auto", description=TOGETHER)
    batch: Batch = Field("auto", description=BATCH)

    def references(self) -> ReferencesJob:
        """The pass over the shards."""
        shared = {name: getattr(self, name) for name in _Pass.model_fields}
        layers = tuple(dict.fromkeys(part.layer for part in self.layers))
        return ReferencesJob(**shared, layers=layers, batch=self.pass_batch)

    def targets(self, part: LayerJob) -> TargetsJob:
        """The targets of one layer."""
        return TargetsJob(
            store=self.store,
            layer=part.layer,
            neurons=part.neurons,
            variant=part.variant,
            precision=self.precision,
            shards=self.shards,
            batch=self.target_batch,
            running=self.running,
        )

    def atlas(self, part: LayerJob) -> AtlasJob:
        """The pictures of one layer."""
        return AtlasJob(
            store=self.store,
            layer=part.layer,
            out=self.out,
            neurons=part.neurons,
            variant=part.variant,
            picture=part.picture,
            batch=self.batch,
            running=self.running,
        )


J = TypeVar("J", ReferencesJob, TargetsJob, AtlasJob, EvaluateJob, NamesJob)


def settled(job: J) -> J:
    """The same job for tasks: with paths that hold in any directory, and the threads that each task has."""
    changed: dict[str, object] = {"running": job.running.of_task}
    for name in ("store", "out", "atlas", "manifest", "labels", "vocabulary", "broader"):
        if (location := getattr(job, name, None)) is not None and location not in (*LABEL_WORDS, CLASS_WORDS):
            changed[name] = _absolute(location)
    if isinstance(job, ReferencesJob) and (weights := local_path(job.model.weights or "")) and weights.is_file():
        changed["model"] = job.model.model_copy(update={"weights": str(weights.absolute())})
    for name in ("shards", "siblings"):
        changed |= {name: tuple(_absolute(one) for one in getattr(job, name))} if hasattr(job, name) else {}
    return job.model_copy(update=changed)


def _absolute(location: str) -> str:
    # the output of a command is no path, and is refused as such where it is read
    path = None if "://" in location or location.startswith("pipe:") else local_path(location)
    return location if path is None else str(path.absolute())
