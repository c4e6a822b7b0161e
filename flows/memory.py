"""Freed memory, back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Hand what is freed back to the system, wherever it lies; nothing happens where the C library knows no such call.

    glibc keeps freed pieces that lie between used ones. A pass decodes images of all sizes, so those pieces grow in
    number with the images seen, and its memory with the number of shards. Once a shard this costs some milliseconds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
