"""Each worker has a GPU of its own: through the real clusters, on a machine that only says that it has GPUs."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from distributed import Client, LocalCluster
from prefect import task

from flows.jobs import AtlasJob, Running, cores
from flows.running.cluster import run_tasks
from flows.running.workers import devices, workplaces
from flows.running.workers.devices import OneGpuEach, Room, device_name, gpus_of_workers, sharing_rooms, visible_gpus
from flows.running.workers.workplaces import started, workplace_of
from flows.steps.pictures import declaring
from tests.flows import gpus
from tests.flows.conftest import atlas_job
from tests.flows.processes import scheduler, worker
from vital.errors import UnsuitableInput
from vital.network.arithmetic import ON_GPU

VISIBLE = "CUDA_VISIBLE_DEVICES"
MIG = ("MIG-41b3359c-e721-56e5-8009-12e5797ed514", "MIG-65b79fff-6d3c-5490-a288-b31ec705f310")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Eight GPUs, of which the environment names none."""
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv(gpus.COUNT, "8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", gpus.visible)
    return monkeypatch


def seen_by_workers(running: Running) -> list[str]:
    """What CUDA would read in each worker."""
    name, place = VISIBLE, workplace_of(running)

    def seen() -> str:
        """Inside, so that it is sent as it is: a worker need not import all that this module imports."""
        return os.environ.get(name, "all")

    with started(place) as runner:
        return sorted(runner.client.run(seen).values())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, list("01234567")),
        ("2,5", ["2", "5"]),
        ("GPU-8932f937, GPU-d6ac2d46", ["GPU-8932f937", "GPU-d6ac2d46"]),
        (",".join(MIG), list(MIG)),
    ],
)
def test_gpus_are_those_that_the_environment_names(
    machine: pytest.MonkeyPatch, named: str | None, expected: list[str]
) -> None:
    if named:
        machine.setenv(VISIBLE, named)
    assert visible_gpus() == expected
    assert gpus_of_workers(Running(workers=2)) == expected[:2]


def test_what_cuda_ends_its_list_at_is_no_gpu(machine: pytest.MonkeyPatch) -> None:
    machine.setenv(VISIBLE, "3,-1,4")
    machine.setattr(torch.cuda, "device_count", lambda: 1)
    assert visible_gpus() == ["3"]


def test_without_gpus_there_are_none() -> None:
    assert not torch.cuda.is_available()
    assert visible_gpus() == []
    assert gpus_of_workers(Running(workers=4)) == []
    with pytest.raises(UnsuitableInput, match="torch sees no CUDA device"):
        gpus_of_workers(Running(workers=4, device="cuda"))


def test_on_the_processor_workers_are_as_many_as_asked_for(machine: pytest.MonkeyPatch) -> None:
    assert gpus_of_workers(Running(workers=20, device="cpu")) == []


def test_a_numbered_gpu_is_the_one_worker_s(machine: pytest.MonkeyPatch) -> None:
    machine.setenv(VISIBLE, "6,GPU-8932f937,1")
    assert gpus_of_workers(Running(workers=1, device="cuda:1")) == ["GPU-8932f937"]


@pytest.mark.parametrize(
    ("workers", "device", "words"),
    [
        (9, "auto", "there are 8 .0, 1, 2, 3, 4, 5, 6, 7.: give --workers 8 or --device cpu"),
        (9, "cuda", "there are 8 "),
        (2, "cuda:3", "'cuda:3' there are 1 .3.: give --workers 1"),
        (1, "cuda:8", "'cuda:8' was asked for: auto, cpu, cuda, cuda:0 to cuda:7 was expected"),
    ],
)
def test_more_workers_than_gpus_are_refused(machine: pytest.MonkeyPatch, workers: int, device: str, words: str) -> None:
    with pytest.raises(UnsuitableInput, match=words) as error:
        workplace_of(Running(workers=workers, device=device))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["cuda:1", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(machine: pytest.MonkeyPatch, device: str) -> None:
    machine.setenv(gpus.COUNT, "1")
    with pytest.raises(UnsuitableInput, match="auto, cpu, cuda, cuda:0 to cuda:0 was expected"):
        device_name(device)


def test_in_process_cuda_is_torch_s_own_choice(machine: pytest.MonkeyPatch) -> None:
    assert [device_name(asked) for asked in ("auto", "cuda", "cuda:5", "cpu")] == ["cuda", "cuda", "cuda:5", "cpu"]


def test_a_gpu_is_told_apart_from_another_jobs_of_the_same_number(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SLURM shows each job GPUs of its own, which all count from 0; and a site may share its temporary folder."""
    machine.setattr(devices, "tempfile", SimpleNamespace(gettempdir=lambda: str(tmp_path)))
    machine.setenv(gpus.COUNT, "2")

    def taken(uuids: str, host: str = "here") -> str:
        machine.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=uuids[number]))
        machine.setattr(devices, "socket", SimpleNamespace(gethostname=lambda: host))
        return devices._own_gpu.__wrapped__()

    kept = len(devices._mine)
    try:
        assert [taken("AB"), taken("CD"), taken("AB")] == ["cuda:0", "cuda:0", "cuda:1"]
        with pytest.raises(UnsuitableInput, match=r"all GPUs that this worker sees \(0, 1\) have a worker already"):
            taken("BA")
        assert taken("AB", "there") == "cuda:0"
    finally:
        for lock in devices._mine[kept:]:
            lock.release()
        del devices._mine[kept:]


@pytest.mark.slow
def test_workers_of_this_machine_see_one_gpu_each(machine: pytest.MonkeyPatch) -> None:
    machine.setenv(VISIBLE, "6,GPU-8932f937,1")
    assert seen_by_workers(Running(workers=3)) == ["1", "6", "GPU-8932f937"]


class Rotating(LocalCluster):
    """As dask-cuda has it: a worker sees all GPUs, its own first."""

    def __init__(self, CUDA_VISIBLE_DEVICES: list[str], n_workers: int, **options: Any) -> None:  # noqa: N803
        self._gpus = CUDA_VISIBLE_DEVICES
        super().__init__(n_workers=0, **options)  # type: ignore[no-untyped-call]
        self.scale(n_workers)  # type: ignore[no-untyped-call]
        self.sync(self._correct_state)  # type: ignore[no-untyped-call]

    def new_worker_spec(self) -> dict[int, dict[str, Any]]:
        [(number, spec)] = super().new_worker_spec().items()  # type: ignore[no-untyped-call]
        order = self._gpus[number:] + self._gpus[:number]
        return {number: {**spec, "options": {**spec["options"], "env": {VISIBLE: ",".join(order)}}}}


class Finding:
    """An importlib that finds what it is asked for; the ``importlib`` of other threads finds what there is."""

    util = SimpleNamespace(find_spec=ModuleType)


@pytest.mark.slow
def test_dask_cuda_starts_the_workers_where_it_is_installed(machine: pytest.MonkeyPatch) -> None:
    """A stand-in with its arguments: it cannot be installed where there is no GPU."""
    module = ModuleType("dask_cuda")
    module.__dict__["LocalCUDACluster"] = Rotating
    machine.setitem(__import__("sys").modules, "dask_cuda", module)
    machine.setattr(workplaces, "importlib", Finding)
    machine.setenv(VISIBLE, "6,2,1")
    assert seen_by_workers(Running(workers=2)) == ["2,6", "6,2"]


@pytest.mark.parametrize(
    ("names", "expected"), [("6,2,1", "dask_cuda.LocalCUDACluster"), ("6,GPU-8932f937", OneGpuEach)]
)
def test_dask_cuda_is_not_given_numbers_beside_uuids(machine: pytest.MonkeyPatch, names: str, expected: object) -> None:
    """It sorts the names of its workers, which it cannot where some are numbers and some are not."""
    machine.setattr(workplaces, "importlib", Finding)
    machine.setenv(VISIBLE, names)
    start: Any = workplace_of(Running(workers=2)).start
    assert start.args == (expected,)


def test_workers_here_share_the_cores(machine: pytest.MonkeyPatch) -> None:
    machine.setattr("flows.running.workers.workplaces.cores", lambda: 64)

    def told(**asked: Any) -> tuple[int | None, int | None]:
        running = workplace_of(Running(**asked)).running
        return running.threads, running.decoders

    assert told(workers=8) == told(workers=8, device="cuda") == (8, 8)
    assert told(workers=8, device="cpu") == (8, 1)
    assert told(workers=8, device="cpu", threads=6) == (6, 2)
    assert told(workers=100, device="cpu") == (1, 1)
    assert told() == (None, None)  # a task of this process asks for itself


NODE = Room("node", 64, 64, True, "1")


@pytest.mark.parametrize(
    ("rooms", "asked", "on_gpu", "expected"),
    [
        ([NODE] * 8, {}, True, (8, 8)),  # eight workers by the same line, each allowed all cores
        ([NODE] * 8, {}, False, (8, 1)),
        ([NODE._replace(cores=32)] * 8, {}, True, (8, 8)),  # each bound to its half of the machine
        ([NODE._replace(cores=8)] * 3, {}, True, (8, 8)),  # jobs of a batch system
        ([NODE, NODE._replace(host="other", of_host=4, cores=4)], {}, True, (4, 4)),
        ([NODE] * 100, {}, False, (1, 1)),
        ([NODE], {"threads": 4, "decoders": 7}, False, (4, 7)),
        ([NODE._replace(threads=None)] * 2, {}, False, (32, 1)),
        ([NODE._replace(threads="4")] * 8, {}, False, (None, None)),  # their operator has decided
        ([], {}, False, (None, None)),  # they come later
    ],
)
def test_workers_of_a_scheduler_share_the_cores_of_their_machines(
    rooms: list[Room], asked: dict[str, int], on_gpu: bool, expected: tuple[int | None, int | None]
) -> None:
    told = sharing_rooms(Running.model_validate({"scheduler": "tcp://host:8786", **asked}), rooms, on_gpu)
    assert (told.threads, told.decoders) == expected


@task
def told(job: AtlasJob) -> str:
    """The device that a task is told."""
    return job.running.device


def test_tasks_of_workers_here_are_told_what_auto_came_to(machine: pytest.MonkeyPatch) -> None:
    assert workplace_of(Running(workers=1)).running.device == "cuda"
    machine.setattr(torch.cuda, "is_available", lambda: False)
    assert workplace_of(Running(workers=1)).running.device == "cpu"


@pytest.mark.slow
def test_workers_started_by_the_same_line_take_a_gpu_each(tmp_path: Path) -> None:
    """Three on two GPUs: two have one each, the third is refused; when one ends another has its GPU."""
    line = ("--no-nanny", "--preload", "tests.flows.gpus")
    more = {gpus.COUNT: "2", "TMPDIR": str(tmp_path)}
    with scheduler(tmp_path) as (_, address), ExitStack() as stack:
        begun = [stack.enter_context(worker(tmp_path, address, *line, **more)) for _ in range(3)]
        with Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(3)

            def asked(address: str) -> str:
                """The device of a task on this worker, or why there is none."""
                future = client.submit(device_name, "auto", workers=[address], pure=False)
                return str(future.exception() or future.result())

            running = Running(scheduler=address)
            assert workplace_of(running).resources == {}  # none declares a GPU, and yet all tasks find one
            assert declaring._precision(atlas_job(tmp_path, tmp_path, running=running), None) == ON_GPU
            assert workplace_of(running).running.decoders == max(1, min(cores(), (os.cpu_count() or 1) // 3))
            addresses = list(client.scheduler_info()["workers"])
            found = {asked(address): address for address in addresses}
            assert [asked(address) for address in addresses] == list(found)
            refused, *names = sorted(found)
            assert names == ["cuda:0", "cuda:1"]
            assert refused.startswith("all GPUs that this worker sees (0, 1) have a worker already")
            first = found["cuda:0"]
            number = client.run(os.getpid, workers=[first])[first]
            [process] = [process for process in begun if process.pid == number]
            process.kill()
            process.wait()
            assert asked(found[refused]) == "cuda:0"


@pytest.mark.slow
def test_where_workers_declare_gpus_only_these_get_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with scheduler(tmp_path) as (_, address), ExitStack() as stack:
        running = Running(scheduler=address)
        job = atlas_job(tmp_path, tmp_path, running=running)
        assert workplace_of(running).resources == {}
        assert capsys.readouterr().err == (
            f"the Dask scheduler at {address} has no workers yet: tasks wait for the first one\n"
        )
        stack.enter_context(worker(tmp_path, address, "--no-nanny", "--name", "processor"))
        with Client(address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(1)
            assert (workplace_of(running).running.device, workplace_of(running).resources) == ("auto", {})
            threads = os.environ.get("OMP_NUM_THREADS", "1")
            assert workplace_of(running).running.threads == (cores() if threads == "1" else None)
            assert declaring._precision(job, None) == "float32"
            with worker(tmp_path, address, "--no-nanny", "--resources", "GPU=1"):
                client.wait_for_workers(2)
                assert workplace_of(running).resources == {"GPU": 1}
                assert declaring._precision(job, None) == ON_GPU
                at_cpu = running.model_copy(update={"device": "cpu"})
                assert workplace_of(at_cpu).resources == {}
                assert declaring._precision(job.model_copy(update={"running": at_cpu}), None) == "float32"
                assert run_tasks(running, told, [({"job": job}, 1)] * 4) == ["cuda"] * 4
                [declared] = [
                    worker["metrics"]["task_counts"]
                    for worker in client.scheduler_info()["workers"].values()
                    if not worker["resources"]
                ]
                assert not declared
