"""Judges, which are networks that pictures were not made for: how they classify pictures, and with what features.

A judge gets the stored bytes, resized to its own input and normalised as its weights want.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from vital.errors import UnknownModel, UnsuitableInput, nearest
from vital.memory import by_parts
from vital.network.arithmetic import rounding
from vital.network.models import Model, load_model, weights_digest
from vital.network.preprocessing import Preprocessing
from vital.network.probe import anchor, forward, scores
from vital.network.sources import torchvision_models
from vital.settings import ModelSettings

CLIP = "open_clip:"
PROMPT = "a photo of a {}"
SCALE = 100.0
"""Of cosines to logits, as CLIP has learnt it (Radford et al., 2021); it does not change the order of the classes."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's own (Radford et al., 2021), for models that state none."""


@dataclass(frozen=True)
class JudgeOutput:
    """What a judge gives for some pictures."""

    logits: Float[Tensor, "picture class"]
    features: Float[Tensor, "picture feature"]
    """Input of the last linear map or convolution, mean over positions; CLIP's embedding of the picture."""


@dataclass(frozen=True, eq=False)
class Judge:
    """A network as a judge of pictures; ``classes`` is how many it tells apart."""

    name: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    classes: int
    forward: Callable[[Float[Tensor, "picture colour side side"]], JudgeOutput]
    """The network, on normalised pictures at its own side."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    identity: Mapping[str, Any] = field(default_factory=dict)
    shown_channels: tuple[int, ...] = ()
    """Of pictures of other channels those that it is shown as red, green and blue, or one as grey."""

    @rounding()
    def outputs(self, pixels: Num[Tensor, "picture colour row column"]) -> JudgeOutput:
        """Logits and features of pictures of any side; of fewer together, where memory runs out."""
        parts = by_parts(len(pixels), lambda part: self._outputs(pixels[part]))
        return JudgeOutput(torch.cat([one.logits for one in parts]), torch.cat([one.features for one in parts]))

    def _outputs(self, pixels: Num[Tensor, "picture colour row column"]) -> JudgeOutput:
        side = self.preprocessing.side
        if self.shown_channels and pixels.shape[1] != self.preprocessing.colours:
            pixels = pixels[:, list(self.shown_channels * (3 // len(self.shown_channels)))]
        shown = pixels.to(self.device).float()
        if shown.shape[-2:] != (side, side):
            shown = F.interpolate(shown, (side, side), mode="bilinear", antialias=True)
        with torch.inference_mode():
            return self.forward(self.preprocessing.normalise(shown))

    def features(self, pixels: Num[Tensor, "picture colour row column"]) -> Float[np.ndarray, "picture feature"]:
        """Those of `outputs`, on the host in single precision."""
        features: np.ndarray = self.outputs(pixels).features.float().numpy(force=True)
        return features


def own_judge(model: Model) -> Judge:
    """The network that pictures were made for, as a judge of them."""
    network = model.network
    device = anchor(network).device

    def both(images: Tensor) -> JudgeOutput:
        return _both(network, images)

    side = model.preprocessing.side
    with torch.inference_mode():
        classes = both(torch.zeros(1, model.preprocessing.colours, side, side, device=device)).logits.shape[1]
    identity = {"model": model.name, "weights": model.identity.get("weights", "")}
    return Judge(model.name, model.preprocessing, model.class_names, classes, both, device, identity)


@rounding()
def load_judge(name: str, classes: Sequence[str], device: torch.device | None = None, download: bool = False) -> Judge:
    """The judge of this name: one of the models that `vital.network.models.load_model` knows, or
    ``open_clip:ARCHITECTURE/WEIGHTS``, which classifies into ``classes`` without having been trained to (zero-shot).

    Raises:
        UnknownModel: there is no such model, or its weights cannot be had; with the way out.
    """
    if name.startswith(CLIP):
        return _clip(name, classes, device or torch.device("cpu"), download)
    model = load_model(ModelSettings(name=name, download=download))
    model.network.to(device)
    return own_judge(model)


def same_classes(judge: Judge, class_names: Sequence[str], classes: int) -> None:
    """Raises `UnsuitableInput` where the judge tells other classes apart than the network that pictures were made for.

    As many, and where both have names for them, at least half of these alike: packages spell ImageNet's names
    differently, and two different sets of classes have hardly one in common.
    """
    if judge.classes != classes:
        raise UnsuitableInput(
            f"judge {judge.name!r} tells {judge.classes} classes apart but the atlas's network {classes}: name a judge "
            "of the same classes, or measure another layer than classes"
        )
    if len(class_names) != classes or len(judge.class_names) != classes:
        return
    different = [
        (one, other) for one, other in zip(class_names, judge.class_names, strict=True) if _plain(one) != _plain(other)
    ]
    if 2 * len(different) > classes:
        raise UnsuitableInput(
            f"judge {judge.name!r} has class {different[0][1]!r} where the atlas's network has {different[0][0]!r}: "
            "name a judge of the same classes, in the same order"
        )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.split(",")[0].casefold() if letter.isalnum())


def _both(network: nn.Module, images: Tensor) -> JudgeOutput:
    last: list[Tensor] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        last[:] = [inputs[0]]

    handles = [
        module.register_forward_pre_hook(watch)
        for module in network.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        logits = scores(forward(network, images), len(images))
    finally:
        for handle in handles:
            handle.remove()
    if logits is None:
        raise UnsuitableInput("a judge's output must be one number for each class: name a network that classifies")
    features = last[0].float()
    if features.dim() > 2:  # maps are (picture, channel, row, column), tokens (picture, token, channel)
        features = features.flatten(2).mean(2) if features.dim() == 4 else features.mean(1)
    return JudgeOutput(logits, features)


def _first_tag(package: Any, architecture: str) -> str:
    return str(next(iter(package.list_pretrained_tags_by_model(architecture)), "WEIGHTS"))


def _clip(name: str, classes: Sequence[str], device: torch.device, download: bool) -> Judge:
    try:
        torchvision_models()  # open_clip imports it, and so it works beside any torch
        package = importlib.import_module("open_clip")
    except ModuleNotFoundError as error:
        raise UnknownModel(f"judge {name!r} needs the package open_clip: pip install open_clip_torch") from error
    if not classes:
        raise UnsuitableInput(
            f"judge {name!r} needs the classes' names, which the atlas's network does not know: name another judge"
        )
    architecture, _, weights = name.removeprefix(CLIP).partition("/")
    if architecture not in package.list_models():
        raise UnknownModel(
            f"open_clip has no model {architecture!r}; the nearest are {nearest(architecture, package.list_models())}"
        )
    if not weights:
        raise UnknownModel(
            f"judge {name!r} names no weights, and random ones know no words: give {CLIP}{architecture}/FILE, or a "
            f"name of weights with --download, such as {CLIP}{architecture}/{_first_tag(package, architecture)}"
        )
    if not (download or Path(weights).is_file()):
        raise UnknownModel(
            f"the weights {weights!r} of {architecture} are no file: add --download (download=True) to fetch them "
            "by name, or "
            f"give a file as {CLIP}{architecture}/FILE"
        )
    published = package.get_pretrained_cfg(architecture, weights) or {}
    try:
        # some weights were trained with another nonlinearity than their architecture names; open_clip only warns of it
        network = package.create_model(
            architecture, pretrained=weights, device=device, force_quick_gelu=bool(published.get("quick_gelu"))
        )
    except Exception as error:  # it raises whatever its parts do, of weights of another architecture as of a lost file
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise UnknownModel(
            f"open_clip cannot make {architecture} with the weights {weights!r} ({why}): give weights of {architecture}"
        ) from error
    network.requires_grad_(False).eval()
    tokens = package.get_tokenizer(architecture)([PROMPT.format(one) for one in classes]).to(device)
    with torch.inference_mode():
        texts = F.normalize(torch.cat([network.encode_text(part) for part in tokens.split(64)]), dim=-1)

    def judged(images: Tensor) -> JudgeOutput:
        features = F.normalize(network.encode_image(images), dim=-1)
        return JudgeOutput(SCALE * features @ texts.T, features)

    visual = network.visual
    side = visual.image_size[0] if isinstance(visual.image_size, tuple | list) else visual.image_size
    shown = Preprocessing(int(side), tuple(visual.image_mean or MEAN), tuple(visual.image_std or STD))
    identity = {"model": name, "weights": weights_digest(network)}
    return Judge(name, shown, tuple(classes), len(classes), judged, device, identity)
