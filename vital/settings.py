"""Settings: frozen, bounded, described once. They are the command's options, the flows' parameters and what a store
records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vital.channels import MOST_CHANNELS, SHOWN, Numbers, Shown
from vital.errors import UnsuitableInput, nearest

RelevanceKind = Literal["lrp", "lrp-gamma", "lrp-restricted", "gradient-x-activation"]
Precision = Literal["float32", "tf32", "bfloat16"]
AskedPrecision = Literal["auto", "float32", "tf32", "bfloat16"]
JpegDecoder = Literal["simplejpeg", "nvjpeg"]
PictureMethod = Literal["vital", "pixel", "fourier", "maco", "deepinversion"]

CLASSES = "classes"
"""The name of the network's output as a layer: one channel a class, one site."""

EMBEDDED = "efficientnet_lite0"
"""The name of the model whose weights come as a package (extra ``demo``)."""


SMALLEST_SIDE, LARGEST_SIDE = 16, 2048
"""Of an input and of a picture, in pixels."""


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown names are refused."""

    # Errors do not repeat what came: it may hold a password.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


S = TypeVar("S", bound=Settings)


def checked(kind: type[S], values: Mapping[str, Any], beside: Sequence[str] = ()) -> S:
    """Settings of this kind from keyword arguments; raises `UnsuitableInput`, one sentence, where one is unknown or out
    of bounds. What else could have been meant are the arguments ``beside`` them.

    >>> checked(ModelSettings, {"name": "resnet50"}).name
    'resnet50'
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = nearest(name, [*kind.model_fields, *beside])
            raise UnsuitableInput(f"there is no setting {name!r}; the nearest are {known}") from None
        text = first["msg"].removeprefix("Value error, ")
        if first["type"] == "value_error":  # our own checks say what came, and never a password
            raise UnsuitableInput(f"{name}: {text}" if name else text) from None
        if first["type"] == "missing":
            raise UnsuitableInput(f"{name} is missing: give it") from None
        raise UnsuitableInput(f"{name} = {_at(values, first['loc'])!r}: {text}" if name else text) from None


def _at(values: Any, path: tuple[int | str, ...]) -> Any:
    """The value that a path leads to; what it is in, where the path goes on into a choice of types."""
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
    return values


class ModelSettings(Settings):
    """Which network, with which weights and which preprocessing."""

    name: str = Field(
        EMBEDDED,
        description=f"a torchvision model, {EMBEDDED} (embedded), timm/NAME, hf/ORGANISATION/NAME or hf/FOLDER, "
        "open_clip/ARCHITECTURE/WEIGHTS, or package.module:factory",
    )
    weights: str | None = Field(
        None,
        description="a torchvision weights name, a file of weights (a state dict, a checkpoint that holds one, or "
        "safetensors), or 'random'; by default the published ones",
    )
    download: bool = Field(False, description="fetch published weights that are not in the local cache")
    input_size: int | None = Field(
        None, ge=SMALLEST_SIDE, le=LARGEST_SIDE, description="side of the input in pixels, when not the weights' own"
    )
    channels: int | None = Field(
        None,
        ge=1,
        le=MOST_CHANNELS,
        description="channels of the input: 3 colours; 1, the luminance; or others, such as a satellite's bands, of "
        "images that are .npy or TIFF; by default what the network takes",
    )
    mean: Numbers | None = Field(None, description="mean of each colour or channel (0..1), when not the weights' own")
    std: Numbers | None = Field(
        None, description="deviation of each colour or channel (0..1), when not the weights' own"
    )
    black: Numbers | None = Field(
        None,
        description="a file's value that is 0 of a channel  [default: 0; white 255 of bytes, 65535 of 16 bits, 1 of "
        "floats]",
    )
    white: Numbers | None = Field(None, description="value of a file that is 1 of a channel, as --black")
    shown: Shown | None = Field(None, description=SHOWN)


class StatisticsSettings(Settings):
    """How much one pass over the shards keeps: references of each neuron, levels of each row."""

    references: int = Field(50, ge=1, le=1000, description="reference images kept for each neuron")
    queries: int = Field(
        20,
        ge=0,
        le=1000,
        description="images kept beyond the references, by which pictures are judged: ten, without those that targets "
        "learn from",
    )
    sample: int = Field(
        2000,
        ge=0,
        le=1_000_000,
        description="images drawn by lot on which every neuron's peak is kept; of more than 16,000 neurons fewer, such "
        "that a layer takes 128 MiB",
    )
    lowest: bool = Field(False, description="keep the images with each neuron's most negative activations, too")
    levels: int = Field(128, ge=8, le=1024, description="levels kept of a sorted row with more sites than that")
    jpeg: JpegDecoder = Field(
        "simplejpeg",
        description="what decodes JPEG images in the pass: simplejpeg on the processor, or nvjpeg on a GPU, whose "
        "pixels differ slightly; a store keeps to one",
    )


MOST_FACETS = 4
"""Facets that a neuron has at most, where it is to have as many as its references show."""


def _most_facets(asked: object) -> object:
    if asked != "auto" and not str(asked).isdecimal():
        raise ValueError(f"auto or a number from 1 to 9 was expected, but {str(asked)!r} was given")
    return MOST_FACETS if asked == "auto" else asked


class VariantSettings(Settings):
    """How targets are measured from a neuron's references. A store may hold several variants side by side."""

    crop: Literal["patch", "image"] = Field(
        "image",
        description="the whole image, of which pictures match what differs from the data set's; or the patch around "
        "the winning site; classes use images",
    )
    relevance: RelevanceKind = Field("lrp", description="how relevance to a neuron inside the network is computed")
    references: int | None = Field(
        None, ge=1, le=1000, description="references used, the best first; all that are stored by default"
    )
    fewest: int = Field(
        1, ge=1, description="neurons with fewer references than this are recorded as such and not measured"
    )
    nodes: tuple[str, ...] = Field((), description="layers whose activations are matched; chosen by default")
    facets: Annotated[Annotated[int, Field(ge=1, le=9)] | Literal["auto"], BeforeValidator(_most_facets)] = Field(
        1,
        description="most facets of a neuron, each with a target and a picture of its own: groups of its references, "
        f"where a test tells them apart (p at most 0.01), which most neurons pass as one; auto is {MOST_FACETS}",
    )
    split: Literal["tested", "always"] = Field(
        "tested",
        description="when references are divided into facets: where the test tells them apart; or always, into as many "
        "as --facets says, so that every neuron is shown by several pictures",
    )

    @model_validator(mode="after")
    def _something_to_split(self) -> VariantSettings:
        if self.split == "always" and self.most_facets == 1:
            raise ValueError("split is always but facets is 1: say into how many references are divided, from 2 to 9")
        return self

    @property
    def most_facets(self) -> int:
        """Of a neuron; 1 where references are not grouped."""
        return int(self.facets)

    def label(self, classes: bool) -> str:
        """The variant's name in a store, e.g. ``image-lrp`` or ``image-lrp-20-facets4``, or ``image-lrp-split4`` where
        they are always split; class neurons have neither patches nor relevance: ``image``."""
        count = f"-{self.references}" if self.references else ""
        divided = "split" if self.split == "always" else "facets"
        count += f"-{divided}{self.facets}" if self.most_facets > 1 else ""
        return f"image{count}" if classes else f"{self.crop}-{self.relevance}{count}"


class PictureSettings(Settings):
    """How a picture is optimised. A preset fills in what is not given; every field is recorded beside the pictures."""

    preset: Literal["natural", "paper"] = Field(
        "natural",
        description="natural: readable pictures, whose defaults stand below; paper: as published, which is "
        "--steps 2000 --parametrisation pixel --learning-rate 1 --warmup 100 --betas 0.5 0.9 --jitter 30 "
        "and relevant activations alone at the published weights",
    )
    method: PictureMethod = Field(
        "vital",
        description="vital; or a baseline, which activates the neuron instead of matching its target and has defaults "
        "of its own: pixel (Erhan et al. 2009), fourier (Olah et al. 2017), maco (Fel et al. 2023), "
        "deepinversion (Yin et al. 2020)",
    )
    steps: int = Field(300, ge=1, le=100_000, description="optimisation steps")
    side: int = Field(
        224,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of a picture in pixels; it may differ from the model's input",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of every picture's own random stream")
    parametrisation: Literal["pixel", "fourier", "phase"] = Field(
        "fourier",
        description="what Adam moves: pixels, Fourier coefficients of decorrelated colours, or the phases alone of the "
        "data set's mean spectrum",
    )
    learning_rate: float = Field(0.1, gt=0, description="Adam's peak learning rate")
    warmup: int = Field(20, ge=0, description="steps of linear warm-up; then a cosine to zero")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.99), description="Adam's decay rates"
    )
    jitter: int = Field(
        16, ge=0, description="greatest shift of each step, in pixels of a 224-pixel picture; scales with the side"
    )
    rotation: float = Field(
        10.0, ge=0, le=180, description="greatest turn of each step in degrees; of method vital only for classes"
    )
    zoom: float = Field(
        0.1, ge=0, lt=1, description="greatest enlargement or shrinking, as a share; of method vital only for classes"
    )
    window: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        (0.4, 0.9),
        description="least and greatest share of the side of a random crop, enlarged to the whole; of method vital "
        "only for classes, every second step, whose loss is the class's logit alone",
    )
    noise: float = Field(
        0.3,
        ge=0,
        description="deviation of noise added to a step's picture, in the network's units; falls to zero; of method "
        "vital only for classes, in steps with a random crop",
    )
    softness: float = Field(
        0.5,
        ge=0,
        description="greatest blur of each step, as its deviation in pixels of a 224-pixel picture: what it removes "
        "does not count",
    )
    own_weight: float | None = Field(
        None,
        ge=0,
        description="weight of matching the neuron's own activations; for a class, of its cross-entropy, and "
        "of a tenth of its logit in steps with a random crop  [default: 0.5, of a class 1, and 2 by a baseline]",
    )
    own_boost: float = Field(
        1.8, ge=1, description="own activations aimed at, as a multiple of the references' own; not for classes"
    )
    plain_weight: float = Field(3.0, ge=0, description="weight of matching whole activations")
    emphasis: float = Field(
        1.0,
        ge=0,
        description="how far whole activations are pushed from the data set's own along what goes with the neuron, a "
        "caricature; whole images only",
    )
    relevant_weight: float = Field(
        0.0, ge=0, description="weight of matching relevant activations; above 0 a step costs more than twice as much"
    )
    total_variation: float | None = Field(
        None, ge=0, description="weight of the total variation  [default: none; preset paper: as published]"
    )
    norm: float | None = Field(
        None, ge=0, description="weight of the picture's norm  [default: none; preset paper: as published]"
    )
    norm_matching: float = Field(
        0.0, ge=0, description="weight of matching the means and variances kept by batch norms (method deepinversion)"
    )
    precision: AskedPrecision = Field(
        "auto",
        description="arithmetic of the network: float32 is exact, the others are faster on a GPU; auto is bfloat16 on "
        "a GPU that has it, float32 elsewhere and with preset paper",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        if "grain" in data:
            raise ValueError("grain is called noise since version 0.2.0: give noise")
        for name in sorted(_GONE & data.keys()):
            raise ValueError(f"{name} is gone since version 0.2.0, since nothing was gained by it: leave it out")
        usual = _PAPER if data.get("preset") == "paper" else _BASELINES.get(str(data.get("method")), {})
        return {**usual, **{name: value for name, value in data.items() if value is not None}}

    @model_validator(mode="after")
    def _something_to_match(self) -> PictureSettings:
        if self.method != "vital" and self.preset == "paper":
            raise ValueError(f"preset paper is of method vital: leave out the preset for method {self.method}")
        if self.window[0] > self.window[1]:
            raise ValueError("the least share of a window is above its greatest")
        if self.own_weight == self.plain_weight == self.relevant_weight == 0:
            raise ValueError("own, plain and relevant activations all have no weight: nothing is left to match")
        return self

    def weight_of_own(self, classes: bool) -> float:
        """Weight of the neurons' own activations, or of classes' cross-entropy.

        >>> PictureSettings().weight_of_own(classes=True), PictureSettings(method="maco").weight_of_own(classes=True)
        (1.0, 2.0)
        """
        if self.own_weight is not None:
            return self.own_weight
        # What a baseline adds to it is weighed as it was published, against twice the cross-entropy.
        return 0.5 if not classes else 1.0 if self.method == "vital" else 2.0


_GONE = {"coarse", "depth", "own_share", "plain_nodes", "scaling"}
"""Settings of version 0.1 that atlases and jobs of that time name."""
_PAPER = {
    "steps": 2000, "parametrisation": "pixel", "learning_rate": 1.0, "warmup": 100, "betas": (0.5, 0.9), "jitter": 30,
    "softness": 0.0, "own_weight": 0.0, "own_boost": 1.0, "plain_weight": 0.0,
    "rotation": 0.0, "zoom": 0.0, "window": (1.0, 1.0), "noise": 0.0,
    "relevant_weight": 1.0, "emphasis": 0.0, "precision": "float32",
}  # fmt: skip
"""VITAL, section 4 and its released code; TV and norm weights differ by architecture: `vital.network.nodes`."""

_ASCENT = {
    "softness": 0.0, "warmup": 0, "betas": (0.9, 0.999), "rotation": 0.0, "zoom": 0.0,
    "window": (1.0, 1.0), "noise": 0.0,
}  # fmt: skip
_BASELINES: dict[str, dict[str, object]] = {
    "pixel": _ASCENT | {"parametrisation": "pixel", "learning_rate": 0.05, "jitter": 0, "norm": 0.01},
    "fourier": _ASCENT | {"learning_rate": 0.05, "jitter": 12, "rotation": 10.0, "zoom": 0.1},
    "maco": _ASCENT
    | {"parametrisation": "phase", "learning_rate": 0.3, "jitter": 0, "window": (0.3, 0.8), "noise": 0.3},
    "deepinversion": _ASCENT
    | {
        "parametrisation": "pixel", "learning_rate": 0.25, "betas": (0.5, 0.9), "jitter": 30,
        "total_variation": 1e-4, "norm": 1e-5, "norm_matching": 0.01,
    },
}  # fmt: skip
"""What each baseline is published with, where one picture a step and few steps allow it (docs/baselines.md)."""
