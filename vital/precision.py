"""Arithmetic of less than single precision, for devices that are faster in it; losses and pictures stay in single."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import nn

from vital.models import Model
from vital.settings import Precision

_halved: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


@contextmanager
def reduced(model: Model, precision: Precision) -> Iterator[Model]:
    """The model that computes in ``precision`` while the block lasts; the given one is left as it is.

    ``float32`` is exact: it also keeps a GPU from rounding to tf32, which torch does by default in convolutions.
    ``tf32`` allows that (10 bits of mantissa; it changes nothing on a CPU), ``bfloat16`` (7 bits) runs a copy of the
    network, which is kept as long as the network lives.
    """
    if precision == "bfloat16":
        if model.network not in _halved:
            _halved[model.network] = copy.deepcopy(model.network).to(torch.bfloat16)
        model = replace(model, network=_halved[model.network])
    allowed = precision != "float32"
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield model
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
