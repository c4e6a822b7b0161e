"""What a process does with memory that it frees: keep it, until it is told to give it back."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vital.memory import DASKS, KEPT

ROOT = Path(__file__).parents[2]
ALONE = """
import sys
from types import SimpleNamespace
sys.modules["torch"] = SimpleNamespace(Tensor=object)  # has no part in it, and takes seconds to import
"""
PIECES = f"""
{ALONE}
import os
from pathlib import Path
from vital.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

pieces = [bytearray(100_000) for _ in range(2000)]
full = resident()
pieces = pieces[::100]  # what is kept lies between what is freed
kept = resident()
give_back()
print(full - kept, kept - resident(), sum(map(sum, pieces)))
"""

AGAIN = """
import resource
from vital.memory import keep_memory

def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        take(40 << 20)  # above 32 MB, where the C library's own rule ends
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()

before, kept = cleared(), keep_memory()
cleared()  # while small pieces between large ones find their places
print(before, kept, cleared())
"""
TENSORS = "import torch\ntake = lambda count: torch.ones(count // 4)\n"
BYTES = f"{ALONE}\ntake = lambda count: b'1' * count\n"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library keeps what it keeps")
def test_memory_between_used_pieces_goes_back() -> None:
    run = subprocess.run([sys.executable, "-c", PIECES], cwd=ROOT, capture_output=True, text=True, check=True)
    by_itself, told, _ = map(int, run.stdout.split())
    assert by_itself + told > 150e6
    assert told > 100e6


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no such settings")
@pytest.mark.parametrize(
    ("taken", "given", "kept"),
    [(TENSORS, {}, True), (BYTES, DASKS, True), *((BYTES, {name: "1000000"}, False) for name in KEPT)],
    ids=["tensors", "dask", *KEPT],
)
def test_what_is_freed_is_used_again(taken: str, given: dict[str, str], kept: bool) -> None:
    """A worker's process, too, which Dask would have return it at once; not where an operator has set it otherwise."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC")}
    command = [sys.executable, "-c", taken + AGAIN]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env={**own, **given})
    before, said, after = run.stdout.split()
    assert said == str(kept)
    # how many pages are cleared at once differs from system to system
    assert 4 * int(after) < int(before) if kept else 2 * int(after) > int(before)
