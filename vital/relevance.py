"""One forward pass with two backward passes: the true gradient, and the relevance of a neuron.

`Relevance` is a torch function mode. While it is active every operation runs as it always does, and those whose
relevance is not their gradient are followed by an identity with two backward behaviours: normally it passes the
gradient on to the operation, which differentiates itself; in `backward` it takes the operation's place and hands its
inputs what the rule says. Functions are intercepted, not modules: no architecture needs code of its own, and an
operation without a rule is an error that names it.

Conservation: every rule here hands on exactly the relevance it got, up to ε in a denominator and relevance at outputs
which no input contributes to positively; a norm as identity and a gate as constant conserve by definition. Attention
and products: `vital.products`. How much arrives: `vital.conservation`, and docs/relevance.md for every architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the usual name
from jaxtyping import Float
from torch import Tensor
from torch.overrides import resolve_name

from vital import rules
from vital.attention import through_elementwise
from vital.errors import UnsupportedOperation
from vital.overwritten import OnACopy, OutOfPlace
from vital.products import HANDLERS, are_weights, carry
from vital.settings import Kind

_Backward = Callable[[Tensor], tuple[Tensor | None, ...]]


class _Switch:
    """Which of the two backward passes is under way."""

    relevance = False


class _TwoBackwards(torch.autograd.Function):
    """Identity on an operation's output that can answer in the operation's place."""

    @staticmethod
    def forward(ctx: Any, switch: _Switch, rule: _Backward, output: Tensor, *inputs: Tensor) -> Tensor:
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

    def __init__(self) -> None:
        super().__init__()
        self._switch = _Switch()
        self._weights = rules.PositiveWeights()

    def operate(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run ``func`` and give it its rule; raises `UnsupportedOperation` where none is known."""
        handle = _HANDLERS.get(func)
        if handle is not None:
            return handle(self, func, args, kwargs)
        result = func(*args, **kwargs)
        # What an assignment to a part writes, and what it leaves, moves as the gradient does.
        if isinstance(func, OnACopy) or not _carries_gradient(result):
            return result
        raise UnsupportedOperation(
            f"no relevance rule for the operation {resolve_name(func) or func!r}; "
            "use the relevance kind gradient-x-activation for this network, or add a rule in vital/relevance.py"
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
            found = torch.autograd.grad(output, nodes, start, retain_graph=retain_graph, allow_unused=True)
        return [torch.zeros_like(node) if part is None else part for node, part in zip(nodes, found, strict=True)]

    def follow(self, output: Tensor, inputs: Sequence[Tensor], rule: _Backward) -> Tensor:
        """``output`` with ``rule`` as its relevance backward."""
        if not output.requires_grad:
            return output
        result: Tensor = _TwoBackwards.apply(self._switch, rule, output, *inputs)  # type: ignore[no-untyped-call]
        return result

    def weights(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(W⁺, W⁻)."""
        return self._weights.of(weight)


def gradient_times_activation(
    output: Tensor, start: Tensor, nodes: dict[str, Tensor]
) -> dict[str, Float[Tensor, "image _channel _site"]]:
    """The derivative of ``output``, weighted by ``start``, times the activation of each node: needs no mode and no
    rules."""
    found = torch.autograd.grad(output, list(nodes.values()), start, retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(node) if part is None else (part * node).detach()
        for (name, node), part in zip(nodes.items(), found, strict=True)
    }


def relevance_mode(kind: Kind) -> Relevance | None:
    """The mode that a forward pass needs for this kind of relevance; the gradient needs none, so any network will
    do."""
    return None if kind == "gradient-x-activation" else Relevance()


def _carries_gradient(result: Any) -> bool:
    if isinstance(result, Tensor):
        return result.requires_grad
    return isinstance(result, (tuple, list)) and any(_carries_gradient(part) for part in result)


# Tensors that cannot be negative carry a mark, so that the signed rule costs two more convolutions only where it must.
_MARK = "_vital_nonnegative"


def _nonnegative(tensor: Tensor) -> bool:
    return getattr(tensor, _MARK, False)


def _mark(tensor: Tensor, nonnegative: bool) -> Tensor:
    if nonnegative:
        setattr(tensor, _MARK, True)
    return tensor


def _argument(args: Sequence[Any], kwargs: dict[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _convolution(mode: Relevance, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, weight = args[0], _argument(args, kwargs, 1, "weight", None)
    options = [
        _argument(args, kwargs, place, name, default)
        for place, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1), (6, "groups", 1))
    ]
    convolution, sign = rules.Convolution(*options), _nonnegative(inputs)
    kept = inputs.detach()
    return mode.follow(
        func(*args, **kwargs),
        [inputs],
        lambda r: (rules.through_convolution(r, kept, mode.weights(weight), convolution, sign),),
    )


def _linear(mode: Relevance, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, weight = args[0], _argument(args, kwargs, 1, "weight", None)
    kept, sign = inputs.detach(), _nonnegative(inputs)
    return mode.follow(
        func(*args, **kwargs), [inputs], lambda r: (rules.through_linear(r, kept, mode.weights(weight), sign),)
    )


def _identity(mode: Relevance, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs = args[0] if args else kwargs["input"]
    result = mode.follow(func(*args, **kwargs), [inputs], lambda r: (r,))
    # ReLU6 arrives here as a hardtanh from 0.
    floor = _argument(args, kwargs, 1, "min_val", -1.0) if func is F.hardtanh else -1.0
    return _mark(result, func in _RECTIFIERS or floor >= 0)


def _max_pool(mode: Relevance, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, kernel = args[0], _argument(args, kwargs, 1, "kernel_size", None)
    options = {
        name: _argument(args, kwargs, place, name, None)
        for place, name in ((2, "stride"), (3, "padding"), (5, "ceil_mode"))
    }
    kept, sign = inputs.detach(), _nonnegative(inputs)
    result = mode.follow(
        func(*args, **kwargs), [inputs], lambda r: (rules.through_max_pool(r, kept, kernel, options, sign),)
    )
    return _mark(result, sign)


def _average(mode: Relevance, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, rest = args[0], args[1:]
    kept, sign = inputs.detach(), _nonnegative(inputs)
    result = mode.follow(
        func(*args, **kwargs),
        [inputs],
        lambda r: (rules.through_average(r, kept, lambda x: func(x, *rest, **kwargs), sign),),
    )
    return _mark(result, sign)


def _sum(mode: Relevance, func: Any, args: Any, kwargs: Any) -> Tensor:
    first, second = args[0], _argument(args, kwargs, 1, "other", None)
    result = func(*args, **kwargs)
    live = [part for part in (first, second) if isinstance(part, Tensor) and part.requires_grad]
    if len(live) < 2 or first.shape != second.shape or kwargs.get("alpha", 1) != 1:
        return _with_constants(mode, result, live)
    a, b = first.detach(), second.detach()
    joined = mode.follow(result, [first, second], lambda r: rules.through_sum(r, a, b))
    return _mark(joined, _nonnegative(first) and _nonnegative(second))


def _product(mode: Relevance, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A product with a gate (squeeze-excite): the gate is the factor that has one value a channel, or attention
    weights; the features take all relevance. Two activations of one size take half each."""
    first, second = args[0], _argument(args, kwargs, 1, "other", None)
    result = func(*args, **kwargs)
    live = [part for part in (first, second) if isinstance(part, Tensor) and part.requires_grad]
    if len(live) == 2:
        features = max(live, key=lambda part: (not are_weights(part), part.numel()))
        if first.shape == second.shape and are_weights(first) == are_weights(second):
            halves = mode.follow(result, [first, second], through_elementwise)
            return _mark(halves, _nonnegative(first) and _nonnegative(second))
        live = [features]
        gate = second if features is first else first
        return _mark(_with_constants(mode, result, live), _nonnegative(features) and _nonnegative(gate))
    return _with_constants(mode, result, live)


def _with_constants(mode: Relevance, result: Tensor, live: Sequence[Tensor]) -> Tensor:
    """A sum or product of one activation with parameters: like the affine part of a norm, relevance passes
    unchanged."""
    if not live:
        return result
    if live[0].shape != result.shape:
        raise UnsupportedOperation(
            "no relevance rule for add or mul of an activation that is broadcast; "
            "use the relevance kind gradient-x-activation for this network, or expand it first"
        )
    return mode.follow(result, live[:1], lambda r: (r,))


def _structure(mode: Relevance, func: Any, args: Any, kwargs: Any) -> Any:
    """Moving values about: relevance moves as the gradient does, and the mark of non-negative values goes along."""
    result = func(*args, **kwargs)
    parts = args[0] if isinstance(args[0], (tuple, list)) else [args[0]]
    sign = all(isinstance(part, Tensor) and _nonnegative(part) for part in parts)
    carry(args[0], result)
    if sign:
        for part in result if isinstance(result, (tuple, list)) else [result]:
            _mark(part, True)
    return result


_RECTIFIERS = {F.relu, torch.relu, Tensor.relu, F.relu6, F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.hardsigmoid}
_IDENTITIES = _RECTIFIERS | {
    F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.normalize, F.dropout2d, F.silu, F.gelu, F.hardswish,
    F.hardtanh, F.leaky_relu, F.elu, F.mish, torch.tanh, Tensor.tanh, torch.clamp, Tensor.clamp, F.softplus,
}  # fmt: skip
_MOVES = {
    torch.flatten, Tensor.flatten, Tensor.reshape, torch.reshape, Tensor.view, Tensor.permute, torch.permute,
    Tensor.transpose, torch.transpose, Tensor.contiguous, torch.cat, torch.concat, Tensor.chunk, torch.chunk,
    Tensor.split, torch.split, Tensor.__getitem__, Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze,
    torch.roll, Tensor.roll, F.pad, F.channel_shuffle, Tensor.clone, Tensor.to, Tensor.float, Tensor.expand,
    torch.stack, Tensor.unflatten, Tensor.swapaxes, torch.swapaxes, F.dropout, torch.unbind, Tensor.unbind,
    torch.movedim, Tensor.movedim, Tensor.repeat, torch.flip, Tensor.flip, F.pixel_unshuffle, F.pixel_shuffle,
    Tensor.view_as, Tensor.select, Tensor.narrow, Tensor.double,
}  # fmt: skip
_HANDLERS: dict[Any, Callable[[Relevance, Any, Any, Any], Any]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    F.linear: _linear,
    **dict.fromkeys(_IDENTITIES, _identity),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
    **dict.fromkeys((F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean), _average),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__), _sum),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), _product),
    **dict.fromkeys(_MOVES, _structure),
    **HANDLERS,
}
