"""Tasks in other processes: the same bytes as in this one, also when a worker or the whole run is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from distributed import Client, LocalCluster
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_RESULTS_PERSIST_BY_DEFAULT, temporary_settings

from flows.jobs import FullJob, LayerJob, Running
from flows.recipes.full import full_run
from flows.running.cluster import run_tasks
from flows.running.workers import workplaces
from flows.running.workers.starting import script_left_alone
from flows.running.workers.workplaces import _one_server, kept_workers, workplace_of
from stores import AtlasLayer
from stores.arrays.opening import open_store
from stores.errors import StoreError
from tests.flows.conftest import LAYER, MODEL, PICTURE, VARIANT, Made
from tests.flows.forks import forked_workers
from tests.flows.processes import Gate, environment, goes_on, killed, program, vital_run
from tests.flows.recipes.test_pipeline import digests
from vital.settings import StatisticsSettings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def job_at(shards: Path, folder: Path, running: Running) -> FullJob:
    """References, targets and pictures of the layer with two blocks."""
    return FullJob(
        shards=(str(shards),),
        store=str(folder / "stats.zarr"),
        out=str(folder / "atlas.zarr"),
        model=MODEL,
        statistics=StatisticsSettings(references=3, levels=16),
        layers=(LayerJob(layer=LAYER, variant=VARIANT, picture=PICTURE),),
        batch=4,
        running=running,
    )


def compared(folder: Path) -> dict[str, str]:
    """Digests of both stores; the atlas's root says where the statistics lie. What a killed process had begun to write
    lies under a name that no reader looks at."""
    found = {f"stats/{name}": digest for name, digest in digests(folder / "stats.zarr").items()}
    found |= {f"atlas/{name}": digest for name, digest in digests(folder / "atlas.zarr").items()}
    del found["atlas/zarr.json"]
    return {name: digest for name, digest in found.items() if not re.search(r"\.[0-9a-f]{32}\.partial$", name)}


def everything(shards: Path, folder: Path, running: Running) -> dict[str, str]:
    """What a full run at ``running`` leaves."""
    full_run(job_at(shards, folder, running))
    return compared(folder)


@pytest.fixture(scope="module", autouse=True)
def _workers(prefect_server: str) -> Iterator[None]:
    """Those of this process are forks; those of a script, and of runs that others test, are started as Dask does."""
    with forked_workers(str(ROOT)):
        yield


@pytest.fixture(scope="module")
def expected(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return everything(made.shards, tmp_path_factory.mktemp("here"), Running(threads=1))


def test_worker_processes_give_the_same_bytes(made: Made, tmp_path: Path, expected: dict[str, str]) -> None:
    assert everything(made.shards, tmp_path, Running(workers=2, threads=1)) == expected


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler with two workers of two threads each: ``dask worker`` starts as many as the machine has cores."""
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0") as started:  # type: ignore[no-untyped-call]
        yield started


def test_more_workers_of_a_scheduler_give_the_same_bytes(
    made: Made, tmp_path: Path, expected: dict[str, str], cluster: LocalCluster
) -> None:
    assert everything(made.shards, tmp_path, Running(scheduler=cluster.scheduler_address, threads=1)) == expected


@pytest.fixture
def alone() -> Iterator[LocalCluster]:
    """A scheduler with one worker, which has loaded nothing yet, and which its nanny replaces when it dies."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as started:  # type: ignore[no-untyped-call]
        yield started


def test_one_worker_of_a_scheduler_that_is_killed_at_work_still_gives_the_same_bytes(
    made: Made, tmp_path: Path, expected: dict[str, str], alone: LocalCluster
) -> None:
    killed: list[int] = []
    ended = threading.Event()

    def kill_it_at_work() -> None:
        """The worker is killed with -9 as soon as it is seen processing a task."""
        with Client(alone.scheduler_address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            while not killed and not ended.wait(0.01):  # asked without end, the scheduler would do nothing else
                for address, tasks in client.processing().items():
                    if tasks and not killed:
                        killed.append(client.run(os.getpid, workers=[address])[address])
                        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_it_at_work)
    killer.start()
    found = everything(made.shards, tmp_path, Running(scheduler=alone.scheduler_address, threads=1))
    ended.set()
    killer.join(60)
    assert killed
    assert found == expected


def test_a_killed_run_goes_on_where_it_stopped(made: Made, tmp_path: Path, expected: dict[str, str]) -> None:
    """The flow's own process is killed with -9 at its second block; another run makes only what is missing."""
    job = job_at(made.shards, tmp_path, Running(threads=1))
    gate = Gate(tmp_path, tmp_path / "atlas.zarr" / LAYER / "done" / "c" / "0")
    with killed(vital_run(job, tmp_path, **gate.environment)) as run:
        while not blocks_made(tmp_path):
            assert goes_on(run), "the run ended before it could be killed"
    assert blocks_made(tmp_path) == 1
    first = {path: path.stat().st_mtime_ns for path in chunks(tmp_path)}
    assert everything(made.shards, tmp_path, Running(threads=1)) == expected
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(chunks(tmp_path)) > len(first)


def chunks(folder: Path) -> list[Path]:
    return [path for path in (folder / "atlas.zarr" / LAYER / "pixels" / "c").rglob("*") if path.is_file()]


def blocks_made(folder: Path) -> int:
    try:
        return int(AtlasLayer(open_store(str(folder / "atlas.zarr"), "atlas", "r"), LAYER).done().sum())
    except StoreError:  # not declared yet
        return 0


@task
def server() -> str:
    """Where this process reports to."""
    with get_client(sync_client=True) as client:
        return str(client.api_url)


@pytest.fixture
def own_server(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server is set, and the session's is the one that Prefect has started for this process."""
    from prefect.server.api.server import SubprocessASGIServer  # takes seconds

    started = SubprocessASGIServer(urlsplit(prefect_server).port)
    monkeypatch.setattr(started, "running", True)
    monkeypatch.setattr(started, "server_process", "another's")
    monkeypatch.setattr(SubprocessASGIServer, "_instances", {None: started})
    with temporary_settings({PREFECT_API_URL: None}):
        yield


@pytest.mark.usefixtures("own_server")
def test_workers_of_this_machine_report_to_the_server_of_this_process(
    cluster: LocalCluster, prefect_server: str
) -> None:
    """Left alone, each starts one of its own where none is set, as on a machine without a Prefect server."""
    assert server.fn().rstrip("/") == prefect_server
    for running in (Running(workers=1), Running(scheduler=cluster.scheduler_address)):
        assert run_tasks(running, server, [({}, 1)]) == [server.fn()]


def test_a_task_that_is_asked_for_again_runs_again_also_where_prefect_keeps_results() -> None:
    ran: list[int] = []

    @task
    def counted(number: int) -> None:
        ran.append(number)

    @flow
    def twice() -> None:
        for _ in range(2):
            run_tasks(Running(), counted, [({"number": 7}, 1.0)])

    with temporary_settings({PREFECT_RESULTS_PERSIST_BY_DEFAULT: True}):
        twice()
    assert ran == [7, 7]


@task
def where() -> int:
    """The process that does the work."""
    return os.getpid()


def test_workers_stay_for_the_next_tasks_until_their_run_ends() -> None:
    running = Running(workers=1)
    calls: list[tuple[dict[str, object], float]] = [({}, 1.0)]
    with kept_workers():
        [first], [second] = run_tasks(running, where, calls), run_tasks(running, where, calls)
        with kept_workers():  # a part of the run
            [inner] = run_tasks(running, where, calls)
        [after] = run_tasks(running, where, calls)
        assert first == second == inner == after != os.getpid()
        os.kill(first, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_workers_of_another_machine_are_not_sent_to_this_one(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They could not reach it."""
    monkeypatch.setattr(workplaces, "socket", SimpleNamespace(gethostname=lambda: "elsewhere"))
    place = workplace_of(Running(scheduler=cluster.scheduler_address))
    with temporary_settings({PREFECT_API_URL: None}), _one_server(place):
        assert not PREFECT_API_URL.value()


UNGUARDED = """
import sys
import flows
print(flows.references(sys.argv[1], sys.argv[2], model="tests.flows.tiny:network", layers=["2"], workers=1, threads=1))
"""


@pytest.mark.parametrize("where", ["file", "standard input"])
def test_a_script_without_a_main_guard_runs_once(made: Made, tmp_path: Path, where: str) -> None:
    """Not once more in each worker, as with Python's own processes."""
    arguments = [str(made.shards), str(tmp_path / "s.zarr")]
    if where == "file":
        script = tmp_path / "script.py"
        script.write_text(UNGUARDED, "utf-8")
        with killed(program(str(script), *arguments)) as run:
            output, errors = run.communicate()
        code = run.returncode
    else:
        words = [sys.executable, "-", *arguments]
        ran = subprocess.run(
            words, input=UNGUARDED, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        code, output, errors = ran.returncode, ran.stdout, ran.stderr
    assert code == 0, errors
    assert output.count("statistics") == 1


def test_a_script_with_a_guard_is_known_to_its_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    main, script = sys.modules["__main__"], tmp_path / "script.py"
    monkeypatch.setattr(main, "__file__", str(script), raising=False)
    for text, known in (("if __name__ == '__main__':\n    run()\n", str(script)), ("run()\n", None)):
        script.write_text(text, "utf-8")
        with script_left_alone():
            assert main.__file__ == known
        assert main.__file__ == str(script)
