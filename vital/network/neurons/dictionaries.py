"""Dictionaries: the encoders of sparse autoencoders, whose features are neurons of a layer.

Sources of what an encoder ends in: ReLU, Bricken et al., "Towards monosemanticity" (2023); JumpReLU, and gates as one,
Rajamanoharan et al., "Jumping ahead" (2024); TopK, Gao et al., "Scaling and evaluating sparse autoencoders" (2024);
BatchTopK, whose encoder ends in a threshold once it is trained, Bussmann et al., "BatchTopK sparse autoencoders"
(2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Normalisation: TypeAlias = Literal["none", "norm", "layer"]
"""What is done to a site's channels first: nothing; scaled to the norm √channels; or mean 0 and deviation 1."""

SLACK = 1e-5
"""A feature is among the k greatest of a site if it is as great as the k-th, up to this share of it: a few features
are read in another order of sums than all of them."""
AT_ONCE = 8192
"""Rivals in memory together: of a hundred thousand features the maps are gigabytes."""
TINY = 1e-5
"""Added to a deviation, as SAELens does; the least norm."""


@dataclass(frozen=True, eq=False)
class Decoder:
    """The way back from features to what an encoder read: features · ``weight`` + ``bias``."""

    weight: Float[np.ndarray, "feature channel"]
    bias: Float[np.ndarray, "channel"]


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Features of a layer. A feature's map is ``weight`` · x + ``bias``, with x the channels of a site after
    ``normalisation``, where that is above its ``threshold`` and, if there is a ``k``, among the k greatest features of
    the site; elsewhere it is zero.

    >>> some = Dictionary(np.eye(2, dtype=np.float32), np.float32([0, -1]), np.float32([0, 0]))
    >>> some.maps(torch.tensor([[[3.0, -1.0], [1.0, 2.0]]]))
    tensor([[[3., 0.],
             [0., 1.]]])
    """

    weight: Float[np.ndarray, "feature channel"]
    bias: Float[np.ndarray, "feature"]
    threshold: Float[np.ndarray, "feature"]
    """0 for a ReLU; −∞ where a k alone decides."""
    k: int | None = None
    normalisation: Normalisation = "none"
    source: str = "npz"
    """The format that it was read from."""
    rivals: Dictionary | None = None
    """All features, where these are some of them and the k greatest are kept."""
    decoder: Decoder | None = None
    """What the whole dictionary was trained with, where its file has it; no neuron needs it."""
    trained_on: str = ""
    """The layer that its file names, as the program that wrote it calls that."""

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def channels(self) -> int:
        """Channels of the layer that it reads."""
        return int(self.weight.shape[1])

    def of(self, rows: Int[np.ndarray, "some"]) -> Dictionary:
        """Some of the features; where the k greatest are kept, with all of them as rivals."""
        rivals = (self.rivals or self) if self.k is not None else None
        some = {"weight": self.weight[rows], "bias": self.bias[rows], "threshold": self.threshold[rows]}
        return replace(self, **some, rivals=rivals, decoder=None)

    def maps(self, activations: Float[Tensor, "image channel site"]) -> Float[Tensor, "image _feature _site"]:
        """The maps of all features."""
        encoder, read = self._beside(activations), self.normalised(activations)
        before = encoder.before(read)
        return encoder.kept(
            before, encoder.threshold[:, None], self._cut(read, before if self.rivals is None else None)
        )

    def own(
        self, activations: Float[Tensor, "picture channel site"], rows: Int[Tensor, "picture"]
    ) -> Float[Tensor, "picture _site"]:
        """The map of one feature, a row of this dictionary, for each picture.

        Where a feature is zero, its derivative is that of its map before the nonlinearity (straight through: Bengio,
        Léonard, Courville, "Estimating or propagating gradients through stochastic neurons" (2013)): else no picture
        could ever begin to show what it does not show yet.
        """
        encoder, read = self._beside(activations), self.normalised(activations)
        before = torch.einsum("pc,pcs->ps", encoder.weight[rows], read) + encoder.bias[rows, None]
        cut = self._cut(read, None)
        kept = encoder.kept(before, encoder.threshold[rows, None], None if cut is None else cut[:, 0])
        return before + (kept - before).detach() if kept.requires_grad else kept

    def rows(
        self, activations: Float[Tensor, "picture channel site"], rows: Int[Tensor, "picture"]
    ) -> Float[Tensor, "picture channel"]:
        """The weights of these rows beside some activations."""
        return self._beside(activations).weight[rows]

    def normalised(self, activations: Float[Tensor, "image channel site"]) -> Float[Tensor, "image channel site"]:
        """What the features read of some activations."""
        if self.normalisation == "norm":
            norm: Tensor = torch.linalg.vector_norm(activations, dim=1, keepdim=True)
            return activations * math.sqrt(self.channels) / norm.clamp(min=TINY)
        if self.normalisation == "layer":
            centred = activations - activations.mean(1, keepdim=True)
            deviation: Tensor = centred.std(1, keepdim=True) + TINY
            return centred / deviation
        return activations

    def _beside(self, like: Tensor) -> _Encoder:
        """Its numbers beside some activations. They go there once: they may be a gigabyte, and a step reads them three
        times."""
        kept, beside = _uploaded.setdefault(self, {}), (like.device, like.dtype)
        if beside not in kept:
            with torch.inference_mode(False):  # what an inference makes could not be used where there are gradients
                parts = (torch.from_numpy(part).to(like) for part in (self.weight, self.bias, self.threshold))
                kept[beside] = _Encoder(*parts)
        return kept[beside]

    @torch.no_grad()
    def _cut(self, read: Tensor, before: Tensor | None) -> Float[Tensor, "image 1 _site"] | None:
        """The least value of the k greatest features of each site; ``before`` are their values where they are known."""
        if self.k is None:
            return None
        if before is not None:
            greatest = before.topk(self.k, dim=1).values
        else:
            rivals = self.rivals or self
            encoder, greatest = rivals._beside(read), read.new_empty(len(read), 0, read.shape[-1])
            for start in range(0, len(rivals), AT_ONCE):
                both = torch.cat([greatest, encoder.part(slice(start, start + AT_ONCE)).before(read)], dim=1)
                greatest = both.topk(min(self.k, both.shape[1]), dim=1).values
        least = greatest.amin(1, keepdim=True)
        return least - SLACK * least.abs()


@dataclass(frozen=True, eq=False)
class _Encoder:
    """A dictionary's numbers on a device."""

    weight: Float[Tensor, "feature channel"]
    bias: Float[Tensor, "feature"]
    threshold: Float[Tensor, "feature"]

    def part(self, rows: slice) -> _Encoder:
        return _Encoder(self.weight[rows], self.bias[rows], self.threshold[rows])

    def before(self, read: Float[Tensor, "image channel site"]) -> Float[Tensor, "image _feature _site"]:
        """What the nonlinearity is given."""
        maps = torch.einsum("fc,ics->ifs", self.weight, read)
        return maps + self.bias[:, None] if maps.requires_grad else maps.add_(self.bias[:, None])

    def kept(self, before: Tensor, threshold: Tensor, cut: Tensor | None) -> Tensor:
        """Features ``before`` the nonlinearity, zero where they are not above ``threshold`` or below ``cut``, the
        k-th greatest, where there is one."""
        above = before > threshold
        if cut is not None:
            above &= before >= cut
        if torch.is_grad_enabled() and before.requires_grad:
            return torch.where(above, before, 0)
        return before.masked_fill_(above.logical_not_(), 0)  # gigabytes, of a hundred thousand features


_uploaded: WeakKeyDictionary[Dictionary, dict[tuple[torch.device, torch.dtype], _Encoder]] = WeakKeyDictionary()
