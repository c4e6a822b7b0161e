"""Every operation with a relevance rule (`RULES`), and how a forward pass follows those that are not of attention:
convolutions and linear maps, norms and activation functions, pools, elementwise arithmetic, moves of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vital.errors import UnsupportedOperation
from vital.propagation import rules
from vital.propagation.attention import through_elementwise
from vital.propagation.attention_operations import ATTENTION, Pass, are_weights, hand_on_mark

Handlers = dict[Any, Callable[[Pass, Any, Any, Any], Any]]

# Tensors that cannot be negative carry a mark, so that the signed rule costs two more convolutions only where it must.
_MARK = "_vital_nonnegative"


def nonnegative(tensor: Tensor) -> bool:
    """Whether this cannot be negative."""
    return getattr(tensor, _MARK, False)


def _mark(tensor: Tensor, nonnegative: bool) -> Tensor:
    if nonnegative:
        setattr(tensor, _MARK, True)
    return tensor


def argument(args: Sequence[Any], kwargs: dict[str, Any], index: int, name: str, default: Any) -> Any:
    """An argument of a call by its position or its name."""
    return args[index] if len(args) > index else kwargs.get(name, default)


def convolution_of(args: Sequence[Any], kwargs: dict[str, Any]) -> rules.Convolution:
    """The convolution that a call asks for."""
    known = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1), (6, "groups", 1))
    return rules.Convolution(*(argument(args, kwargs, *one) for one in known))


def _convolution(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, weight = args[0], argument(args, kwargs, 1, "weight", None)
    convolution, sign = convolution_of(args, kwargs), nonnegative(inputs)
    kept = inputs.detach()
    return mode.follow(
        func(*args, **kwargs),
        [inputs],
        lambda r: (rules.through_convolution(r, kept, mode.weights(weight), convolution, sign),),
    )


def _linear(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, weight = args[0], argument(args, kwargs, 1, "weight", None)
    kept, sign = inputs.detach(), nonnegative(inputs)
    return mode.follow(
        func(*args, **kwargs), [inputs], lambda r: (rules.through_linear(r, kept, mode.weights(weight), sign),)
    )


def _transposed_convolution(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, weight = args[0], argument(args, kwargs, 1, "weight", None)
    rest, named = args[3:], {name: value for name, value in kwargs.items() if name not in ("weight", "bias")}
    kept, sign = inputs.detach(), nonnegative(inputs)

    def apply(values: Tensor, kernel: Tensor) -> Tensor:
        return func(values, kernel, None, *rest, **named)  # type: ignore[no-any-return]

    return mode.follow(
        func(*args, **kwargs),
        [inputs],
        lambda r: (rules.through_weights(r, kept, mode.weights(weight), apply, sign),),
    )


def identity(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Norms and activation functions: relevance passes unchanged."""
    inputs = args[0] if args else kwargs["input"]
    result = mode.follow(func(*args, **kwargs), [inputs], lambda r: (r,))
    # ReLU6 is a hardtanh from 0.
    floor = argument(args, kwargs, 1, "min_val", -1.0) if func is F.hardtanh else -1.0
    return _mark(result, func in _RECTIFIERS or floor >= 0)


def _max_pool(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, kernel = args[0], argument(args, kwargs, 1, "kernel_size", None)
    geometry = {
        name: argument(args, kwargs, index, name, None)
        for index, name in ((2, "stride"), (3, "padding"), (5, "ceil_mode"))
    }
    if argument(args, kwargs, 4, "dilation", 1) not in (1, (1, 1), [1, 1]):
        raise UnsupportedOperation(
            "no relevance rule for max_pool2d with a dilation; "
            "use the relevance kind gradient-x-activation for this network"
        )
    kept, sign = inputs.detach(), nonnegative(inputs)
    result = mode.follow(
        func(*args, **kwargs), [inputs], lambda r: (rules.through_max_pool(r, kept, kernel, geometry, sign),)
    )
    return _mark(result, sign)


def _adaptive_max_pool(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """As the average over its own windows, like other max-pools."""
    inputs, size = args[0], argument(args, kwargs, 1, "output_size", None)
    positive = inputs.detach().clamp(min=0)
    result = mode.follow(
        func(*args, **kwargs),
        [inputs],
        lambda r: (rules.share(r, positive, lambda x: F.adaptive_avg_pool2d(x, size)),),
    )
    return _mark(result, nonnegative(inputs))


def _average(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    inputs, rest = args[0], args[1:]
    kept, sign = inputs.detach(), nonnegative(inputs)
    result = mode.follow(
        func(*args, **kwargs),
        [inputs],
        lambda r: (rules.through_average(r, kept, lambda x: func(x, *rest, **kwargs), sign),),
    )
    return _mark(result, sign)


def _sum(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    first, second = args[0], argument(args, kwargs, 1, "other", None)
    result = func(*args, **kwargs)
    live = [part for part in (first, second) if isinstance(part, Tensor) and part.requires_grad]
    if len(live) < 2 or first.shape != second.shape:
        return _with_constants(mode, result, live)
    times = kwargs.get("alpha", 1)
    a, b = first.detach(), second.detach() if times == 1 else second.detach() * times
    joined = mode.follow(result, [first, second], lambda r: rules.through_sum(r, a, b))
    return _mark(joined, nonnegative(first) and nonnegative(second) and times >= 0)


def _product(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A product with a gate (squeeze-excite): the gate is the factor that has one value a channel, or attention
    weights; the features take all relevance. Two activations of one size take half each."""
    first, second = args[0], argument(args, kwargs, 1, "other", None)
    result = func(*args, **kwargs)
    live = [part for part in (first, second) if isinstance(part, Tensor) and part.requires_grad]
    if len(live) == 2:
        features = max(live, key=lambda part: (not are_weights(part), part.numel()))
        if first.shape == second.shape and are_weights(first) == are_weights(second):
            halves = mode.follow(result, [first, second], through_elementwise)
            return _mark(halves, nonnegative(first) and nonnegative(second))
        live = [features]
        gate = second if features is first else first
        return _mark(_with_constants(mode, result, live), nonnegative(features) and nonnegative(gate))
    return _with_constants(mode, result, live)


def _quotient(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A quotient is a normalisation: what is divided takes everything, the divisor is a constant."""
    result: Tensor = func(*args, **kwargs)
    if not result.requires_grad:
        return result
    numerator = args[0]
    if not numerator.requires_grad or numerator.shape != result.shape:
        raise UnsupportedOperation(
            "no relevance rule for div of a constant, or of an activation that is broadcast, by an activation; "
            "use the relevance kind gradient-x-activation for this network"
        )
    return mode.follow(result, [numerator], lambda r: (r,))


def _difference(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A difference is a sum with one sign turned: it splits by size. A constant beside it, or before it, takes
    nothing."""
    result: Tensor = func(*args, **kwargs)
    parts = [*args, *(kwargs[name] for name in ("other",) if name in kwargs)]
    live = [part for part in parts if isinstance(part, Tensor) and part.requires_grad]
    if any(part.shape != result.shape for part in live):
        raise UnsupportedOperation(
            "no relevance rule for sub of an activation that is broadcast; "
            "use the relevance kind gradient-x-activation for this network"
        )
    if len(live) < 2:
        return mode.follow(result, live, lambda r: (r,)) if live else result
    first, second = parts[0].detach(), parts[1].detach() * kwargs.get("alpha", 1)
    return mode.follow(result, live, lambda r: rules.through_sum(r, first, second))


def _sum_with_product(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """input + value · a · b, as the sum and the product that it is."""
    first, second = argument(args, kwargs, 1, "tensor1", None), argument(args, kwargs, 2, "tensor2", None)
    value = kwargs.get("value", 1)
    second = second if value == 1 else _product(mode, torch.mul, (second, value), {})
    product = _product(mode, torch.mul, (first, second), {})
    return _sum(mode, torch.add, (args[0], product), {})


def _interpolation(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Larger or smaller maps are averages of the nearest values, save for bicubic ones, which subtract, too: those are
    weights of both signs along rows and along columns."""
    inputs = args[0] if args else kwargs["input"]
    if argument(args, kwargs, 3, "mode", "nearest") != "bicubic" or not inputs.requires_grad:
        return _average(mode, func, args or (inputs,), {name: part for name, part in kwargs.items() if name != "input"})
    known = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
    given = dict(zip(known, args[1:], strict=False)) | {name: kwargs[name] for name in known if name in kwargs}
    kept, sign = inputs.detach(), nonnegative(inputs)
    signed = rules.of_both_signs(*(rules.resizing(kept, axis, given) for axis in (2, 3)))
    return mode.follow(
        func(*args, **kwargs), [inputs], lambda r: (rules.through_weights(r, kept, signed, _applied, sign),)
    )


def _applied(values: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    return apply(values)


def _power(mode: Pass, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A power of each value is an activation function (squared ReLUs)."""
    if isinstance(argument(args, kwargs, 1, "exponent", None), Tensor):
        raise UnsupportedOperation(
            "no relevance rule for pow with an exponent that is a tensor; "
            "use the relevance kind gradient-x-activation for this network"
        )
    return identity(mode, func, args, kwargs)


def _with_constants(mode: Pass, result: Tensor, live: Sequence[Tensor]) -> Tensor:
    """A sum or product of one activation with parameters: like the affine part of a norm, relevance passes
    unchanged."""
    if not live:
        return result
    if live[0].shape != result.shape and len(live) > 1:
        raise UnsupportedOperation(
            "no relevance rule for add or mul of two activations of which the first is broadcast; "
            "use the relevance kind gradient-x-activation for this network, or expand it first"
        )
    shape = live[0].shape  # of what is broadcast every copy takes its own
    return mode.follow(result, live[:1], lambda r: (r.sum_to_size(shape),))


def _structure(mode: Pass, func: Any, args: Any, kwargs: Any) -> Any:
    """Moving values about: relevance moves as the gradient does, and the mark of non-negative values goes along, unless
    others are put among them."""
    result = func(*args, **kwargs)
    if isinstance(result, str):  # of Tensor.type, asked which it is
        return result
    parts = args[0] if isinstance(args[0], (tuple, list)) else [args[0]]
    filled = func in _FILLS or (func is F.pad and (argument(args, kwargs, 3, "value", None) or 0) < 0)
    sign = not filled and all(isinstance(part, Tensor) and nonnegative(part) for part in parts)
    hand_on_mark(args[0], result)
    if sign:
        for part in result if isinstance(result, (tuple, list)) else [result]:
            _mark(part, True)
    return result


_RECTIFIERS = {F.relu, torch.relu, Tensor.relu, F.relu6, F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.hardsigmoid}
_IDENTITIES = _RECTIFIERS | {
    F.batch_norm, F.layer_norm, F.group_norm, F.instance_norm, F.normalize, F.dropout2d, F.silu, F.gelu, F.hardswish,
    F.selu, F.celu, F.prelu, F.rrelu, F.softsign, F.logsigmoid, F.threshold, torch.selu, torch.celu, torch.prelu,
    F.hardtanh, F.leaky_relu, F.elu, F.mish, torch.tanh, Tensor.tanh, torch.clamp, Tensor.clamp, F.softplus,
}  # fmt: skip
_MOVES = {
    torch.flatten, Tensor.flatten, Tensor.reshape, torch.reshape, Tensor.view, Tensor.permute, torch.permute,
    Tensor.transpose, torch.transpose, Tensor.contiguous, torch.cat, torch.concat, Tensor.chunk, torch.chunk,
    Tensor.split, torch.split, Tensor.__getitem__, Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze,
    torch.roll, Tensor.roll, F.pad, F.channel_shuffle, Tensor.clone, Tensor.to, Tensor.float, Tensor.expand,
    torch.stack, Tensor.unflatten, Tensor.swapaxes, torch.swapaxes, F.dropout, torch.unbind, Tensor.unbind,
    torch.movedim, Tensor.movedim, Tensor.repeat, torch.flip, Tensor.flip, F.pixel_unshuffle, F.pixel_shuffle,
    Tensor.view_as, Tensor.select, Tensor.narrow, Tensor.double, Tensor.reshape_as, Tensor.expand_as, Tensor.type_as,
    torch.repeat_interleave, Tensor.repeat_interleave, torch.tile, Tensor.tile, torch.hstack, torch.vstack,
    torch.unflatten, torch.clone, torch.moveaxis, Tensor.moveaxis, torch.rot90, Tensor.rot90, torch.index_select,
    Tensor.index_select, torch.gather, Tensor.gather, torch.narrow, torch.select, Tensor.swapdims, torch.swapdims,
    Tensor.adjoint, Tensor.t, torch.t, F.unfold, torch.broadcast_to, Tensor.broadcast_to,
    Tensor.ravel, torch.ravel, Tensor.unfold, Tensor.bfloat16, Tensor.half, Tensor.type,
}  # fmt: skip
_FILLS = {torch.where, Tensor.where, torch.masked_fill, Tensor.masked_fill}
RULES: Handlers = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    F.linear: _linear,
    **dict.fromkeys(_IDENTITIES, identity),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
    **dict.fromkeys(
        (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean, torch.sum, Tensor.sum, F.fold), _average
    ),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d), _transposed_convolution),
    F.adaptive_max_pool2d: _adaptive_max_pool,
    **dict.fromkeys((F.avg_pool1d, torch.avg_pool1d, F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d), _average),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__), _sum),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__), _product),
    **dict.fromkeys(_MOVES | _FILLS, _structure),
    **dict.fromkeys((torch.addcmul, Tensor.addcmul), _sum_with_product),
    **dict.fromkeys((torch.pow, Tensor.pow, Tensor.__pow__, torch.square, Tensor.square), _power),
    F.interpolate: _interpolation,
    **dict.fromkeys((torch.div, Tensor.div, Tensor.__truediv__), _quotient),
    **dict.fromkeys((torch.sub, Tensor.sub, Tensor.__sub__, Tensor.__rsub__), _difference),
    **dict.fromkeys((torch.neg, Tensor.neg, Tensor.__neg__), _difference),
    **ATTENTION,
}
"""The handler of each operation: it runs the operation and lets its relevance rule follow."""


def exported(handlers: Handlers) -> Handlers:
    """The same operations as programs of torch.export call them, whose arguments come in the same order."""
    renamed: Handlers = {}
    for func, handle in handlers.items():
        packet = getattr(torch.ops.aten, getattr(func, "__name__", ""), None)
        renamed |= {
            getattr(packet, overload): handle for overload in (packet.overloads() if packet is not None else ())
        }
    return renamed


RULES.update(exported(RULES))
