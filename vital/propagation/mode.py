"""One forward pass with two backward passes: the true gradient, and the relevance of a neuron.

`Relevance` is a torch function mode. While it is active every operation runs as it always does, and those whose
relevance is not their gradient are followed by an identity with two backward behaviours: normally it passes the
gradient on to the operation, which differentiates itself; in `backward` it stands in for the operation and hands its
inputs what the rule gives. Functions are intercepted, not modules: no architecture needs code of its own, and an
operation without a rule is an error that gives its name.

Conservation: every rule hands on exactly the relevance it got, up to ε in a denominator and relevance at outputs
which no input contributes to positively; a norm as identity and a gate as constant conserve by definition. Attention
and products: `vital.propagation.attention`. With kind ``lrp-gamma`` biases take their share, too:
`vital.propagation.gamma`. How much arrives: `vital.propagation.conservation`, and docs/relevance.md
for every architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import resolve_name

from vital.errors import UnsupportedOperation
from vital.network.out_of_place import OnACopy, OutOfPlace
from vital.propagation import rules
from vital.propagation.gamma import GAMMA_RULES
from vital.propagation.operations import RULES
from vital.settings import RelevanceKind

Backward = Callable[[Tensor], tuple[Tensor | None, ...]]


class _Switch:
    """Which of the two backward passes is under way."""

    relevance = False


class _TwoBackwards(torch.autograd.Function):
    """Identity on an operation's output that can answer for the operation."""

    @staticmethod
    def forward(ctx: Any, switch: _Switch, rule: Backward, output: Tensor, *inputs: Tensor) -> Tensor:
        ctx.switch, ctx.rule, ctx.inputs = switch, rule, len(inputs)
        ctx.set_materialize_grads(False)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
        if upstream is None:  # no relevance comes this way, such as to a softmax
            return None, None, None, *([None] * ctx.inputs)
        if ctx.switch.relevance:
            # None for the operation itself: autograd then skips it.
            return None, None, None, *ctx.rule(upstream)
        return None, None, upstream, *([None] * ctx.inputs)


class Relevance(OutOfPlace):
    """The mode of one forward pass (reusable); afterwards `backward` asks for relevance, any number of times.

    >>> import torch
    >>> x = torch.ones(1, 2, requires_grad=True)
    >>> mode = Relevance()
    >>> with mode:
    ...     y = torch.nn.functional.linear(x, torch.tensor([[3.0, 1.0]]))
    >>> [part] = mode.backward(y, y.detach(), [x])
    >>> part.round(decimals=3)
    tensor([[3., 1.]])
    """

    def __init__(self, kind: RelevanceKind = "lrp") -> None:
        super().__init__()
        self._handlers = GAMMA_RULES if kind == "lrp-gamma" else RULES
        self._switch = _Switch()
        self._weights = rules.PositiveWeights()

    def operate(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run ``func`` and give it its rule; raises `UnsupportedOperation` where none is known."""
        handle = self._handlers.get(func)
        if handle is not None:
            return handle(self, func, *_first_by_position(args, kwargs))
        result = func(*args, **kwargs)
        # What an assignment to a part writes, and what it leaves, moves as the gradient does.
        if isinstance(func, OnACopy) or not _carries_gradient(result):
            return result
        raise UnsupportedOperation(
            f"no relevance rule for the operation {resolve_name(func) or func!r}; "
            "use the relevance kind gradient-x-activation for this network, or add a rule in "
            "vital/propagation/operations.py"
        )

    @contextmanager
    def _relevant(self) -> Iterator[None]:
        self._switch.relevance = True
        try:
            yield
        finally:
            self._switch.relevance = False

    def backward(
        self, output: Tensor, start: Tensor, nodes: Sequence[Tensor], retain_graph: bool = True
    ) -> list[Float[Tensor, "image channel site"]]:
        """Relevance of ``output`` at each of ``nodes``, beginning with ``start``; zero at nodes that do not lead to
        the output."""
        with self._relevant():
            gradients = torch.autograd.grad(output, nodes, start, retain_graph=retain_graph, allow_unused=True)
        return [torch.zeros_like(node) if part is None else part for node, part in zip(nodes, gradients, strict=True)]

    def follow(self, output: Tensor, inputs: Sequence[Tensor], rule: Backward) -> Tensor:
        """``output`` with ``rule`` as its relevance backward."""
        if not output.requires_grad:
            return output
        result: Tensor = _TwoBackwards.apply(self._switch, rule, output, *inputs)  # type: ignore[no-untyped-call]
        return result

    def weights(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The positive part W⁺ and the negative part W⁻ of a weight, made once."""
        return self._weights.of(weight)


def gradient_times_activation(
    output: Tensor, start: Tensor, nodes: dict[str, Tensor]
) -> dict[str, Float[Tensor, "image _channel _site"]]:
    """The derivative of ``output``, weighted by ``start``, times the activation of each node: needs no mode and no
    rules."""
    gradients = torch.autograd.grad(output, list(nodes.values()), start, retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(node) if part is None else (part * node).detach()
        for (name, node), part in zip(nodes.items(), gradients, strict=True)
    }


def relevance_mode(kind: RelevanceKind) -> Relevance | None:
    """The mode that a forward pass needs for this kind of relevance; the gradient needs none, so any network will
    do."""
    return None if kind == "gradient-x-activation" else Relevance(kind)


def _first_by_position(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The same arguments of a call, the first of which handlers find by its position, also where it came by name."""
    name = None if args else next((name for name in _FIRST if name in kwargs), None)
    return (args, kwargs) if name is None else ((kwargs[name],), {key: kwargs[key] for key in kwargs if key != name})


_FIRST = ("condition", "input", "tensors")
"""What torch calls an operation's first argument; that of `torch.where` has an ``input``, too."""


def _carries_gradient(result: Any) -> bool:
    if isinstance(result, Tensor):
        return result.requires_grad
    return isinstance(result, (tuple, list)) and any(_carries_gradient(part) for part in result)
