"""What a flow is asked to do: frozen settings, the parameters of the deployments and the options of the command."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vital.settings import ModelSettings, PictureSettings, Settings, StatisticsSettings, VariantSettings

BLOCK = 32
"""Neurons of a block: one Zarr shard, written by one task."""


class Place(Settings):
    """Where tasks run."""

    threads: int | None = Field(None, ge=1, description="torch's threads; all cores by default")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")


class ReferencesJob(Settings):
    """One pass over shards: rankings of layers, statistics of nodes, the sample index."""

    shards: tuple[str, ...] = Field(min_length=1, description="tars: paths, folders, globs, braces {000..009} or URLs")
    store: str = Field(description="statistics store: a path or an fsspec URL")
    model: ModelSettings = ModelSettings()
    layers: tuple[str, ...] = Field(
        min_length=1,
        description="layers whose neurons get references: a module such as layer4.2, 'classes' for the network's "
        "output, layer4.2@3,3 for one site of each channel, layer4.2~NAME for directions",
    )
    directions: tuple[str, ...] = Field(
        (),
        description="matrices of directions × channels (.npy or a Zarr array); layer LAYER~NAME has a neuron for each "
        "direction of the file NAME",
    )
    statistics: StatisticsSettings = StatisticsSettings()
    allow_rejected: float = Field(
        0.0, ge=0, le=1, description="share of shards that may end too early without failing the run"
    )
    extend: bool = Field(
        False,
        description="add the given shards that the store has not read; they must sort after those that it has read, "
        "which are not read again",
    )
    place: Place = Place()


class MomentsJob(Settings):
    """Targets of a layer's neurons from their references."""

    store: str = Field(description="statistics store that holds the references")
    layer: str = Field(description="the neurons' layer, or 'classes'")
    neurons: str = Field("", description="ranges and lists, e.g. 0:64,70; all by default, rounded out to whole blocks")
    variant: VariantSettings = VariantSettings()
    shards: tuple[str, ...] = Field(
        (), description="where the shards are now, when they moved since the index was made"
    )
    place: Place = Place()


class AtlasJob(Settings):
    """Pictures of a layer's neurons from their targets."""

    store: str = Field(description="statistics store that holds the targets")
    layer: str = Field(description="the neurons' layer, or 'classes'")
    out: str = Field(description="atlas store to write: a path or an fsspec URL")
    neurons: str = Field("", description="ranges and lists, e.g. 0:64,70; all by default, rounded out to whole blocks")
    variant: VariantSettings = VariantSettings()
    picture: PictureSettings = PictureSettings()
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="pictures optimised together")
    place: Place = Place()


class LayerJob(Settings):
    """What a full run makes of one layer."""

    layer: str = Field(description="the neurons' layer, or 'classes'")
    neurons: str = Field("", description="ranges and lists, e.g. 0:64,70; all by default, rounded out to whole blocks")
    variant: VariantSettings = VariantSettings()
    picture: PictureSettings = PictureSettings()


class FullJob(Settings):
    """Everything from shards to an atlas: one pass for all layers, then targets and pictures layer by layer."""

    shards: tuple[str, ...] = Field(min_length=1, description="tars: paths, folders, globs, braces {000..009} or URLs")
    store: str = Field(description="statistics store: a path or an fsspec URL")
    out: str = Field(description="atlas store: a path or an fsspec URL")
    model: ModelSettings = ModelSettings()
    layers: tuple[LayerJob, ...] = Field(min_length=1, description="the layers, each with its own settings")
    directions: tuple[str, ...] = Field((), description="matrices of directions × channels, as in a references job")
    statistics: StatisticsSettings = StatisticsSettings()
    allow_rejected: float = Field(
        0.0, ge=0, le=1, description="share of shards that may end too early without failing the run"
    )
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="pictures optimised together")
    place: Place = Place()

    def references(self) -> ReferencesJob:
        """The pass over the shards."""
        return ReferencesJob(
            shards=self.shards,
            store=self.store,
            model=self.model,
            layers=tuple(dict.fromkeys(part.layer for part in self.layers)),
            directions=self.directions,
            statistics=self.statistics,
            allow_rejected=self.allow_rejected,
            place=self.place,
        )

    def moments(self, part: LayerJob) -> MomentsJob:
        """The targets of one layer."""
        return MomentsJob(
            store=self.store,
            layer=part.layer,
            neurons=part.neurons,
            variant=part.variant,
            shards=self.shards,
            place=self.place,
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
            place=self.place,
        )
