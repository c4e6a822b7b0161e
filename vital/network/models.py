"""A network ready to be asked, loaded by name or wrapped as it lives in this process; the same at another input
side."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vital.errors import UnsuitableInput
from vital.network.layers import survey
from vital.network.nodes import LayerTable, layer_table
from vital.network.preprocessing import Interpolation, Preprocessing
from vital.network.sources import Colour, load_network
from vital.network.sources.fitting.resolution import at_resolution
from vital.network.sources.fitting.shown import rows_first, settled
from vital.network.sources.fitting.usable import refuse, usable
from vital.settings import CLASSES, EMBEDDED, LARGEST_SIDE, SMALLEST_SIDE, ModelSettings, checked


@dataclass(frozen=True, eq=False)
class Model:
    """A frozen network in evaluation mode, and how images are prepared for it."""

    name: str
    network: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What makes two models the same: name, digest of the weights, preprocessing."""
    settings: ModelSettings | None = None
    """What it was loaded by, where it was: other programs can load it again."""
    notes: tuple[str, ...] = ()
    """What was chosen or left out when it was loaded, a sentence each."""
    classifies: bool = True
    """Whether its outputs are scores of classes, as far as anybody says; else they are features."""

    def layers(self, every: bool = False) -> LayerTable:
        """Its blocks and its classes, or ``every`` layer: channels, sites, and the nodes matched by default.

        Raises `UnsuitableInput` where the network cannot take its own input side.
        """
        return layer_table(survey(self, "give the side that it takes"), self.name, every)


@torch.inference_mode(False)  # weights made in an inference have no gradients behind them
def load_model(
    name: str | ModelSettings = EMBEDDED,
    *,
    weights: str | None = None,
    download: bool = False,
    input_size: int | None = None,
    mean: float | Colour | None = None,
    std: float | Colour | None = None,
    channels: int | None = None,
    black: float | Colour | None = None,
    white: float | Colour | None = None,
    shown: tuple[int, ...] | None = None,
) -> Model:
    """A network by its name: torchvision's, the embedded one, ``timm/NAME``, ``hf/ORGANISATION/NAME`` or ``hf/FOLDER``
    (transformers), ``open_clip/ARCHITECTURE/WEIGHTS``, or what ``package.module:factory`` makes: a module, or what
    `wrap` gives.

    ``weights`` is the name of torchvision weights, a file of weights (wrapped as training scripts do, or safetensors)
    or ``random``; ``download`` fetches published ones where they are not in the local cache. ``input_size`` (pixels),
    ``mean`` and ``std`` (each colour's, 0..1) stand in for those that the weights were trained with; ``channels`` are 3
    colours, 1 luminance, or as many others, by default what the network takes. ``black`` and ``white`` are the values
    of a file that count as 0 and 1. Of each of these, one number is that of every channel. ``shown`` are the channels
    that people see. All of them may come as `ModelSettings`, which the others change.

    Raises:
        UnknownModel: there is no such model, or its weights cannot be had; with the way out.
        UnsuitableInput: a setting is out of bounds, the network cannot take this size, its first convolution takes
            other channels than were asked for, or nothing says how these were normalised.
    """
    if isinstance(name, nn.Module):
        raise UnsuitableInput(f"load_model takes a name, not a {type(name).__name__}: use vital.wrap for a live module")
    given = {"weights": weights, "download": download or None, "input_size": input_size, "mean": mean, "std": std}
    given |= {"channels": channels, "black": black, "white": white, "shown": shown}
    base = {"name": name} if isinstance(name, str) else name.model_dump()
    settings = checked(ModelSettings, base | {key: value for key, value in given.items() if value is not None})
    loaded = load_network(settings)
    network, notes = usable(loaded.network, settings.name)
    preprocessing = loaded.preprocessing.at(settings.input_size or loaded.preprocessing.side)
    digest = weights_digest(network)  # of what was loaded: interpolated embeddings differ by machine in the last bit
    if settings.input_size:
        network = at_resolution(network, settings.input_size)
    asked = loaded.preprocessing.colours if loaded.settled else settings.channels
    network, count = settled(network, settings.name, preprocessing.side, asked)
    count = loaded.preprocessing.channels if loaded.settled else count
    if settings.channels not in (None, count):
        raise UnsuitableInput(f"{settings.name} is wrapped for {count} channels, not {settings.channels}: leave it out")
    preprocessing = _of_files(preprocessing, count, settings)
    preprocessing = preprocessing if loaded.settled else preprocessing.of_channels(count)
    preprocessing = _with_shown(preprocessing, settings.shown or preprocessing.shown)
    identity = _identity(settings.name, digest, preprocessing)
    notes = (*loaded.notes, *notes, *(() if loaded.settled else _of_luminance(settings.name, preprocessing)))
    if not loaded.classifies:
        notes += (f"{settings.name} has no classifier: what is called {CLASSES!r} are the features that it gives",)
    classes = loaded.class_names
    return Model(settings.name, network, preprocessing, classes, identity, settings, notes, loaded.classifies)


@torch.inference_mode(False)
def wrap(
    module: nn.Module,
    *,
    side: int,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] = (),
    name: str | None = None,
    values: Literal["normalised", "0..1", "0..255"] = "normalised",
    axes: Literal["channel row column", "row column channel"] = "channel row column",
    channels: int | None = None,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
    black: float | Sequence[float] = (),
    white: float | Sequence[float] = (),
    shown: Sequence[int] = (),
) -> Model:
    """A live network as a model.

    The module is copied. The copy is frozen, in evaluation mode and single precision, on the module's device; the
    module itself stays as it is, and what it learns later does not reach the copy. ``side`` is the side of its input
    in pixels (16 to 2048), ``mean`` and ``std`` are those of red, green and blue (0..1) that it was trained with,
    ``class_names`` what its outputs are called, in their order. ``name`` is the class's unless given; by the name of an
    architecture, such as resnet50, preset ``paper`` knows its published nodes.

    A network that normalises by itself wants no mean and no deviation, but ``values`` from 0 to 1 or to 255, as float32
    (a byte has no gradient). ``axes`` are those of one image as the network takes it. ``channels`` is 3, or 1 for one
    that takes the luminance, or as many as a network of others has, such as a satellite's bands; by default what it
    takes. One mean and one deviation will do for all of these. ``black`` and ``white`` are the values of a file that
    count as 0 and 1, ``shown`` the channels that people see as red, green and blue, or one as grey. ``resize``
    is the shorter side of an image, in pixels, before the middle is cut out, ``interpolation`` how it is resized.

    Raises:
        UnsuitableInput: this is no module with weights, or cannot be copied; the side is out of bounds; mean or std
            are not as many numbers as it takes channels; or its first convolution takes others than were asked for.
    """
    if not isinstance(module, nn.Module) or not module.state_dict():
        what = f"a {type(module).__name__}" + (" without weights" if isinstance(module, nn.Module) else "")
        raise UnsuitableInput(f"vital.wrap takes a torch.nn.Module with weights, not {what}: give the network itself")
    if not isinstance(side, int) or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
        raise UnsuitableInput(f"side = {side!r} is no side of an input: give {SMALLEST_SIDE} to {LARGEST_SIDE} pixels")
    called = name or type(module).__name__
    refuse(module, called)
    try:
        network = copy.deepcopy(module)
    except Exception as error:  # whatever a module holds beside its weights
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsuitableInput(
            f"{called} cannot be copied ({why}): wrap it before it has run, or load it anew"
        ) from error
    network, notes = usable(network, called)
    if axes == "row column channel":
        rows_first(network)
    digest = weights_digest(network)
    network, count = settled(network, called, side, channels)
    mean, std = _convention(values, mean, std, count)
    ends = _ends(black, white, count)
    preprocessing = Preprocessing(side, mean, std, resize, interpolation, black=ends[0], white=ends[1])
    preprocessing = _with_shown(preprocessing.of_channels(count), tuple(shown))
    notes = (*notes, *_of_luminance(called, preprocessing))
    return Model(
        called, network, preprocessing, tuple(class_names), _identity(called, digest, preprocessing), notes=notes
    )


def _convention(values: str, mean: Any, std: Any, channels: int) -> tuple[Colour, Colour]:
    """Mean and deviation of each colour in 0..1, as the convention has them."""
    colours = 3 if channels == 1 else channels
    known = {"0..1": ((0.0,) * colours, (1.0,) * colours), "0..255": ((0.0,) * colours, (1 / 255,) * colours)}
    if values in known and mean is None and std is None:
        return known[values]
    if values != "normalised":
        raise UnsuitableInput(
            f"values = {values!r} with a mean or a deviation: give these for values 'normalised', and none for '0..1' "
            "and '0..255'"
        )
    return _numbers("mean", mean, channels, 0.0), _numbers("std", std, channels, 1e-6)


def _of_files(preprocessing: Preprocessing, channels: int, settings: ModelSettings) -> Preprocessing:
    """With the numbers that were given, of each of so many channels; raises `UnsuitableInput` where there are others,
    and where nothing says how channels that are no colours were normalised."""
    kept = {"mean": preprocessing.mean, "std": preprocessing.std}
    colours = 3 if channels == 1 else channels
    for name in kept:
        given = getattr(settings, name)
        if given is None and len(kept[name]) != colours:
            raise UnsuitableInput(
                f"{settings.name} takes {channels} channels, and nothing says how they were normalised: give --mean "
                f"and --std (mean=, std=), in 0..1, {channels} numbers each or one for all"
            )
        if given is not None:
            kept[name] = _numbers(name, given, channels, 0.0 if name == "mean" else 1e-6)
    black, white = _ends(settings.black or preprocessing.black, settings.white or preprocessing.white, channels)
    return replace(preprocessing, mean=kept["mean"], std=kept["std"], black=black, white=white)


def _ends(black: Any, white: Any, channels: int) -> tuple[Colour, Colour]:
    """The values of a file that are 0 and 1 of each channel; none where neither is given."""
    lists = [tuple(part) if isinstance(part, Sequence) else (part,) for part in (black, white)]
    if not any(lists):
        return (), ()
    if not all(lists):
        raise UnsuitableInput(
            "black and white belong together: give both --black and --white (black=, white=), one number each or one "
            "of each channel"
        )
    ends = [_numbers(name, part, channels, -math.inf, math.inf) for name, part in zip(ENDS, lists, strict=True)]
    if any(low == high for low, high in zip(*ends, strict=True)):
        raise UnsuitableInput(
            f"black and white are both {ends[0]}: give with --black and --white (black=, white=) the values that are "
            "to be 0 and 1"
        )
    return ends[0], ends[1]


ENDS = ("black", "white")


def _with_shown(preprocessing: Preprocessing, shown: tuple[int, ...]) -> Preprocessing:
    if shown and (len(shown) not in (1, 3) or not all(0 <= one < preprocessing.colours for one in shown)):
        raise UnsuitableInput(
            f"shown = {shown} are not one or three of the {preprocessing.colours} channels, which are counted from 0: "
            f"give such as {preprocessing.shown_channels}"
        )
    return replace(preprocessing, shown=shown)


def _of_luminance(name: str, preprocessing: Preprocessing) -> tuple[str, ...]:
    if preprocessing.channels != 1:
        return ()
    mean, std = preprocessing.mean[0], preprocessing.std[0]
    return (f"{name} takes one channel: it is shown the luminance of images, less {mean:.3f} and over {std:.3f}",)


def _numbers(what: str, values: Any, channels: int, least: float, most: float = 1.0) -> Colour:
    """A number from ``least`` to ``most`` of each colour of a network of so many channels; one is that of all, except
    of red, green and blue, of which each has its own."""
    colours, several = 3 if channels == 1 else channels, channels != 3 or not math.isfinite(most)
    try:
        numbers = tuple(map(float, values if isinstance(values, Sequence) else (values,)))
    except (TypeError, ValueError):
        numbers = ()
    numbers = numbers * colours if len(numbers) == 1 and several else numbers
    if len(numbers) != colours or not all(least <= value <= most for value in numbers):
        which = "three numbers of red, green and blue" if colours == 3 else f"{channels} numbers, one of each channel"
        raise UnsuitableInput(
            f"{what} = {values!r} is not {which}{' for pixels from 0 to 1' if most == 1 else ''}: "
            f"give such as {(0.485, 0.456, 0.406) if colours == 3 else (0.5,) * colours}"
        )
    return numbers


def _identity(name: str, weights: str, preprocessing: Preprocessing) -> Mapping[str, Any]:
    return {"model": name, "weights": weights, **preprocessing.identity()}


def at_side(model: Model, side: int) -> Model:
    """The same model for pictures of another side, its weights shared; raises `UnsuitableInput` for a side that the
    patches of a vision transformer do not divide."""
    if side == model.preprocessing.side:
        return model
    preprocessing = model.preprocessing.at(side)
    return replace(
        model,
        network=at_resolution(model.network, side),
        preprocessing=preprocessing,
        identity={**model.identity, **preprocessing.identity()},
    )


def weights_digest(network: nn.Module) -> str:
    """Digest of every tensor of the state dict, names included."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        if not isinstance(tensor, Tensor):  # what else a module keeps beside its weights
            digest.update(f"{name}{tensor!r}".encode())
            continue
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
