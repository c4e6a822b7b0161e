"""In-place operations carried out out of place, so that what a layer gave is not changed by a later one.

A call such as ``x.add_(y)`` runs as ``x + y``, and x is remembered to hold the sum from then on: whoever reads x later
in the pass, or a view of it made before or after, gets what it would hold. Nothing is lost when a network discards
the result of such a call, and nothing that was seen changes under the reader.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the usual name
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

_Geometry = tuple[torch.Size, tuple[int, ...], int, torch.dtype]


class Overwritten:
    """The values of tensors that a pass has overwritten, by the memory that they lie in.

    Entries go when their memory is freed: a pass without gradients keeps no activation longer than the network does.
    """

    def __init__(self) -> None:
        self._writes: dict[int, tuple[StorageWeakRef, list[tuple[_Geometry, Tensor]]]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._writes.clear()

    def write(self, target: Tensor, value: Tensor) -> None:
        """``target`` holds ``value`` from now on, and so does all that shares its memory."""
        self._writes = {key: entry for key, entry in self._writes.items() if not entry[0].expired()}
        storage = target.untyped_storage()
        _, writes = self._writes.setdefault(storage._cdata, (StorageWeakRef(storage), []))
        writes.append((_geometry(target), value))

    def read(self, value: Any) -> Any:
        """What ``value`` would be now; arguments of a call may be nested in lists, tuples and dictionaries."""
        if not self._writes:
            return value
        if isinstance(value, Tensor):
            entry = self._writes.get(value.untyped_storage()._cdata) if value.layout == torch.strided else None
            return value if entry is None else _rewritten(value, entry[1])
        if type(value) in (list, tuple):
            return type(value)(self.read(part) for part in value)
        if isinstance(value, dict):
            return {name: self.read(part) for name, part in value.items()}
        return value


def _geometry(tensor: Tensor) -> _Geometry:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _rewritten(tensor: Tensor, writes: list[tuple[_Geometry, Tensor]]) -> Tensor:
    mine = _geometry(tensor)
    if writes[-1][0] == mine:
        return writes[-1][1]
    # The memory as a whole with every write put in its place, then seen as the tensor sees it.
    whole = tensor._base if tensor.requires_grad and tensor._base is not None else tensor
    if whole is tensor and not tensor.requires_grad:
        size = tensor.untyped_storage().nbytes() // tensor.element_size()
        whole = tensor.as_strided((size,), (1,), 0)
    for (shape, stride, offset, _), value in writes:
        whole = torch.as_strided_scatter(whole, value.expand(shape), shape, stride, offset)
    shape, stride, offset, _ = mine
    return whole.as_strided(shape, stride, offset)


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
        self._overwritten = Overwritten()

    def __exit__(self, *error: Any) -> None:
        """The pass is over."""
        self._overwritten.clear()
        super().__exit__(*error)

    def operate(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation that changes none of its arguments."""
        return func(*args, **kwargs)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``, or its out-of-place twin, on what its arguments hold by now."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "__get__":  # a property such as the shape, which no write changes
            return func(*args, **kwargs)
        twin = _out_of_place(func, kwargs)
        read = self._overwritten.read
        if twin is None:
            return self.operate(func, read(args), read(kwargs))
        given = {name: value for name, value in kwargs.items() if name not in ("inplace", "out")}
        result = self.operate(twin, read(args), read(given))
        target = kwargs.get("out", args[0] if args else kwargs.get("input"))
        if isinstance(target, Tensor) and isinstance(result, Tensor):
            self._overwritten.write(target, result)
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
        """The changed copy."""
        copy = target.clone()
        self._func(copy, *args, **kwargs)
        return copy


_OPERATORS = {
    "__iadd__": torch.add, "__isub__": torch.sub, "__imul__": torch.mul, "__itruediv__": torch.div,
    "__ipow__": torch.pow,
}  # fmt: skip
_COPIED = {
    "__setitem__", "__ifloordiv__", "__imod__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__",
    # A function of the same name without the underscore means something else, or has no gradient.
    "normal_", "random_", "bernoulli_", "zero_", "fill_", "copy_", "set_",
}  # fmt: skip
# They change what a tensor is taken for, not what it holds.
_ATTRIBUTES = {"requires_grad_", "detach_", "share_memory_", "rename_"}


@cache
def _twin(func: Any) -> Callable[..., Any] | None:
    name = getattr(func, "__name__", "")
    if name in _OPERATORS:
        return _OPERATORS[name]
    if name in _COPIED:
        return OnACopy(func)
    if not name.endswith("_") or name.endswith("__") or name in _ATTRIBUTES:
        return None
    known = (getattr(place, name[:-1], None) for place in (torch, F, Tensor))
    return next((twin for twin in known if callable(twin)), None) or OnACopy(func)
