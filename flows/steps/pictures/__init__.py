"""Pictures of a layer's neurons: declared before any task, shared out, optimised and written block by block."""

from flows.steps.pictures.declaring import ALGORITHMS, asked_targets, check_side, declare_pictures, targets_of
from flows.steps.pictures.making import made_blocks
from flows.steps.pictures.tasks import planned_tasks, task_pictures

__all__ = [
    "ALGORITHMS", "asked_targets", "check_side", "declare_pictures", "made_blocks", "planned_tasks", "targets_of",
    "task_pictures",
]  # fmt: skip
