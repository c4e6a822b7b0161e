"""A network for images of another side: its embeddings of positions interpolated, its weights shared."""

from __future__ import annotations

import copy
import inspect
import math
from collections import OrderedDict
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from vital.errors import UnsuitableInput
from vital.network.probe import modules_anew
from vital.network.sources.torchvision_networks import torchvision_models


def at_resolution(network: nn.Module, side: int) -> nn.Module:
    """The network for images of ``side`` pixels: itself where it has no embeddings of positions; else a twin that
    shares every other weight with it. The one that is given is not changed.

    Raises `UnsuitableInput` for a side that the patches do not divide. Whether any other network takes the size shows
    when it runs (`vital.network.layers.survey`).
    """
    if callable(getattr(network, "set_input_size", None)):  # timm's, which changes the network that it is called on
        return _reset(network, side)
    if _takes_interpolation(network):
        return _interpolating(network, side)
    if not _is_vision_transformer(network) or network.image_size == side:
        return network
    patch = int(network.patch_size)  # type: ignore[arg-type]
    if side % patch:
        nearest = max(round(side / patch), 1) * patch
        raise UnsuitableInput(
            f"a vision transformer with patches of {patch} pixels cannot take images of {side} × {side} pixels: "
            f"give a multiple of {patch}, such as {nearest}"
        )
    encoder = _twin(network.encoder)
    old: Any = encoder.pos_embedding
    new = nn.Parameter(interpolated(old.detach(), side // patch), requires_grad=old.requires_grad)
    encoder._parameters["pos_embedding"] = new
    twin: nn.Module = _twin(network)
    twin._modules["encoder"] = encoder
    twin.__dict__.update(image_size=side, seq_length=new.shape[1])
    return twin


def interpolated(embeddings: Float[Tensor, "1 site channel"], patches: int) -> Float[Tensor, "1 _new_site channel"]:
    """Position embeddings of ``patches`` × ``patches`` patches; the class token's, which comes first, stays."""
    before = embeddings.shape[1] - 1
    if math.isqrt(before) ** 2 != before:
        raise UnsuitableInput(f"{before} position embeddings are no square of patches: leave out --input-size")
    key, resize = "encoder.pos_embedding", torchvision_models().vision_transformer.interpolate_embeddings
    resized: Tensor = resize(patches, 1, OrderedDict({key: embeddings}))[key]
    return resized


def _reset(network: Any, side: int) -> nn.Module:
    patches = getattr(network, "patch_embed", None)
    if getattr(patches, "img_size", None) == (side, side):
        return cast(nn.Module, network)
    other: Any = copy.deepcopy(network)
    try:
        other.set_input_size(img_size=(side, side))
    except Exception as error:  # of timm's, for whatever reason
        raise UnsuitableInput(
            f"{type(network).__name__} cannot be set to images of {side} × {side} pixels "
            f"({' '.join(str(error).split())[:200]}): give another size, or none"
        ) from error
    other.requires_grad_(False)
    return cast(nn.Module, other)


def _takes_interpolation(network: Any) -> bool:
    """Whether it is of transformers, and interpolates its embeddings of positions when it is told to."""
    own = getattr(network, "config", None) is not None and isinstance(getattr(network, "main_input_name", None), str)
    return own and "interpolate_pos_encoding" in inspect.signature(network.forward).parameters


def _interpolating(network: Any, side: int) -> nn.Module:
    if getattr(network.config, "image_size", None) == side:
        return cast(nn.Module, network)
    twin = modules_anew(network)
    twin.register_forward_pre_hook(
        lambda _, images, named: (images, {**named, "interpolate_pos_encoding": True}), with_kwargs=True
    )
    return twin


def _is_vision_transformer(network: nn.Module) -> bool:
    """torchvision's, or one made like it, by what this file needs of it."""
    return all(hasattr(network, name) for name in ("image_size", "patch_size", "seq_length", "class_token")) and (
        isinstance(getattr(getattr(network, "encoder", None), "pos_embedding", None), Tensor)
    )


def _twin(module: Any) -> Any:
    """A module with the same children, parameters and attributes, whose own tables can be changed."""
    twin = copy.copy(module)
    for table in ("_parameters", "_buffers", "_modules"):
        twin.__dict__[table] = dict(module.__dict__[table])
    for table in ("_forward_hooks", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
        twin.__dict__[table] = OrderedDict(module.__dict__[table])
    return twin
