"""Rules of convolutions and linear maps that are tried beside the published one.

All are one formula. An output's relevance goes to its inputs by their terms a w, of which those with the output's sign
count 1 + γ times: LRP-γ for inputs of both signs (Andéol et al., "Learning domain invariant representations by joint
Wasserstein distance minimization", 2023). γ = 0 is LRP-ε (Bach et al., "On pixel-wise explanations for non-linear
classifier decisions by layer-wise relevance propagation", 2015), γ → ∞ is z⁺. They differ in what the bias gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vital.network.neurons import EPSILON
from vital.propagation.mode import Relevance

Apply = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """A candidate. The bias ``takes`` its share, which is then lost; or its share is ``spread`` over all inputs alike;
    or it is ``ignored`` as published, and only the share of ε is spread."""

    gamma: float
    bias: Literal["takes", "spread", "ignored"]
    damping: float = 0.0
    """Added to every denominator, in root mean squares of the image's outputs."""


CANDIDATES = {
    "z⁺, rest spread": Rule(math.inf, "ignored"),
    "z⁺, bias takes": Rule(math.inf, "takes"),
    "γ = 0.25, bias spread": Rule(0.25, "spread"),
    "ε, bias takes": Rule(0.0, "takes", 0.25),
}


def passed(rule: Rule, output: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None, apply: Apply) -> Tensor:
    """Relevance of the inputs of ``apply(inputs, weight) + bias`` from that of the outputs."""
    z = apply(inputs, weight)
    offset = torch.zeros_like(z) if bias is None else bias.reshape(-1, *[1] * (z.dim() - 2)).expand_as(z)
    if math.isinf(rule.gamma):  # whatever the output's sign
        return _of_sign(rule, output, inputs, weight, offset, apply)
    positive = z + offset >= 0
    return _of_sign(rule, output * positive, inputs, weight, offset, apply) + _of_sign(
        rule, output * ~positive, inputs, -weight, -offset, apply
    )


def _of_sign(rule: Rule, output: Tensor, inputs: Tensor, weight: Tensor, offset: Tensor, apply: Apply) -> Tensor:
    """Of outputs that are positive; elsewhere their relevance is zero."""

    def favoured(values: Tensor, sign: int) -> Tensor:
        """Of the weights of inputs of one sign, more of those that give positive terms."""
        helping = values.clamp(min=0) if sign > 0 else values.clamp(max=0)
        return helping if math.isinf(rule.gamma) else values + rule.gamma * helping

    bias = torch.full_like(offset, EPSILON) if rule.bias == "ignored" else favoured(offset, 1)
    with torch.enable_grad():
        parts = [part.detach().requires_grad_() for part in (inputs.clamp(min=0), inputs.clamp(max=0))]
        ones = torch.ones_like(inputs, requires_grad=True)
        z = apply(parts[0], favoured(weight, 1)) + apply(parts[1], favoured(weight, -1))
        taps = apply(ones, torch.ones_like(weight))
        denominator = z.detach() + bias
        if rule.damping:
            denominator = denominator + rule.damping * denominator.flatten(1).square().mean(1).sqrt().reshape(
                -1, *[1] * (z.dim() - 1)
            )
        ratio = output / torch.where(denominator > EPSILON, denominator, EPSILON)
        back = torch.autograd.grad(z, parts, ratio)
        (alike,) = torch.autograd.grad(taps, ones, ratio * bias / taps.detach())
    shared = parts[0].detach() * back[0] + parts[1].detach() * back[1]
    return shared if rule.bias == "takes" else shared + alike


class Candidate(Relevance):
    """A pass in which convolutions and linear maps follow a candidate, all else the library's rules."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule

    def operate(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run the operation, with the candidate's rule where it has one."""
        if func not in (F.conv2d, F.linear):
            return super().operate(func, args, kwargs)
        inputs, weight, bias, *rest = (*args, None) if len(args) == 2 else args
        bias, named = kwargs.get("bias", bias), {name: value for name, value in kwargs.items() if name != "bias"}
        kept = inputs.detach()

        def apply(values: Tensor, kernel: Tensor) -> Tensor:
            return func(values, kernel, None, *rest, **named)  # type: ignore[no-any-return]

        return self.follow(
            func(*args, **kwargs), [inputs], lambda r: (passed(self._rule, r, kept, weight, bias, apply),)
        )
