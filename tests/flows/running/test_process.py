"""What a process does with its network: one task at a time."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Barrier, BrokenBarrierError
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flows.jobs import EvaluateJob, NamesJob, Running
from flows.recipes import atlas, evaluation, names, references, targets
from flows.running import blocks, process
from flows.steps.reading.merging import Leaf
from stores.arrays.blocks import BlocksAt
from stores.arrays.leases import Holder
from tests.flows.conftest import MODEL, atlas_job, references_job, targets_job
from vital.errors import DoesNotFit, FailedForward, GpuFailed
from vital.network.probe import forward

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


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA driver error: unknown error",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    ],
)
def test_what_a_gpu_answers_names_the_process_and_no_network(said: str) -> None:
    """A worker of a scheduler whose GPU has failed is to be started anew."""

    class Failing(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise RuntimeError(said)

    with pytest.raises(GpuFailed) as raised, process.at_work(Running()):
        forward(Failing(), torch.zeros(1, 3, 8, 8))
    text, first = str(raised.value), said.splitlines()[0]
    assert text.startswith(f"the GPU of process {os.getpid()} on {socket.gethostname()} failed ({first}): ")
    assert "\n" not in text
    assert "run the same command again" in text
    assert str(pickle.loads(pickle.dumps(raised.value))) == text, "it comes from a worker"
    with pytest.raises(FailedForward, match="the network's own forward failed"), process.at_work(Running()):
        forward(nn.Linear(2, 2), torch.zeros(1, 3, 8, 8))


def test_a_network_that_does_not_fit_on_a_gpu_is_told_from_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else may use the same GPU."""

    def full(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1")

    monkeypatch.setattr(process, "load_model", full)
    process._load.cache_clear()
    with pytest.raises(
        DoesNotFit, match=r"does not hold the network .*\(CUDA out of memory. Tried .* GiB\): see who else"
    ):
        process.load(MODEL, Running())
