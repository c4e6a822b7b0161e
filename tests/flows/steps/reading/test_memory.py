"""A process keeps what it frees while it works, and gives it back to the system after every shard."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.jobs import Running
from flows.running.process import DASKS, load
from flows.steps.reading.labels import BY_NUMBER
from flows.steps.reading.shards import scan_shard
from stores.shards.finding import expand
from tests.flows.conftest import LAYER, MODEL, Made
from vital.measuring.gathering import Plan

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
PIECES = """
import os
from pathlib import Path
from flows.running.process import give_back

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
import torch
from flows.running.process import keep_memory

def cleared():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16 << 20)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()

print(cleared(), keep_memory(), cleared())
"""


def test_it_does_so_after_every_shard(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr("flows.steps.reading.shards.give_back", lambda: given.append("back"))
    here = load(MODEL, Running())
    for number, shard in enumerate(expand([str(made.shards)]), 1):
        scan_shard(shard, here, Plan((LAYER,), (), 2, 16), BY_NUMBER)
        assert len(given) == number


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library keeps what it keeps")
def test_memory_between_used_pieces_goes_back() -> None:
    run = subprocess.run([sys.executable, "-c", PIECES], cwd=ROOT, capture_output=True, text=True, check=True)
    by_itself, told, _ = map(int, run.stdout.split())
    assert by_itself + told > 150e6
    assert told > 100e6


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no such settings")
@pytest.mark.parametrize(("given", "kept"), [({}, True), (DASKS, True), ({"MALLOC_TRIM_THRESHOLD_": "1000000"}, False)])
def test_what_is_freed_is_used_again(given: dict[str, str], kept: bool) -> None:
    """A worker's process, too, which Dask would have return it at once; not where an operator has set it otherwise."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC")}
    run = subprocess.run(
        [sys.executable, "-c", AGAIN], cwd=ROOT, capture_output=True, text=True, check=True, env={**own, **given}
    )
    before, said, after = run.stdout.split()
    assert said == str(kept)
    assert int(before) >= 8 * (64 << 20)
    assert int(after) >= 8 * (64 << 20) if not kept else int(after) < 2 * (64 << 20)
