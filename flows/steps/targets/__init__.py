"""Targets of a layer's neurons: declared before any task, measured block by block, read for pictures."""

from flows.steps.targets.blocks import (
    OnTheFly,
    crops_of,
    images_learnt,
    measured_blocks,
    measured_targets,
    moved_of_tasks,
)
from flows.steps.targets.declaring import ROW_STEPS, declare_targets, live_neurons, planned_nodes, variant_of
from flows.steps.targets.matching import Usual, pushed, read_targets, unmeasured, usual_of
from flows.steps.targets.origin import declare_origin, origin_of, origin_rows

__all__ = [
    "ROW_STEPS", "OnTheFly", "Usual", "crops_of", "declare_origin", "declare_targets", "images_learnt", "live_neurons",
    "measured_blocks", "measured_targets", "moved_of_tasks", "origin_of", "origin_rows", "planned_nodes", "pushed",
    "read_targets", "unmeasured", "usual_of", "variant_of",
]  # fmt: skip
