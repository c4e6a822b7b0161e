"""A full run killed with -9 again and again, at moments drawn at random, ends with the bytes of one that was not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from flows.jobs import FullJob, Running
from tests.flows import tiny
from tests.flows.processes import goes_on, killed, vital_run
from tests.flows.running.test_cluster import compared, everything, job_at

pytestmark = pytest.mark.slow

KILLS = 3


def written(folder: Path) -> int:
    """Files of the stores so far: partials, metadata, blocks. Folders may go meanwhile, such as a lease's."""
    return sum(len(files) for _, _, files in os.walk(folder))


def killed_at(job: FullJob, folder: Path, after: int) -> bool:
    """Run the job in a process of its own and kill all of it once so many more files are there; whether it came to
    that before its end."""
    stores = folder / "made"
    with killed(vital_run(job, folder)) as run:
        while goes_on(run) and written(stores) < after:
            pass
        return run.poll() is None


def test_many_kills_at_random_moments_leave_the_same_bytes(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    tiny.shards(shards, count=6, images=12)
    (tmp_path / "made").mkdir()
    job = job_at(shards, tmp_path / "made", Running(threads=1))
    expected = everything(shards, tmp_path / "whole", Running(threads=1))
    total = written(tmp_path / "whole")
    moments = sorted(random.Random(3).sample(range(2, total - 2), KILLS))
    kills = sum(killed_at(job, tmp_path, after) for after in moments)
    assert kills >= KILLS - 1, "the runs ended before they could be killed"
    everything(shards, tmp_path / "made", Running(threads=1))
    assert compared(tmp_path / "made") == expected
