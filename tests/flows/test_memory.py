"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIECES = """
from pathlib import Path
from flows.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

pieces = [bytearray(100_000) for _ in range(2000)]
full = resident()
pieces = pieces[::100]  # what is kept lies between what is freed
kept = resident()
give_back()
print(full - kept, kept - resident(), sum(map(sum, pieces)))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library keeps what it keeps")
def test_memory_between_used_pieces_goes_back() -> None:
    run = subprocess.run([sys.executable, "-c", PIECES], cwd=ROOT, capture_output=True, text=True, check=True)
    by_itself, told, _ = map(int, run.stdout.split())
    assert by_itself + told > 150e6
    assert told > 100e6
