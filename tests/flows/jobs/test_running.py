"""Where tasks run, and how much of a machine each may take."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.jobs import Running, cores

ROOT = Path(__file__).parents[3]
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of 64 cores, of which a process gets some: by its affinity, or by the quota of its cgroup."""

    def make(affinity: int = 64, quota: str = "max 100000") -> None:
        files = {"/proc/self/cgroup": "0::/job\n", "/sys/fs/cgroup/job/cpu.max": f"{quota}\n"}
        monkeypatch.setattr("dask.system.open", lambda name: io.StringIO(files[name]), raising=False)
        monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(affinity)), raising=False)
        monkeypatch.setattr("os.process_cpu_count", lambda: affinity, raising=False)
        monkeypatch.setattr("psutil.Process.cpu_affinity", lambda process: list(range(affinity)), raising=False)

    return make


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [(64, "max 100000", 64), (8, "max 100000", 8), (64, "200000 100000", 2), (64, "150000 100000", 2), (1, "3 1", 1)],
)
def test_cores_are_those_that_a_batch_system_or_a_container_leaves(
    machine: Machine, affinity: int, quota: str, expected: int
) -> None:
    machine(affinity, quota)
    assert cores() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_on_one_core_has_one() -> None:
    program = "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); from flows.jobs import cores"
    run = subprocess.run(
        [sys.executable, "-c", f"{program}; print(cores())"], cwd=ROOT, capture_output=True, check=True
    )
    assert run.stdout.split() == [b"1"]


@pytest.mark.parametrize(
    ("asked", "cores", "on_gpu", "threads", "expected"),
    [
        ({}, 8, False, None, (8, 1)),  # torch computes on all cores
        ({}, 8, True, None, (8, 8)),  # and leaves them where it computes on a GPU
        ({}, 1, False, None, (1, 1)),
        ({"threads": 5}, 8, False, None, (5, 3)),
        ({"threads": 20}, 8, False, None, (20, 1)),
        ({"decoders": 3}, 8, False, None, (8, 3)),
        ({"decoders": 3}, 8, True, None, (8, 3)),
        ({}, 8, False, 6, (6, 2)),  # as the environment says
        ({"threads": 7}, 8, False, 6, (7, 1)),
    ],
)
def test_decoders_are_as_many_as_torch_leaves_cores(
    asked: dict[str, int], cores: int, on_gpu: bool, threads: int | None, expected: tuple[int, int]
) -> None:
    told = Running.model_validate(asked).sharing(cores, on_gpu, threads)
    assert (told.threads, told.decoders) == expected


def test_workers_and_a_scheduler_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="workers are started here, a scheduler has its own"):
        Running(workers=2, scheduler="tcp://127.0.0.1:8786")
