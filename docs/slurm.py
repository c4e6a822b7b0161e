"""One job on GPUs that SLURM gives: python slurm.py job.yaml 8

Every worker is a SLURM job with one GPU, and tasks begin as soon as the first one runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dask_jobqueue import SLURMCluster
from dask_jobqueue.core import JobQueueCluster

from flows.cli.job_files import flow_of, read_job

SLURM = {
    "queue": "gpu",
    "walltime": "08:00:00",
    "job_cpu": 8,
    "job_extra_directives": ["--gres=gpu:1"],
}
"""What your site asks for."""
WORKER = {
    "cores": 1,  # one task at a time: it holds the worker's network, and torch has threads of its own
    "processes": 1,
    "memory": "32GB",
    "worker_extra_args": ["--resources", "GPU=1"],
    "job_script_prologue": [
        "export PREFECT_API_URL=http://server:4200/api",
    ],
}


def run(file: Path, workers: int, kind: type[JobQueueCluster] = SLURMCluster, **options: Any) -> object:
    """What the job's flow returns; the workers end with it."""
    asked = read_job(file)
    with kind(**{**WORKER, **options}) as cluster:
        cluster.scale(workers)
        running = asked.job.running.model_copy(update={"scheduler": cluster.scheduler_address, "workers": None})
        return flow_of(asked.flow)(asked.job.model_copy(update={"running": running}))


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), **SLURM)
