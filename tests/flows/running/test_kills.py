"""A full run killed with -9 again and again, at moments drawn at random, ends with the bytes of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.jobs import FullJob, Running
from tests.flows import tiny
from tests.flows.running.test_cluster import ROOT, compared, everything, job_at

pytestmark = pytest.mark.slow

KILLS = 4


def written(folder: Path) -> int:
    """Files of the stores so far: partials, metadata, blocks."""
    return sum(1 for path in folder.rglob("*") if path.is_file())


def killed(job: FullJob, folder: Path, after: int) -> bool:
    """Run the job in a process of its own and kill all of it once so many more files are there; whether it came to
    that before its end."""
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump({"full-run": job.model_dump(mode="json")}))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**ours, "PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(ROOT)}
    stores = folder / "made"
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "run", str(file)], env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as run:  # fmt: skip
        while run.poll() is None and written(stores) < after:
            pass
        ended = run.poll() is not None
        if not ended:
            os.killpg(run.pid, signal.SIGKILL)
    return not ended


def test_many_kills_at_random_moments_leave_the_same_bytes(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    tiny.shards(shards, count=6, images=12)
    (tmp_path / "made").mkdir()
    job = job_at(shards, tmp_path / "made", Running(threads=1), steps=20)
    expected = everything(shards, tmp_path / "whole", Running(threads=1), steps=20)
    total = written(tmp_path / "whole")
    moments = sorted(random.Random(3).sample(range(2, total - 2), KILLS))
    kills = sum(killed(job, tmp_path, after) for after in moments)
    assert kills >= KILLS - 1, "the runs ended before they could be killed"
    everything(shards, tmp_path / "made", Running(threads=1), steps=20)
    assert compared(tmp_path / "made") == expected
