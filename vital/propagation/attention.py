"""Relevance through attention and other products of activations.

Sources. Ali et al., "XAI for transformers: better explanations through conservative propagation" (2022): attention
weights, and the scale of a normalisation, are constants; all relevance goes to the values. Achtibat et al., "AttnLRP:
attention-aware layer-wise relevance propagation for transformers" (2024): a product of two activations gives half of
its relevance to each factor. Within a product the positive contributions share, as in the rules of convolutions, so
that relevance stays bounded where terms cancel.

Conservation: exact for an elementwise product and for a quotient; up to ε for attention, whose values take everything;
up to ε, and up to outputs that no term contributes to positively, for a product of two other activations and for the
projections around attention. A softmax hands nothing on. Relevance that reaches a parameter, such as a class token,
ends there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vital.errors import UnsupportedOperation
from vital.network.neurons import EPSILON
from vital.propagation.rules import share_by_sign, through_linear

Signed = tuple[Tensor, Tensor]
"""W⁺ and W⁻ of a weight."""


def through_product(
    output: Tensor, first: Tensor, second: Tensor, product: Callable[[Tensor, Tensor], Tensor], takers: int
) -> tuple[Tensor, Tensor]:
    """A bilinear product: z = P(a⁺, b⁺) + P(a⁻, b⁻), and each term's share of R / (z + ε) goes to its two factors.

    ``takers`` is how many of the factors are activations (1 or 2): with two, each gets half (AttnLRP, proposition
    3.3); with one, what belongs to that factor is its whole share, and the other's part is to be dropped.
    """
    with torch.enable_grad():
        parts = [part.detach().requires_grad_() for part in (*_signs(first), *_signs(second))]
        z = product(parts[0], parts[2]) + product(parts[1], parts[3])
        gradients = torch.autograd.grad(z, parts, output / (z.detach() + EPSILON) / takers)
    shares = [part.detach() * back for part, back in zip(parts, gradients, strict=True)]
    return shares[0] + shares[1], shares[2] + shares[3]


def _signs(value: Tensor) -> tuple[Tensor, Tensor]:
    return value.clamp(min=0), value.clamp(max=0)


def through_elementwise(output: Tensor) -> tuple[Tensor, Tensor]:
    """a · b of the same size: half to each factor, whatever their values (AttnLRP, uniform rule)."""
    half = output / 2
    return half, half


def attention_weights(
    queries: Float[Tensor, "*heads query channel"],
    keys: Float[Tensor, "*heads key channel"],
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "*heads query key"]:
    """softmax(q kᵀ · scale + mask), with torch's meaning of the mask: false, or −∞, hides a key; scale is
    1 / √channel unless given."""
    scores = queries @ keys.transpose(-2, -1) * (1 / math.sqrt(queries.shape[-1]) if scale is None else scale)
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~visible, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


def through_weighted_sum(
    output: Float[Tensor, "*heads query channel"],
    weights: Float[Tensor, "*heads query key"],
    values: Float[Tensor, "*heads key channel"],
) -> Float[Tensor, "*heads key channel"]:
    """Attention with its weights as constants: all relevance goes to the values, by their share in A v among those of
    its sign. (Ali et al. share by A v itself, which grows without bound where terms cancel.)"""
    return share_by_sign(output, values, lambda v: weights @ v)


@dataclass(frozen=True, eq=False)
class MultiHead:
    """One call of multi-head self- or cross-attention: what its relevance needs of it, computed when first asked."""

    query: Float[Tensor, "query image channel"]
    key: Float[Tensor, "key image _key_channel"]
    value: Float[Tensor, "key image _value_channel"]
    heads: int
    weights: tuple[Tensor, Tensor, Tensor]
    """Projections of queries, keys and values."""
    biases: tuple[Tensor | None, Tensor | None, Tensor | None]
    mask: Tensor | None

    def _split(self, projected: Tensor) -> Float[Tensor, "image head site channel"]:
        sites, images, channels = projected.shape
        return projected.reshape(sites, images, self.heads, channels // self.heads).permute(1, 2, 0, 3)

    def _joined(self, split: Float[Tensor, "image head site channel"]) -> Float[Tensor, "site image channels"]:
        return split.permute(2, 0, 1, 3).flatten(2)

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        """Attention weights (image, head, query, key) and values (image, head, key, channel)."""
        inputs = (self.query, self.key, self.value)
        queries, keys, values = (
            self._split(F.linear(*parts)) for parts in zip(inputs, self.weights, self.biases, strict=True)
        )
        return attention_weights(queries, keys, self.mask), values

    def through(
        self, output: Float[Tensor, "query image channel"], into_values: Signed, out_of_heads: Signed
    ) -> Float[Tensor, "key image _value_channel"]:
        """Relevance of the value input: back through the output projection, the weighted sum, and the projection of
        the values."""
        weights, values = self._parts
        mixed = self._joined(weights @ values)
        at_heads = through_linear(output, mixed, out_of_heads, False)
        at_values = through_weighted_sum(self._split(at_heads), weights, values)
        return through_linear(self._joined(at_values), self.value, into_values, False)


def merged_mask(
    mask: Tensor | None, padding: Tensor | None, like: Tensor, heads: int, images: int
) -> Float[Tensor, "*shape"] | None:
    """Masks of `torch.nn.functional.multi_head_attention_forward` as one that is added to the scores (image, head,
    query, key)."""

    def added(given: Tensor) -> Tensor:
        if given.dtype != torch.bool:
            return given.to(like.dtype)
        return torch.zeros_like(given, dtype=like.dtype).masked_fill(given, -math.inf)

    parts = []
    if mask is not None:  # (query, key), or (image · head, query, key)
        mask = added(mask)
        parts.append(mask if mask.dim() == 2 else mask.reshape(images, heads, *mask.shape[1:]))
    if padding is not None:  # (image, key)
        parts.append(added(padding).reshape(images, 1, 1, -1))
    return sum(parts[1:], start=parts[0]) if parts else None


def refuse_extra_keys(bias_k: object, static_k: object, zeros: bool) -> None:
    """Raise `UnsupportedOperation` for keys that do not come from the input."""
    if bias_k is not None or static_k is not None or zeros:
        raise UnsupportedOperation(
            "no relevance rule for multi_head_attention_forward with bias_k, static_k or add_zero_attn; "
            "use the relevance kind gradient-x-activation for this network"
        )
