"""Torch as it is on a machine with GPUs, as far as it is only asked which there are. Loaded by ``--preload``, too."""

from __future__ import annotations

import os

from torch import cuda

COUNT = "STAND_IN_GPUS"
"""How many there are, in the environment of a process that loads this."""


def visible() -> int:
    """What torch says: all, or those named in CUDA_VISIBLE_DEVICES; of MIG instances only ever one."""
    count, named = int(os.environ[COUNT]), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else list(map(str, range(count)))
    return 1 if names[0].startswith("MIG-") else min(count, len(names))


if COUNT in os.environ:  # a worker that was started with this; a test says so itself
    cuda.is_available, cuda.device_count = lambda: True, visible
