"""Operations of attention: how a forward pass follows a softmax, a matrix product and attention itself, and which rule
of `vital.propagation.attention` each gets.

A softmax marks its result as weights; the mark goes along when values are moved about, so that a later product knows
which of its factors is a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from vital.errors import UnsupportedOperation
from vital.propagation import attention
from vital.propagation.rules import share_by_sign

_WEIGHTS = "_vital_weights"


@runtime_checkable
class Pass(Protocol):
    """What the handlers need of `vital.propagation.mode.Relevance`."""

    def follow(
        self, output: Tensor, inputs: Sequence[Tensor], rule: Callable[[Tensor], tuple[Tensor | None, ...]]
    ) -> Tensor:
        """``output`` with ``rule`` as its relevance backward."""

    def weights(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The positive part W⁺ and the negative part W⁻ of a weight."""


def are_weights(tensor: Tensor) -> bool:
    """Whether these are attention weights, which take no relevance."""
    return getattr(tensor, _WEIGHTS, False)


def hand_on_mark(source: Any, result: Any) -> None:
    """Hand the mark of weights from the argument of a move to its result."""
    if isinstance(source, Tensor) and are_weights(source):
        for part in result if isinstance(result, (tuple, list)) else [result]:
            setattr(part, _WEIGHTS, True)


def _softmax(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs = args[0] if args else kwargs["input"]
    result = mode.follow(func(*args, **kwargs), [inputs], lambda r: (None,))
    setattr(result, _WEIGHTS, True)
    return result


def _matrix_product(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Matmul and einsum: weights are a constant, a parameter is one, two other activations take half each."""
    equation = args[:1] if args and isinstance(args[0], str) else ()
    factors = [*args[len(equation) :], *kwargs.values()]
    if len(factors) == 1 and isinstance(factors[0], (tuple, list)):
        factors = list(factors[0])
    result: Tensor = func(*args, **kwargs)
    live = [factor for factor in factors if isinstance(factor, Tensor) and factor.requires_grad]
    if not live:
        return result
    if len(factors) != 2:
        raise UnsupportedOperation(
            f"no relevance rule for {func.__name__} of {len(factors)} factors; "
            "use the relevance kind gradient-x-activation for this network, or multiply two at a time"
        )
    first, second = factors

    def product(a: Tensor, b: Tensor) -> Tensor:
        return func(*equation, a, b)  # type: ignore[no-any-return]

    a, b = first.detach(), second.detach()
    if len(live) == 2 and are_weights(first):
        return mode.follow(result, [second], lambda r: (share_by_sign(r, b, lambda v: product(a, v)),))
    if len(live) == 2 and are_weights(second):
        return mode.follow(result, [first], lambda r: (share_by_sign(r, a, lambda v: product(v, b)),))
    if len(live) == 2:
        return mode.follow(result, [first, second], lambda r: attention.through_product(r, a, b, product, 2))
    mine = 0 if live[0] is first else 1
    return mode.follow(result, live, lambda r: (attention.through_product(r, a, b, product, 1)[mine],))


def _dot_product_attention(
    mode: Pass,
    func: Any,
    args: Any,
    kwargs: Any,
) -> Tensor:
    result: Tensor = func(*args, **kwargs)
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given.get("enable_gqa"):
        raise UnsupportedOperation(
            "no relevance rule for scaled_dot_product_attention with enable_gqa; "
            "use the relevance kind gradient-x-activation for this network"
        )
    query, key, value = (given[name].detach() for name in names[:3])
    if not given["value"].requires_grad:
        return mode.follow(result, [given["query"]], lambda r: (None,)) if given["query"].requires_grad else result
    how = given.get("attn_mask"), bool(given.get("is_causal")), given.get("scale")

    @cache
    def weights() -> Tensor:
        return attention.attention_weights(query, key, *how)

    return mode.follow(result, [given["value"]], lambda r: (attention.through_weighted_sum(r, weights(), value),))


_MULTI_HEAD = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training", "key_padding_mask", "need_weights",
    "attn_mask", "use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "static_k", "static_v",
    "average_attn_weights", "is_causal",
)  # fmt: skip


def _multi_head_attention(mode: Pass, func: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The value path written out from the projections, since the mode does not reach inside; the forward pass and the
    gradient are torch's own."""
    output, seen_weights = func(*args, **kwargs)
    given = {**dict.fromkeys(_MULTI_HEAD), **dict(zip(_MULTI_HEAD, args, strict=False)), **kwargs}
    if not output.requires_grad:
        return output, seen_weights
    attention.refuse_extra_keys(given["bias_k"], given["static_k"], bool(given["add_zero_attn"]))
    if seen_weights is not None:
        seen_weights = mode.follow(seen_weights, [given["query"]], lambda r: (None,))
        setattr(seen_weights, _WEIGHTS, True)
    if not given["value"].requires_grad:
        return mode.follow(output, [given["query"]], lambda r: (None,)), seen_weights
    batched = given["query"].dim() == 3
    query, key, value = (
        part.detach() if batched else part.detach().unsqueeze(1) for part in (given[name] for name in _MULTI_HEAD[:3])
    )
    width = query.shape[-1]
    if given["use_separate_proj_weight"]:
        projections = tuple(given[f"{name}_proj_weight"] for name in "qkv")
        into_values = mode.weights(projections[2])
    else:
        projections = given["in_proj_weight"].split(width)
        positive, negative = mode.weights(given["in_proj_weight"])
        into_values = positive[2 * width :], negative[2 * width :]
    biases = (None,) * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].split(width)
    mask = attention.merged_mask(
        given["attn_mask"], given["key_padding_mask"], query, given["num_heads"], query.shape[1]
    )
    heads = attention.MultiHead(query, key, value, given["num_heads"], projections, biases, mask)

    def rule(r: Tensor) -> tuple[Tensor]:
        out_of_heads = mode.weights(given["out_proj_weight"])
        back = heads.through(r if batched else r.unsqueeze(1), into_values, out_of_heads)
        return (back if batched else back.squeeze(1),)

    return mode.follow(output, [given["value"]], rule), seen_weights


ATTENTION: dict[Any, Callable[[Any, Any, Any, Any], Any]] = {
    **dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax), _softmax),
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm), _matrix_product),
    torch.einsum: _matrix_product,
    F.scaled_dot_product_attention: _dot_product_attention,
    F.multi_head_attention_forward: _multi_head_attention,
}
"""The handler of each operation of attention."""
