"""What the recipes that make a store are asked: a pass over shards, targets, pictures, and all three as one run."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from flows.jobs.fields import (
    BATCH,
    IMAGES,
    LABEL_KEY,
    LABELS,
    PRECISION,
    SOURCE,
    TOGETHER,
    Batch,
    Folder,
    Location,
    Source,
    without_secret,
)
from flows.jobs.running import Running
from vital.settings import ModelSettings, PictureSettings, Precision, Settings, StatisticsSettings, VariantSettings

BLOCK = 32
"""Neurons of a block: one Zarr shard, written by one task."""


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

    @model_validator(mode="after")
    def _weights_without_secret(self) -> _Pass:
        without_secret(self.model.weights or "")
        return self


class ReferencesJob(_Pass):
    """One pass over shards: rankings of layers, statistics of nodes, the sample index."""

    layers: tuple[str, ...] = Field(
        min_length=1,
        description="layers whose neurons get references: a module such as layer4.2, 'classes' for the network's "
        "output, layer4.2@3,3 for one site of each channel, layer4.2~NAME for directions or features",
    )
    nodes: tuple[str, ...] = Field(
        (), description="layers that targets are to match beside the default ones: their statistics are kept, too"
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
    targets: Source = Field("stored", description=SOURCE)
    shards: tuple[Location, ...] = Field(
        (), description="with --targets fly: where the shards are now, when they moved since the index was made"
    )
    target_precision: Precision = Field("float32", description="with --targets fly: arithmetic while they are measured")
    target_batch: Batch = Field("auto", description=f"with --targets fly: {TOGETHER}")
    running: Running = Running()

    @model_validator(mode="after")
    def _of_the_fly_alone(self) -> AtlasJob:
        if self.targets == "stored" and (
            self.shards or (self.target_precision, self.target_batch) != ("float32", "auto")
        ):
            raise ValueError(
                "shards, target_precision and target_batch say how targets are measured, and stored ones are: give "
                "targets fly with them"
            )
        return self

    def measuring(self) -> TargetsJob:
        """What would measure the targets of the same neurons."""
        return _targets(self, self, self.target_precision)


class LayerJob(Settings):
    """What a full run makes of one layer."""

    layer: str = Field(description="the neurons' layer, or 'classes'")
    neurons: str = Field("", description="ranges and lists, e.g. 0:64,70; all by default, rounded out to whole blocks")
    variant: VariantSettings = VariantSettings()
    picture: PictureSettings = PictureSettings()
    targets: Source = Field("stored", description=SOURCE)


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

    @model_validator(mode="after")
    def _one_kind_of_pictures(self) -> FullJob:
        """What the atlas would refuse, but only after the pass."""
        if self.out.rstrip("/") == self.store.rstrip("/"):
            raise ValueError("store and out are the same, and an atlas is a store of its own: give another out")
        first: dict[str, LayerJob] = {}
        for part in self.layers:
            before = first.setdefault(part.layer, part)
            if (part.variant, part.picture) != (before.variant, before.picture):
                raise ValueError(
                    f"layer {part.layer!r} is asked for twice with other settings, and an atlas has one kind of "
                    "pictures of a layer: make the others in a job with another out"
                )
        return self

    def references(self) -> ReferencesJob:
        """The pass over the shards."""
        shared = {name: getattr(self, name) for name in _Pass.model_fields}
        layers = tuple(dict.fromkeys(part.layer for part in self.layers))
        nodes = tuple(dict.fromkeys(node for part in self.layers for node in part.variant.nodes))
        return ReferencesJob(**shared, layers=layers, nodes=nodes, batch=self.pass_batch)

    def targets(self, part: LayerJob) -> TargetsJob:
        """The targets of one layer."""
        return _targets(self, part, self.precision)

    def atlas(self, part: LayerJob) -> AtlasJob:
        """The pictures of one layer."""
        of_fly: dict[str, Any] = {
            "shards": self.shards,
            "target_precision": self.precision,
            "target_batch": self.target_batch,
        }
        of_fly = of_fly if part.targets == "fly" else {}
        return AtlasJob(
            store=self.store,
            layer=part.layer,
            out=self.out,
            neurons=part.neurons,
            variant=part.variant,
            picture=part.picture,
            batch=self.batch,
            targets=part.targets,
            running=self.running,
            **of_fly,
        )


def _targets(job: AtlasJob | FullJob, part: AtlasJob | LayerJob, precision: Precision) -> TargetsJob:
    """What measures the targets of a part of a job: a layer's neurons."""
    return TargetsJob(
        store=job.store,
        layer=part.layer,
        neurons=part.neurons,
        variant=part.variant,
        precision=precision,
        shards=job.shards,
        batch=job.target_batch,
        running=job.running,
    )
