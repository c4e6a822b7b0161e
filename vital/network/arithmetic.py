"""In which arithmetic a network computes: the one place that sets it for everything that is written.

torch rounds convolutions on a GPU to tf32 unless it is told not to, and a program may have told it anything. So every
pass whose numbers are kept runs inside `arithmetic`, or inside `rounding` where it takes no precision of its own.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vital.errors import UnsuitableInput
from vital.network.models import Model
from vital.network.probe import anchor
from vital.settings import AskedPrecision, Precision

ON_GPU: Precision = "bfloat16"
"""What ``auto`` means on a GPU that computes in it; float32 elsewhere. docs/pictures.md says what it costs."""
WORKSPACE = ":4096:8"
"""cuBLAS's workspace with which its sums have one order (its documentation, "Results reproducibility")."""

# torch 2.9 says once in each process that one of its two sets of flags is old; `rounding` sets both, with a reason.
with warnings.catch_warnings(), suppress(RuntimeError):
    warnings.simplefilter("ignore")
    torch.get_float32_matmul_precision()

_halved: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def resolved(asked: AskedPrecision, device: torch.device) -> Precision:
    """The precision that ``auto`` means on ``device``, or the one asked for.

    >>> resolved("auto", torch.device("cpu")), resolved("tf32", torch.device("cpu"))
    ('float32', 'tf32')
    """
    if asked != "auto":
        return asked
    if device.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False):
        return "float32"
    return ON_GPU


@contextmanager
def arithmetic(model: Model, precision: AskedPrecision = "float32") -> Iterator[Model]:
    """The model that computes in ``precision`` while the block lasts; the given one is left as it is.

    ``float32`` is exact. ``tf32`` rounds what convolutions and matrix products read to 10 bits of mantissa; it changes
    nothing on a CPU. ``bfloat16`` (7 bits) runs a copy of the network, which is kept as long as the network lives.
    ``auto`` is `resolved` for the network's device.
    """
    wanted = resolved(precision, anchor(model.network).device)
    if wanted == "bfloat16":
        if model.network not in _halved:
            _halved[model.network] = copy.deepcopy(model.network).to(torch.bfloat16)
        model = replace(model, network=_halved[model.network])
    with rounding(wanted):
        yield model


@contextmanager
def rounding(precision: Precision = "float32") -> Iterator[None]:
    """Single precision is single precision while the block lasts, or tf32 where ``precision`` allows it.

    The flags of cuBLAS, cuDNN and oneDNN are set, and no autocast of the caller's reaches inside. All is as before
    afterwards, whichever of torch's two sets of flags it was set by.
    """
    allowed = precision != "float32"
    backends: Any = torch.backends  # its modules have attributes that no checker sees
    on_gpu = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    on_cpu = (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)
    before = [(one, one.fp32_precision) for one in (*on_gpu, *on_cpu)]
    matmul = cudnn = None
    with suppress(RuntimeError):  # what the new flags say differently, the old ones do not tell
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = backends.cudnn.allow_tf32
    with ExitStack() as autocast:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                autocast.enter_context(torch.autocast(device, enabled=False))
        # Both sets: the old one alone leaves convolutions to a general flag, the new one alone makes reading the old
        # one an error, and parts of torch read it.
        backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = allowed
        for one in on_gpu:
            one.fp32_precision = "tf32" if allowed else "ieee"
        for one in on_cpu:
            one.fp32_precision = "ieee"
        try:
            yield
        finally:
            if matmul is not None:
                torch.set_float32_matmul_precision(matmul)
            if cudnn is not None:
                backends.cudnn.allow_tf32 = cudnn
            for one, value in before:
                one.fp32_precision = value


@contextmanager
def repeatable(asked: bool = True) -> Iterator[None]:
    """Every operation gives the same bytes each time that it runs on the same GPU, while the block lasts; nothing
    happens unless it is ``asked``.

    Raises:
        UnsuitableInput: torch knows no such algorithm for an operation; or the process has used cuBLAS before, which
            reads its workspace once, and was started without CUBLAS_WORKSPACE_CONFIG.
    """
    if not asked:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    kept = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [""])[0]
        if "CUBLAS_WORKSPACE_CONFIG" in str(error):
            raise UnsuitableInput(
                "this process used the GPU before it was asked for the same bytes each time (deterministic): run the "
                f"same in a new one, or start it with CUBLAS_WORKSPACE_CONFIG={WORKSPACE}"
            ) from error
        if "deterministic" in first:
            raise UnsuitableInput(
                f"the same bytes each time were asked for (deterministic) but {first.split(',')[0]}: leave it out, or "
                "run on a CPU"
            ) from error
        raise
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = kept


def widened(values: Tensor) -> Tensor:
    """The same in at least single precision: what is summed and kept is never of less."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
