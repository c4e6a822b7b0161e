"""What stands in for a GPU in tests of a step: a device without values, and graphs that repeat operations."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vital.pictures import losses, step

FUSED_ADAM = torch.ops.aten._fused_adam_.tensor_lr
VALUES = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}
"""Operations whose result, or its size, the host must have."""


def tensors(values: Any) -> list[Tensor]:
    """All tensors in nested arguments or results."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Device(TorchDispatchMode):
    """Counts the operations of a device without values. Where it is strict, one that asks for a value, or that reads or
    makes a tensor on the host, is an error."""

    def __init__(self, strict: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._strict, self.operations = strict, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        assert not self._strict or func not in VALUES, f"{func} makes the host wait"
        # It has no implementation without values: its arguments are looked at alone.
        result = None if func is FUSED_ADAM else func(*args, **(kwargs or {}))
        elsewhere = [one for one in tensors((args, kwargs, result)) if one.device.type != "meta"]
        assert not self._strict or not elsewhere, f"{func} has to do with {elsewhere[0].device}"
        return result


class Tape(TorchDispatchMode):
    """The operations of one step with the tensors that they read and wrote."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[tuple[Any, Any, Any, Any]] = []
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for one in tensors((args, kwargs)):
            memory = one.untyped_storage()
            if memory.data_ptr() not in self._made | self._before.keys():
                self._before[memory.data_ptr()] = one, memory.clone()
        result = func(*args, **kwargs)
        for one in tensors(result):
            if one.untyped_storage().data_ptr() not in self._before:
                self._made.add(one.untyped_storage().data_ptr())
        self._operations.append((func, args, kwargs, result))
        return result

    def undo(self) -> None:
        """All memory from before the recording as it was: recording carries nothing out."""
        for tensor, memory in self._before.values():
            tensor.untyped_storage().copy_(memory)

    def replay(self) -> None:
        """The same operations on the same memory, whatever it holds by now."""
        with torch.no_grad():
            for func, args, kwargs, result in self._operations:
                for kept, new in zip(tensors(result), tensors(func(*args, **kwargs)), strict=True):
                    if kept.data_ptr() != new.data_ptr():
                        kept.copy_(new)


@dataclass
class Recordings:
    """What was asked of the stand-ins for `torch.cuda`, in order."""

    calls: list[str] = field(default_factory=list)
    pools: Counter[int] = field(default_factory=Counter)
    """Graphs of each pool of memory."""
    fails: BaseException | None = None
    """What a recording ends with."""


class _Stream:
    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def wait_stream(self, other: object) -> None:
        self._calls.append("wait")

    def synchronize(self) -> None:
        self._calls.append("done")


class _Graph:
    def __init__(self, calls: list[str]) -> None:
        self.tape, self._calls = Tape(), calls

    def replay(self) -> None:
        self._calls.append("replay")
        self.tape.replay()


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Recordings:
    """From now on the optimiser takes the CPU for a GPU, whose losses, optimiser and recordings it uses."""
    made = Recordings()

    handles = count()

    @contextmanager
    def recording(graph: _Graph, pool: int, stream: object, capture_error_mode: str) -> Iterator[None]:
        made.calls.append("record")
        assert capture_error_mode == "thread_local"  # else what another thread asks of the GPU fails, and this with it
        assert pool not in made.pools or made.pools[pool]  # torch takes no pool whose graphs are all gone
        made.pools[pool] += 1
        weakref.finalize(graph, made.pools.subtract, [pool])
        with graph.tape:
            yield
            if made.fails is not None:
                graph.tape.undo()
                raise made.fails
        graph.tape.undo()

    monkeypatch.setattr(step, "recordable", lambda device: True)
    monkeypatch.setattr(step, "_stream", lambda device: _Stream(made.calls))
    monkeypatch.setattr(losses, "_match_on_cpu", losses._match)
    for name, value in {
        "current_stream": lambda device: _Stream(made.calls),
        "stream": lambda stream: nullcontext(),
        "graph_pool_handle": lambda: next(handles),
        "CUDAGraph": lambda: _Graph(made.calls),
        "graph": recording,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made
