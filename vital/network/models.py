"""A network ready to be asked, loaded by name or wrapped as it lives in this process; the same at another input
side."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from vital.errors import UnsuitableInput
from vital.network.layers import survey
from vital.network.nodes import LayerTable, layer_table
from vital.network.preprocessing import Preprocessing
from vital.network.sources import Colour, load_network
from vital.network.sources.fitting import at_resolution, refuse, settled, usable
from vital.settings import EMBEDDED, LARGEST_SIDE, SMALLEST_SIDE, ModelSettings, checked


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

    def layers(self, every: bool = False) -> LayerTable:
        """Its blocks and its classes, or ``every`` layer: channels, sites, and the nodes matched by default.

        Raises `UnsuitableInput` where the network cannot take its own input side.
        """
        return layer_table(survey(self, "give the side that it takes"), self.name, every)


def load_model(
    name: str | ModelSettings = EMBEDDED,
    *,
    weights: str | None = None,
    download: bool = False,
    input_size: int | None = None,
    mean: Colour | None = None,
    std: Colour | None = None,
) -> Model:
    """A torchvision network, the embedded one, or what ``package.module:factory`` makes, with its weights.

    ``weights`` is the name of torchvision weights, a state-dict file or ``random``; ``download`` fetches torchvision's
    where they are not in the local cache. ``input_size`` (pixels), ``mean`` and ``std`` (each colour's, 0..1) stand
    in for those that the weights were trained with. All of them may come as `ModelSettings`, which the others change.

    Raises:
        UnknownModel: there is no such model, or its weights cannot be had; with the way out.
        UnsuitableInput: a setting is out of bounds, or the network cannot take this size.
    """
    if isinstance(name, nn.Module):
        raise UnsuitableInput(f"load_model takes a name, not a {type(name).__name__}: use vital.wrap for a live module")
    given = {"weights": weights, "download": download or None, "input_size": input_size, "mean": mean, "std": std}
    base = {"name": name} if isinstance(name, str) else name.model_dump()
    settings = checked(ModelSettings, base | {key: value for key, value in given.items() if value is not None})
    loaded = load_network(settings)
    network, notes = usable(loaded.network, settings.name)
    preprocessing = loaded.preprocessing.at(settings.input_size or loaded.preprocessing.side)
    preprocessing = replace(
        preprocessing, mean=settings.mean or preprocessing.mean, std=settings.std or preprocessing.std
    )
    digest = weights_digest(network)  # of what was loaded: interpolated embeddings differ by machine in the last bit
    if settings.input_size:
        network = at_resolution(network, settings.input_size)
    network = settled(network, preprocessing.side)
    identity = _identity(settings.name, digest, preprocessing)
    notes = (*loaded.notes, *notes)
    return Model(settings.name, network, preprocessing, loaded.class_names, identity, settings, notes)


def wrap(
    module: nn.Module,
    *,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str] = (),
    name: str | None = None,
) -> Model:
    """A live network as a model.

    The module is copied. The copy is frozen, in evaluation mode and single precision, on the module's device; the
    module itself stays as it is, and what it learns later does not reach the copy. ``side`` is the side of its input
    in pixels (16 to 2048), ``mean`` and ``std`` are those of red, green and blue (0..1) that it was trained with,
    ``class_names`` what its outputs are called, in their order. ``name`` is the class's unless given; by the name of an
    architecture, such as resnet50, preset ``paper`` knows its published nodes.

    Raises:
        UnsuitableInput: this is no module with weights, or cannot be copied; the side is out of bounds; mean or std
            are not three numbers.
    """
    if not isinstance(module, nn.Module) or not module.state_dict():
        what = f"a {type(module).__name__}" + (" without weights" if isinstance(module, nn.Module) else "")
        raise UnsuitableInput(f"vital.wrap takes a torch.nn.Module with weights, not {what}: give the network itself")
    if not isinstance(side, int) or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
        raise UnsuitableInput(f"side = {side!r} is no side of an input: give {SMALLEST_SIDE} to {LARGEST_SIDE} pixels")
    called = name or type(module).__name__
    preprocessing = Preprocessing(side, _three("mean", mean, 0.0), _three("std", std, 1e-6))
    refuse(module, called)
    try:
        network = copy.deepcopy(module)
    except Exception as error:  # whatever a module holds beside its weights
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsuitableInput(
            f"{called} cannot be copied ({why}): wrap it before it has run, or load it anew"
        ) from error
    network, notes = usable(network, called)
    identity = _identity(called, weights_digest(network), preprocessing)
    return Model(called, settled(network, side), preprocessing, tuple(class_names), identity, notes=notes)


def _three(what: str, values: Any, least: float) -> Colour:
    """Three numbers from ``least`` to 1."""
    try:
        red, green, blue = (float(value) for value in values)
    except (TypeError, ValueError):
        red = green = blue = math.nan
    if not all(least <= value <= 1 for value in (red, green, blue)):
        raise UnsuitableInput(
            f"{what} = {values!r} is not three numbers of red, green and blue for pixels from 0 to 1: "
            "give such as (0.485, 0.456, 0.406)"
        )
    return red, green, blue


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
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
