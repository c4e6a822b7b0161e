"""In-place operations carried out out of place, so that what a layer gave is not changed by a later one.

A call such as ``x.add_(y)`` runs as ``x + y``, and x is remembered to hold the sum from then on: whoever reads x later
in the pass, or a view of it made before or after, gets what it would hold. Nothing is lost when a network discards
the result of such a call, and no activation changes once it was read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

LOOKED_AT = 4
"""Entries that a write looks at: it adds one, so at most a third as many as are alive wait to be dropped."""
_Geometry = tuple[torch.Size, tuple[int, ...], int, torch.dtype]


@dataclass
class _Write:
    """What a tensor of this geometry holds by now, in memory of its own; ``whole``: so does all of the memory."""

    memory: StorageWeakRef
    geometry: _Geometry
    value: Tensor
    whole: bool = False


class WrittenValues:
    """What tensors hold after in-place writes that were not carried out on them, by the memory that they lie in.

    A written tensor's memory is never written again: later writes go to the memory of its new value, so every reader
    follows the same chain. Entries go when their memory is freed: a pass without gradients keeps no activation longer
    than the network does.
    """

    def __init__(self) -> None:
        self._writes: OrderedDict[int, _Write] = OrderedDict()

    def __len__(self) -> int:
        return len(self._writes)

    def clear(self) -> None:
        """Forget all writes, once the pass is over."""
        self._writes.clear()

    def write(self, target: Tensor, value: Tensor) -> None:
        """``target``, which `read` gave, holds ``value`` from now on, and so does all that shares its memory."""
        self._forget()
        memory = target.untyped_storage()
        if value.untyped_storage()._cdata != memory._cdata:  # else nothing was computed, e.g. a dropout that is off
            self._writes[memory._cdata] = _Write(StorageWeakRef(memory), _geometry(target), value)

    def _forget(self) -> None:
        """Drop what is expired among a few entries, and put the others last: over some writes all are looked at, and
        no write costs more where there are many."""
        for key in list(islice(self._writes, LOOKED_AT)):
            if self._writes[key].memory.expired():
                del self._writes[key]
            else:
                self._writes.move_to_end(key)

    def read(self, value: Any) -> Any:
        """What ``value`` would be now; arguments of a call may be nested in lists, tuples and dictionaries."""
        if not self._writes:
            return value
        if isinstance(value, Tensor):
            entry = self._writes.get(value.untyped_storage()._cdata) if value.layout == torch.strided else None
            return value if entry is None else self.read(self._rewritten(value, entry))
        if type(value) in (list, tuple):
            return type(value)(self.read(part) for part in value)
        if isinstance(value, dict):
            return {name: self.read(part) for name, part in value.items()}
        return value

    def _rewritten(self, tensor: Tensor, entry: _Write) -> Tensor:
        mine = _geometry(tensor)
        if mine == entry.geometry:
            return entry.value
        if not entry.whole:  # a part was written: all of the memory, with the part inside
            base = tensor._base if tensor._base is not None else tensor
            if not tensor.requires_grad:
                length = tensor.untyped_storage().nbytes() // tensor.element_size()
                base = tensor.as_strided((length,), (1,), 0)
            part, position = self.read(entry.value), _within(base, entry.geometry)
            # Not as_strided_scatter: its derivative is wrong where the part depends on the base (torch 2.13).
            entry.value = base.clone()
            entry.value.as_strided(*position).copy_(part)
            entry.geometry, entry.whole = _geometry(base), True
            self.write(part, entry.value.as_strided(*position))  # whoever has the part gets later writes to the whole
        if mine == entry.geometry:
            return entry.value
        return entry.value.as_strided(mine[0], mine[1], mine[2] - entry.geometry[2])


def _geometry(tensor: Tensor) -> _Geometry:
    return tensor.shape, tensor.stride(), int(tensor.storage_offset()), tensor.dtype


def _within(base: Tensor, geometry: _Geometry) -> tuple[torch.Size, tuple[int, ...], int]:
    """A tensor's position in a copy of its base, which begins at the base's first value."""
    return geometry[0], geometry[1], geometry[2] - int(base.storage_offset())


class OutOfPlace(TorchFunctionMode):
    """The mode of a forward pass in which no operation changes its arguments, while the network computes the same.

    >>> x = torch.zeros(2)
    >>> with OutOfPlace():
    ...     y = x[:1]
    ...     _ = x.add_(1)
    ...     z = y * 3
    >>> x, z
    (tensor([0., 0.]), tensor([3.]))
    """

    def __init__(self) -> None:
        super().__init__()
        self._written = WrittenValues()

    def __exit__(self, *error: Any) -> None:
        """The pass is over."""
        self._written.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def operate(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation that changes none of its arguments."""
        return func(*args, **kwargs)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, or its out-of-place twin, on what its arguments hold by now."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _SHAPES:
            return func(*args, **kwargs)
        twin = _out_of_place(func, kwargs)
        args, kwargs = self._written.read(args), self._written.read(kwargs)
        if twin is None:
            return self.operate(func, args, kwargs)
        result = self.operate(
            twin, args, {name: value for name, value in kwargs.items() if name not in ("inplace", "out")}
        )
        target = kwargs.get("out", args[0] if args else kwargs.get("input"))
        if isinstance(target, Tensor) and isinstance(result, Tensor):
            result = result if result.dtype == target.dtype else result.to(target.dtype)
            self._written.write(target, result)
        return result


def _out_of_place(func: Any, kwargs: dict[str, Any]) -> Callable[..., Any] | None:
    """An operation with the same result that changes none of its arguments; None where ``func`` is one."""
    if kwargs.get("inplace") or isinstance(kwargs.get("out"), Tensor):
        return func  # type: ignore[no-any-return]
    return _twin(func)


class OnACopy:
    """An in-place operation without a twin, e.g. assignment to a slice, carried out on a copy of its target."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func, self.__name__ = func, func.__name__

    def __call__(self, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The copy of ``target`` after the operation."""
        copy = target.clone()
        self._func(copy, *args, **kwargs)
        return copy


_OPERATORS: dict[str, Callable[..., Any]] = {
    "__iadd__": torch.add, "__isub__": torch.sub, "__imul__": torch.mul, "__itruediv__": torch.div,
    "__ipow__": torch.pow,
}  # fmt: skip
_COPIED = {
    "__setitem__", "__ifloordiv__", "__imod__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__",
    # A function of the same name without the underscore means something else, or has no gradient.
    "normal_", "random_", "bernoulli_", "zero_", "fill_", "copy_", "set_",
}  # fmt: skip
_ATTRIBUTES = {"requires_grad_", "detach_", "share_memory_", "rename_"}
# About a tensor's own shape, which no write changes; `__get__` is a property.
_SHAPES = {"__get__", "unsqueeze_", "squeeze_", "t_", "transpose_", "swapaxes_", "swapdims_"}


@cache
def _twin(func: Any) -> Callable[..., Any] | None:
    name = getattr(func, "__name__", "")
    if name in _OPERATORS:
        return _OPERATORS[name]
    if name in _COPIED:
        return OnACopy(func)
    if not name.endswith("_") or name.endswith("__") or name in _ATTRIBUTES:
        return None
    known = (getattr(owner, name[:-1], None) for owner in (torch, F, Tensor))
    return next((twin for twin in known if callable(twin)), None) or OnACopy(func)
