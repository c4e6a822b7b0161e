"""Networks at another input size than the one they were made for.

Convolutions take any size. torchvision's vision transformer has one position embedding a patch; for another size these
are interpolated, bicubically, as torchvision does when it fine-tunes at a higher resolution (Dosovitskiy et al., "An
image is worth 16×16 words" (2021), section 3.2).
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from typing import Any

import torch.nn.functional as F  # noqa: N812  the usual name
from jaxtyping import Float
from torch import Tensor, nn

from vital.errors import UnsuitableInput


def at_resolution(network: nn.Module, side: int) -> nn.Module:
    """The network for images of ``side`` pixels: itself where it has no embeddings of positions; else a twin that
    shares every other weight with it. The one that is given is not changed.

    Raises `UnsuitableInput` for a side that the patches do not divide. Whether any other network takes the size is seen
    when it runs (`vital.layers.survey`).
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
