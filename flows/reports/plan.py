"""What a comparison of methods is asked to do, and the runs that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, model_validator

from flows.jobs import (
    LABEL_KEY,
    LABELS,
    AtlasJob,
    EvaluateJob,
    Folder,
    Location,
    ReferencesJob,
    Running,
    TargetsJob,
)
from vital.settings import (
    CLASSES,
    ModelSettings,
    PictureMethod,
    PictureSettings,
    Settings,
    StatisticsSettings,
    VariantSettings,
)

VITAL = "vital"
METHODS: tuple[PictureMethod, ...] = get_args(PictureMethod)

ABLATIONS: Mapping[str, Mapping[str, object]] = {
    "vital, with relevance": {"relevant_weight": 1.0},
    "vital, no own activation": {"own_weight": 0.0},
    "vital, no distributions": {"plain_weight": 0.0},
    "vital, no emphasis": {"emphasis": 0.0},
    "vital, pixels": {"parametrisation": "pixel"},
    "vital, as published": {"preset": "paper"},
}
"""What each part of the method contributes: the method without it, or with it where it is left out by default."""


def _of_pass(option: str) -> str:
    """What an option of the pass over the shards, which is the report's too, is for."""
    return ReferencesJob.model_fields[option].description or ""


class ReportJob(Settings):
    """Methods side by side: the same neurons, seeds and steps, measured in the same way."""

    out: Folder = Field(description="folder for the report, its pictures and everything they were made from")
    preset: Literal["embedded", "iccv2025"] = Field(
        "embedded",
        description="embedded: the embedded network and photographs; iccv2025: the table of the paper, five "
        "torchvision networks over ImageNet, whose shards are given",
    )
    shards: tuple[Location, ...] = Field(
        (), description="where references come from  [default: the embedded photographs]"
    )
    held_out: tuple[Location, ...] = Field(
        (), description="shards of labelled photographs that are no references  [default: half of every class's]"
    )
    labels: Location | None = Field(None, description=LABELS)
    label_key: str = Field("cls", min_length=1, description=LABEL_KEY)
    allow_rejected: float = Field(0.0, ge=0, le=1, description=_of_pass("allow_rejected"))
    extend: bool = Field(False, description=_of_pass("extend"))
    models: tuple[ModelSettings, ...] = Field((ModelSettings(),), min_length=1, description="the networks")
    layers: tuple[str, ...] = Field(
        (CLASSES, "_blocks.4", "_blocks.9", "_blocks.13"), min_length=1, description="layers whose neurons get pictures"
    )
    directions: tuple[Location, ...] = Field(
        (), description="matrices of directions × channels, whose neurons are those of the layers LAYER~NAME"
    )
    dictionaries: tuple[Location, ...] = Field((), description=_of_pass("dictionaries"))
    classes: str = Field("", description="class neurons, e.g. 0:64; all that have references by default")
    neurons: str = Field("0", description="neurons of the other layers, rounded out to whole blocks of 32")
    methods: tuple[PictureMethod, ...] = Field(METHODS, min_length=1, description="methods to compare")
    no_ablation: bool = Field(
        False, description="leave out the method without each of its parts, which is made under the first seed"
    )
    seeds: int = Field(3, ge=1, le=100, description="pictures of every neuron, each under its own seed")
    steps: int = Field(300, ge=1, le=100_000, description="optimisation steps, the same for all methods")
    side: int = Field(224, ge=16, le=2048, description="side of a picture in pixels")
    references: int = Field(12, ge=1, le=1000, description="references of a neuron")
    judges: tuple[str, ...] = Field(
        ("efficientnet_lite2", "squeezenet"), description="other networks that look at the pictures"
    )
    batch: int = Field(8, ge=1, description="pictures optimised together")
    running: Running = Running()

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, data: object) -> object:
        if isinstance(data, dict):
            usual = _ICCV if data.get("preset") == "iccv2025" else {}
            return {**usual, **{name: value for name, value in data.items() if value is not None}}
        return data

    @model_validator(mode="after")
    def _has_photographs(self) -> ReportJob:
        if self.preset == "iccv2025" and not (self.shards and self.held_out):
            raise ValueError(
                "preset iccv2025 needs ImageNet: give its training shards with --shards and its validation shards "
                "with --held-out"
            )
        return self


_ICCV: dict[str, object] = {
    "models": tuple(
        ModelSettings(name=name) for name in ("resnet50", "convnext_base", "densenet121", "vit_l_16", "vit_l_32")
    ),
    "layers": (CLASSES,),
    "methods": ("vital", "maco", "fourier", "deepinversion"),
    "judges": ("open_clip:ViT-B-32/openai",),
    "steps": 2000,
    "references": 50,
    "no_ablation": True,
}
"""The table in VITAL's experiments; its pictures are as published (`--preset paper`)."""


def models_of(preset: str | None, name: str | None, changes: Mapping[str, object]) -> tuple[ModelSettings, ...]:
    """The networks of a preset, or the one named, each with ``changes`` of its weights and input."""
    usual = _ICCV["models"] if preset == "iccv2025" else (ModelSettings(),)
    assert isinstance(usual, tuple)
    models = (ModelSettings(name=name),) if name else usual
    return tuple(ModelSettings.model_validate({**model.model_dump(), **changes}) for model in models)


@dataclass(frozen=True)
class Case:
    """One atlas of the comparison: a layer's pictures by one method under one seed."""

    label: str
    layer: str
    seed: int
    picture: PictureSettings

    @property
    def name(self) -> str:
        """The name of its atlas's folder, without the ending."""
        return f"{self.label.replace(', ', '-').replace(' ', '-')}-seed{self.seed}"


@dataclass(frozen=True)
class Comparison:
    """All runs for one network, in a folder of their own."""

    job: ReportJob
    model: ModelSettings
    shards: tuple[str, ...]
    held_out: tuple[str, ...]
    folder: Path
    left_out: Mapping[str, str]
    """Methods that the network does not allow, and why."""

    @property
    def store(self) -> str:
        """Path of the statistics store."""
        return str(self.folder / "statistics.zarr")

    def atlas(self, case: Case) -> str:
        """Path of the atlas of a case's pictures."""
        return str(self.folder / "atlases" / f"{case.name}.zarr")

    def references(self) -> ReferencesJob:
        """The job that reads the photographs and chooses references among them."""
        return ReferencesJob(
            shards=self.shards, store=self.store, model=self.model, layers=self.job.layers,
            directions=self.job.directions, dictionaries=self.job.dictionaries, labels=self.job.labels,
            label_key=self._label_key, allow_rejected=self.job.allow_rejected, extend=self.job.extend,
            statistics=StatisticsSettings(references=self.job.references), running=self.job.running,
        )  # fmt: skip

    @property
    def _label_key(self) -> str:
        """What says a class: where photographs were held out of the shards, both parts have files of their own."""
        return self.job.label_key if self.job.held_out else "cls"

    def variant(self, layer: str) -> VariantSettings:
        """How targets are measured: as the paper's table has it for classes, of whole images for the embedded ones."""
        return VariantSettings() if layer == CLASSES else VariantSettings(crop=self._crop)

    @property
    def _crop(self) -> Literal["image", "patch"]:
        return "image" if self.job.preset == "embedded" else "patch"

    def asked(self, layer: str) -> str:
        """The neurons of a layer that get pictures, as a job names them; "" for all."""
        return self.job.classes if layer == CLASSES else self.job.neurons

    def targets(self, layer: str) -> TargetsJob:
        """The job that measures a layer's targets."""
        return TargetsJob(
            store=self.store,
            layer=layer,
            neurons=self.asked(layer),
            variant=self.variant(layer),
            running=self.job.running,
        )

    def pictures(self, case: Case) -> AtlasJob:
        """The job that makes a case's pictures."""
        return AtlasJob(
            store=self.store, layer=case.layer, out=self.atlas(case), neurons=self.asked(case.layer),
            variant=self.variant(case.layer), picture=case.picture, batch=self.job.batch, running=self.job.running,
        )  # fmt: skip

    def evaluation(self, case: Case, cases: list[Case]) -> EvaluateJob:
        """The job that measures a case's metrics; the same method's other seeds are its siblings."""
        siblings = [
            self.atlas(one)
            for one in cases
            if (one.label, one.layer) == (case.label, case.layer) and one.seed != case.seed
        ]
        return EvaluateJob(
            atlas=self.atlas(case), layers=(case.layer,), judges=self.job.judges, siblings=tuple(siblings),
            download=self.model.download, running=self.job.running,
        )  # fmt: skip

    def cases(self) -> list[Case]:
        """Every picture run, seed by seed, so that a report of the first seeds can be had early."""
        return [case for seed in range(self.job.seeds) for case in self._of_seed(seed)]

    def _of_seed(self, seed: int) -> Iterator[Case]:
        shared = {"steps": self.job.steps, "side": self.job.side, "seed": seed}
        for layer in self.job.layers:
            for method in self.job.methods:
                if method in self.left_out:
                    continue
                published = self.job.preset == "iccv2025"
                preset = "paper" if method == VITAL and published else "natural"
                precision = "float32" if published else "auto"  # the same arithmetic for all: the paper's is exact
                how = PictureSettings(method=method, preset=preset, precision=precision, **shared)
                yield Case(method, layer, seed, how)
            if not self.job.no_ablation and seed == 0:
                yield from self._ablated(layer, shared)

    def _ablated(self, layer: str, shared: Mapping[str, int]) -> Iterator[Case]:
        for label, changed in ABLATIONS.items():
            if layer == CLASSES and label == "vital, with relevance":
                continue  # class neurons have none
            settings: dict[str, object] = {**shared, **changed}
            yield Case(label, layer, 0, PictureSettings.model_validate(settings))
