"""A network ready to be asked: frozen, with its weights and the way it sees images; the same at another input side."""

from __future__ import annotations

import copy
import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vital.errors import UnsuitableInput
from vital.network.preprocessing import Preprocessing
from vital.network.sources import PACKAGED, SQUEEZENET, from_factory, from_package, from_torchvision, squeezenet
from vital.settings import ModelSettings


@dataclass(frozen=True, eq=False)
class Model:
    """A frozen network in evaluation mode, and how it sees images."""

    name: str
    network: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What makes two models the same: name, digest of the weights, preprocessing."""


def load_model(settings: ModelSettings) -> Model:
    """The model that ``settings`` name, ready to be asked; raises `UnknownModel` with the way out."""
    if settings.name in PACKAGED:
        loaded = from_package(settings)
    elif settings.name == SQUEEZENET:
        loaded = squeezenet(settings)
    elif ":" in settings.name:
        loaded = from_factory(settings)
    else:
        loaded = from_torchvision(settings)
    network = loaded.network.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocessing = Preprocessing(
        settings.input_size or loaded.side, settings.mean or loaded.mean, settings.std or loaded.std
    )
    digest = weights_digest(network)  # of what was loaded: interpolated embeddings differ by machine in the last bit
    if settings.input_size:
        network = at_resolution(network, settings.input_size)
    identity = {
        "model": settings.name,
        "weights": digest,
        "input_size": preprocessing.side,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }
    return Model(settings.name, network, preprocessing, loaded.class_names, identity)


def at_side(model: Model, side: int) -> Model:
    """The same model for pictures of another side, its weights shared; raises `UnsuitableInput` for a side that the
    patches of a vision transformer do not divide."""
    if side == model.preprocessing.side:
        return model
    return replace(
        model,
        network=at_resolution(model.network, side),
        preprocessing=replace(model.preprocessing, side=side),
        identity={**model.identity, "input_size": side},
    )


def weights_digest(network: nn.Module) -> str:
    """Digest of every tensor of the state dict, names included."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in network.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def at_resolution(network: nn.Module, side: int) -> nn.Module:
    """The network for images of ``side`` pixels: itself where it has no embeddings of positions; else a twin that
    shares every other weight with it. The one that is given is not changed.

    Raises `UnsuitableInput` for a side that the patches do not divide. Whether any other network takes the size is seen
    when it runs (`vital.network.layers.survey`).
    """
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
    token, grid = embeddings[:, :1], embeddings[:, 1:]
    before = math.isqrt(grid.shape[1])
    if before * before != grid.shape[1]:
        raise UnsuitableInput(f"{grid.shape[1]} position embeddings are no square of patches: leave out --input-size")
    maps = grid.transpose(1, 2).reshape(1, -1, before, before)
    resized = F.interpolate(maps, (patches, patches), mode="bicubic", align_corners=True)
    joined: Tensor = F.pad(resized.flatten(2).transpose(1, 2), (0, 0, 1, 0))
    joined[:, :1] = token
    return joined


def _is_vision_transformer(network: nn.Module) -> bool:
    """torchvision's, by what this file needs of it: torchvision itself is imported elsewhere."""
    return all(hasattr(network, name) for name in ("image_size", "patch_size", "seq_length", "class_token")) and (
        isinstance(getattr(getattr(network, "encoder", None), "pos_embedding", None), Tensor)
    )


def _twin(module: Any) -> Any:
    """A module with the same children, parameters and attributes, whose own tables can be changed."""
    twin = copy.copy(module)
    for table in ("_parameters", "_buffers", "_modules"):
        twin.__dict__[table] = dict(module.__dict__[table])
    for table in ("_forward_hooks", "_forward_pre_hooks"):
        twin.__dict__[table] = OrderedDict()
    return twin
