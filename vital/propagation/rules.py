"""Relevance rules: what an operation's inputs contributed to its output. Pure functions of one operation's values.

Every rule maps the relevance R of an output to that of an input. Sources: z⁺ and signed z⁺, Montavon et al.,
"Explaining nonlinear classification decisions with deep Taylor decomposition" (2017); the published VITAL code for
pools and residual sums; gates as constants, Arras et al., "Explaining recurrent neural network predictions in
sentiment analysis" (2017). Attention: `vital.propagation.attention`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vital.network.neurons import EPSILON

W = TypeVar("W")
Linear = Callable[[Tensor], Tensor]
"""A linear map of maps."""
TINY = 1e-12
"""Least denominator of a share; what it divides is then multiplied by zero."""


def share(
    output: Tensor, inputs: Tensor, contributions: Callable[[Tensor], Tensor], epsilon: float = EPSILON
) -> Tensor:
    """a · Cᵀ(R / (C a + ε)) for any linear map C, by its own derivative."""
    with torch.enable_grad():
        a = inputs.detach().requires_grad_()
        z = contributions(a)
        (back,) = torch.autograd.grad(z, a, output / (z.detach() + epsilon))
    return inputs * back


def share_by_sign(output: Tensor, inputs: Tensor, average: Callable[[Tensor], Tensor]) -> Tensor:
    """Through a map that only adds with weights ≥ 0: a positive output's relevance goes to its positive inputs, a
    negative one's to its negative inputs, so that none is lost (generalised LRP-γ, Andéol et al., "Learning domain
    invariant representations by joint Wasserstein distance minimization" (2023), with γ → ∞)."""
    positive = average(inputs) > 0
    return share(output * positive, inputs.clamp(min=0), average) + share(
        output * ~positive, (-inputs).clamp(min=0), average
    )


def _split(inputs: Tensor, nonnegative: bool) -> list[Tensor]:
    return [inputs] if nonnegative else [inputs.clamp(min=0), inputs.clamp(max=0)]


class PositiveWeights:
    """W⁺ and W⁻ of every weight met, made once: the clamp would otherwise be paid at each step. They go with their
    weight: some networks make new ones in each pass, such as standardised weights."""

    def __init__(self) -> None:
        self._kept = WeakTensorKeyDictionary()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """W⁺ and W⁻ of one weight."""
        if weight not in self._kept:
            self._kept[weight] = weight.detach().clamp(min=0), weight.detach().clamp(max=0)
        positive, negative = self._kept[weight]
        return positive, negative


@dataclass(frozen=True)
class Convolution:
    """Arguments of a convolution, and z⁺ through it."""

    stride: Any
    padding: Any
    dilation: Any
    groups: int

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution, with another bias than its own."""
        convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[inputs.dim()]
        return convolve(inputs, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def transposed(self, upstream: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        """Its derivative with respect to the input, applied to ``upstream``."""
        axes = inputs.dim() - 2

        def each(value: Any) -> list[int]:
            return [value] * axes if isinstance(value, int) else list(value)

        if isinstance(self.padding, str):  # "same": torch pads unevenly, which only its own derivative knows
            with torch.enable_grad():
                a = inputs.detach().requires_grad_()
                (back,) = torch.autograd.grad(self(a, weight), a, upstream)
            return back
        arguments = (None, each(self.stride), each(self.padding), each(self.dilation), False, [0] * axes, self.groups)
        back, _, _ = torch.ops.aten.convolution_backward(upstream, inputs, weight, *arguments, [True, False, False])
        return back  # type: ignore[no-any-return]


def through_convolution(
    output: Tensor, inputs: Tensor, signed: tuple[Tensor, Tensor], convolution: Convolution, nonnegative: bool
) -> Tensor:
    """Positive contributions: z = W⁺a⁺ + W⁻a⁻, R_in = a⁺ W⁺ᵀ(R/z) + a⁻ W⁻ᵀ(R/z). For a ≥ 0 this is the published z⁺."""
    parts = _split(inputs, nonnegative)
    pairs = list(zip(parts, signed, strict=False))
    # ε rides along as a bias of the first convolution: one pass over z less.
    biases = (inputs.new_full((len(signed[0]),), EPSILON), None)
    z = reduce(operator.add, (convolution(*pair, bias) for pair, bias in zip(pairs, biases, strict=False)))
    ratio = torch.div(output, z, out=z)
    return reduce(operator.add, (convolution.transposed(ratio, part, weight).mul_(part) for part, weight in pairs))


def through_linear(output: Tensor, inputs: Tensor, signed: tuple[Tensor, Tensor], nonnegative: bool) -> Tensor:
    """As `through_convolution`, for (…, in) → (…, out) with a weight (out, in)."""
    parts = _split(inputs, nonnegative)
    pairs = list(zip(parts, signed, strict=False))
    z = reduce(operator.add, (F.linear(part, weight) for part, weight in pairs))
    ratio = output / (z + EPSILON)
    return reduce(operator.add, (part * (ratio @ weight) for part, weight in pairs))


def through_weights(
    output: Tensor,
    inputs: Tensor,
    signed: tuple[W, W],
    apply: Callable[[Tensor, W], Tensor],
    nonnegative: bool,
) -> Tensor:
    """As `through_convolution`, for any map of the input that is linear in its weight, by its own derivative."""
    with torch.enable_grad():
        parts = [part.detach().requires_grad_() for part in _split(inputs, nonnegative)]
        z = reduce(operator.add, (apply(part, weight) for part, weight in zip(parts, signed, strict=False)))
        back = torch.autograd.grad(z, parts, output / (z.detach() + EPSILON))
    return reduce(operator.add, (part.detach() * one for part, one in zip(parts, back, strict=True)))


def resizing(maps: Tensor, axis: int, given: Mapping[str, Any]) -> Tensor:
    """The weights (new, old) with which `F.interpolate`, called as ``given``, makes the new values along an ``axis`` of
    maps (image, channel, row, column)."""
    length = maps.shape[axis]
    alone = {  # the other axis is constant and keeps its length: of 1, torch's antialiasing gives wrong values
        name: (given[name][axis - 2] if isinstance(given[name], Sequence) else given[name], one)
        for name, one in (("size", 2), ("scale_factor", 1.0))
        if given.get(name) is not None
    }
    each = torch.eye(length, dtype=maps.dtype, device=maps.device).view(1, length, length, 1).repeat(1, 1, 1, 2)
    with torch.no_grad():
        return F.interpolate(each, **{**given, **alone})[0, :, :, 0].T


def of_both_signs(rows: Tensor, columns: Tensor) -> tuple[Linear, Linear]:
    """W⁺ and W⁻ of the map x ↦ rows · x · columnsᵀ, as maps themselves."""
    up, down, right, left = (part for one in (rows, columns) for part in (one.clamp(min=0), one.clamp(max=0)))
    return (
        lambda x: up @ x @ right.T + down @ x @ left.T,
        lambda x: up @ x @ left.T + down @ x @ right.T,
    )


def through_average(output: Tensor, inputs: Tensor, average: Callable[[Tensor], Tensor], nonnegative: bool) -> Tensor:
    """Any average (pool, mean over axes): shares of the inputs that have the output's sign, which are all when they
    follow a ReLU."""
    return share(output, inputs, average) if nonnegative else share_by_sign(output, inputs, average)


def through_max_pool(
    output: Tensor, inputs: Tensor, kernel: Any, geometry: Mapping[str, Any], nonnegative: bool
) -> Tensor:
    """A max-pool as a 2 × 2 average pool where that gives the same size (as published), else as an average over its
    own windows."""
    a = inputs if nonnegative else inputs.clamp(min=0)
    rows, columns = inputs.shape[-2:]
    if (rows // 2, columns // 2) == tuple(output.shape[-2:]):
        return share(output, a, lambda x: F.avg_pool2d(x, 2))
    keep = {name: geometry[name] for name in ("stride", "padding", "ceil_mode") if geometry.get(name) is not None}
    return share(output, a, lambda x: F.avg_pool2d(x, kernel, **keep))


def through_sum(output: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """A residual sum splits R by |main| / (|main| + |skip|); where both are zero nothing flows, and R there is zero
    too."""
    main, skip = first.abs(), second.abs()
    whole = main + skip
    ratio = torch.div(output, whole.clamp_(min=TINY), out=whole)
    return main.mul_(ratio), skip.mul_(ratio)
