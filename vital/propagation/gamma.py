"""Relevance kind ``lrp-gamma``: convolutions and linear maps by LRP-γ, in which terms that lower an output count, too,
and the bias takes its share. All other operations follow the rules of ``lrp``.

Sources. LRP-γ, terms a w that raise an output count 1 + γ times: Montavon et al., "Layer-wise relevance propagation: an
overview" (2019). For outputs and inputs of both signs: Andéol et al., "Learning domain invariant representations by
joint Wasserstein distance minimization" (2023). A batch norm is one with the convolution before it, else its bias would
not be known where the terms are: Guillemot et al., "Breaking batch normalization for better explainability of deep
neural networks through layer-wise relevance propagation" (2020).

Conservation: what belongs to a bias ends there, on purpose. docs/relevance.md says how much that is, and what it is
good for.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from vital.network.neurons import EPSILON
from vital.propagation.attention_operations import Pass
from vital.propagation.operations import RULES, Handlers, argument, convolution_of, exported, identity, nonnegative

GAMMA = 0.25
"""As in tutorials of the method's authors; not tuned."""
_AFFINE = "_vital_affine"


@runtime_checkable
class Linear(Protocol):
    """A map of inputs that is linear for each weight: a convolution, a matrix product."""

    def __call__(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """What it makes of the inputs."""

    def transposed(self, upstream: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        """Its derivative with respect to the inputs, applied to ``upstream``."""


class _Product:
    """The matrix product of ``torch.nn.functional.linear``."""

    def __call__(self, inputs: Tensor, weight: Tensor) -> Tensor:
        return F.linear(inputs, weight)

    def transposed(self, upstream: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        return upstream @ weight


@dataclass(frozen=True, eq=False)
class Affine:
    """One call of a ``linear`` map, and a bias for each channel, which ``axes`` axes follow."""

    linear: Linear
    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    nonnegative: bool
    axes: int

    def through(self, output: Tensor, z: Tensor, gamma: float = GAMMA) -> Tensor:
        """Relevance of the inputs from that of the outputs, whose values are ``z``.

        An output z > 0 has terms p that raise it and terms n that lower it, its bias among them. A term t gets
        R (t + γ t⁺) / (z + γ Σ p). Where z < 0 the signs are turned. The denominator is never less than z in size.
        """
        parts = [self.inputs] if self.nonnegative else [self.inputs.clamp(min=0), self.inputs.clamp(max=0)]
        signed = self.weight.clamp(min=0), self.weight.clamp(max=0)
        raising = reduce(operator.add, (self.linear(*pair) for pair in zip(parts, signed, strict=False)))
        if self.bias is not None:
            raising = raising + self.bias.clamp(min=0).reshape(-1, *[1] * self.axes)
        up = z >= 0
        favoured = torch.where(up, raising, z - raising)
        ratio = output / (z + gamma * favoured + torch.where(up, EPSILON, -EPSILON))
        rising, falling = ratio * up, ratio * ~up
        result = torch.zeros_like(self.inputs)
        for part, same, other in zip(parts, signed, signed[::-1], strict=False):
            back = self.linear.transposed(rising, part, self.weight + gamma * same)
            back = back + self.linear.transposed(falling, part, self.weight + gamma * other)
            result = result + part * back
        return result


def _followed(mode: Pass, func: Any, args: Any, kwargs: Any, linear: Linear, axes: int) -> Tensor:
    inputs, weight, bias = args[0], argument(args, kwargs, 1, "weight", None), argument(args, kwargs, 2, "bias", None)
    result: Tensor = func(*args, **kwargs)
    if not inputs.requires_grad:
        return result
    kept, z = Affine(linear, inputs.detach(), weight, bias, nonnegative(inputs), axes), result.detach()
    result = mode.follow(result, [inputs], lambda r: (kept.through(r, z),))
    setattr(result, _AFFINE, (inputs, kept))
    return result


def _convolution(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    return _followed(mode, func, args, kwargs, convolution_of(args, kwargs), args[0].dim() - 2)


def _linear(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    return _followed(mode, func, args, kwargs, _Product(), 0)


_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_EXPORTED_NORM = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")


def _batch_norm(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """As one with the convolution or linear map right before it; by itself an identity, as with ``lrp``."""
    given = {**dict(zip(_NORM if func is F.batch_norm else _EXPORTED_NORM, args, strict=False)), **kwargs}
    before = getattr(given["input"], _AFFINE, None)
    if before is None or given.get("training") or given["running_var"] is None:
        return identity(mode, func, args, kwargs)
    inputs, affine = before
    result: Tensor = func(*args, **kwargs)
    z = result.detach()

    def rule(r: Tensor) -> tuple[Tensor]:
        scale = (given["running_var"] + given.get("eps", 1e-5)).rsqrt()
        scale = scale if given.get("weight") is None else scale * given["weight"]
        shift = (0 if affine.bias is None else affine.bias) - given["running_mean"]
        bias = shift * scale if given.get("bias") is None else shift * scale + given["bias"]
        weight = affine.weight * scale.reshape(-1, *[1] * (affine.weight.dim() - 1))
        return (replace(affine, weight=weight, bias=bias).through(r, z),)

    return mode.follow(result, [inputs], rule)


_INSTEAD: Handlers = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    F.linear: _linear,
    F.batch_norm: _batch_norm,
}
GAMMA_RULES: Handlers = {**RULES, **_INSTEAD, **exported(_INSTEAD)}
"""The handlers of kind ``lrp-gamma``."""
