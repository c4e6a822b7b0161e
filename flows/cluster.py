"""Where tasks run: in this process, one after the other. A model's hooks and torch's threads belong to one task."""

from __future__ import annotations

from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner


def in_process() -> TaskRunner[Any]:
    """The task runner of every flow by default: one task at a time, which itself uses all of torch's threads."""
    return ThreadPoolTaskRunner(max_workers=1)
