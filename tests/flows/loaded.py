"""What the command and Dask's programs import, in the process whose forks `tests.flows.forks` begins."""

from __future__ import annotations

import gc
from importlib import import_module

from flows.session.preparing import calm_prefect

gc.disable()  # nothing of what is imported is garbage
calm_prefect()  # as the command does before Prefect is imported
for name in (
    "flows.cli.making", "flows.cli.job_files", "flows.recipes.atlas", "flows.recipes.full",
    "distributed.cli.dask_scheduler", "distributed.cli.dask_worker",
):  # fmt: skip
    import_module(name)
gc.freeze()
gc.enable()
