"""What a process does with its network: one task at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Barrier, BrokenBarrierError
from types import SimpleNamespace
from typing import Any

import pytest

from flows.jobs import EvaluateJob, NamesJob
from flows.recipes import atlas, evaluation, names, references, targets
from flows.running import blocks
from flows.steps.reading.merging import Leaf
from stores.arrays.blocks import BlocksAt
from stores.arrays.leases import Holder
from tests.flows.conftest import atlas_job, references_job, targets_job

AT, HOLDER = BlocksAt("store", "statistics", "path"), Holder.new()
NOWHERE: Any = "nowhere"
TASKS: list[tuple[Any, str, Callable[[], object]]] = [
    (targets, "measured_blocks", lambda: targets.measure.fn(targets_job(NOWHERE), AT, [{"blocks": (0,)}], HOLDER)),
    (atlas, "made_blocks", lambda: atlas.picture.fn(atlas_job(NOWHERE, NOWHERE), AT, [{"blocks": (0,)}], HOLDER)),
    (evaluation, "evaluate", lambda: evaluation.evaluate_layer.fn(EvaluateJob(atlas=NOWHERE), "2")),
    (names, "find_names", lambda: names.name_layer.fn(NamesJob(atlas=NOWHERE), "2")),
    (
        references,
        "_loaded",
        lambda: references.scan.fn(references_job(NOWHERE, NOWHERE), NOWHERE, Leaf("partials/a", ())),
    ),
]


@pytest.mark.parametrize(("recipe", "work", "task"), TASKS, ids=[work for _, work, _ in TASKS])
def test_tasks_that_a_worker_is_given_together_do_their_work_one_after_the_other(
    recipe: Any, work: str, task: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    together, met = Barrier(2, timeout=0.1), list[bool]()

    def meet(*_: object, **__: object) -> Any:
        """Whether another task is at work, too."""
        try:
            together.wait()
        except BrokenBarrierError:
            met.append(False)
        else:
            met.append(True)
        if recipe is references:
            raise InterruptedError  # the rest of the pass is not looked at
        return lambda: None

    @contextmanager
    def mine(*_: object) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(recipe, work, meet)
    monkeypatch.setattr(blocks, "leased", mine)
    monkeypatch.setattr(recipe, "written_partials", lambda store: set(), raising=False)
    monkeypatch.setattr(recipe, "open_statistics", lambda store: SimpleNamespace(labels={}), raising=False)

    def run(_: int) -> None:
        with suppress(InterruptedError):
            task()

    with ThreadPoolExecutor(2) as worker:
        list(worker.map(run, range(2)))
    assert met == [False, False]
