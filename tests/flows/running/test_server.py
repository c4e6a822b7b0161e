"""Prefect's server: it is given its time, what the user has set stays, and what is wrong with it is one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import indent

import httpx
import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

import flows
from flows.cli.job_files import JOBS, flow_of
from flows.running.server import SECONDS, STARTUP, NoServer, served
from flows.running.server.ending import MARK, servers_of
from tests.flows import tiny
from tests.flows.command import vital
from tests.flows.conftest import LAYER, MODEL
from tests.flows.processes import goes_on

ROOT = Path(__file__).parents[3]
PROGRAM = """
import importlib, json, os, sys
# Once for all: `vital` and `stores` never import Prefect, nor what does.
import jaxtyping, numcodecs, PIL.Image, prefect_dask, pydantic, safetensors, simplejpeg, torch, upath, webdataset, zarr
import stores, vital.judging.metrics, vital.pictures.optimise
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS as limit

for module, home, said in json.load(sys.stdin):  # each in a process that has imported nothing of `flows`
    ends = os.pipe()
    if os.fork() == 0:
        os.environ.update(said, PREFECT_HOME=home)
        os.chdir(home)
        refresh_global_settings_context()
        before = limit.value()
        importlib.import_module(module)
        os.write(ends[1], json.dumps([before, limit.value(), os.environ.get(limit.name)]).encode())
        os._exit(0)
    os.wait()
    print(os.read(ends[0], 100).decode())
"""


def seconds(*asked: tuple[str, Path, dict[str, str]]) -> list[list[object]]:
    """The limit before a module is imported that is asked for, that after it, and what child processes inherit. Each
    module with the folder where Prefect and the process begin, and what the environment says."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    words = json.dumps([(module, str(home), said) for module, home, said in asked])
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=words, env={**ours, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.slow
def test_the_server_is_given_its_time_by_every_flow_s_module_unless_the_user_has_set_it(tmp_path: Path) -> None:
    """In the environment, in a profile, or in a file of the folder."""
    modules = sorted({flow_of(name).__module__ for name in JOBS})
    assert len(modules) == len(JOBS)
    homes = {name: tmp_path / name for name in ("none", "environment", "profile", "file")}
    for home in homes.values():
        home.mkdir()
    (homes["profile"] / "profiles.toml").write_text(f'active = "mine"\n[profiles.mine]\n{STARTUP} = "33"\n')
    (homes["file"] / "prefect.toml").write_text("[server.ephemeral]\nstartup_timeout_seconds = 33\n")
    found = seconds(
        *((module, homes["none"], {}) for module in modules),
        ("flows.running.cluster", homes["environment"], {STARTUP: "33"}),
        *(("flows.running.cluster", homes[where], {}) for where in ("profile", "file")),
    )
    assert found[: len(modules)] == [[20, SECONDS, str(SECONDS)]] * len(modules)
    assert found[len(modules) :] == [[33, 33, "33"], [33, 33, None], [33, 33, None]]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing is said about Prefect."""
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(("name", "folder"), [("HOME", "/proc/nohome/.prefect"), ("PREFECT_HOME", "/proc/nohome")])
def test_a_folder_that_prefect_cannot_write_is_named_before_the_start(
    alone: pytest.MonkeyPatch, tmp_path: Path, name: str, folder: str
) -> None:
    alone.setenv(name, "/proc/nohome")
    said = vital("targets", "--store", tmp_path / "s.zarr", "--layer", "classes")
    assert (said.exit_code, said.output.count("\n")) == (1, 1)
    assert f"Error: Prefect keeps its runs in {folder}, which cannot be written" in said.output
    assert "set PREFECT_HOME to a folder that can be written" in said.output
    with pytest.raises(NoServer, match="set PREFECT_HOME"):
        flows.targets(tmp_path / "s.zarr", "classes")
    assert vital("info", "--help").exit_code == 0  # what runs no flow needs no folder


def test_without_any_home_the_same(alone: pytest.MonkeyPatch) -> None:
    class Homeless(type(Path())):  # type: ignore[misc]
        def expanduser(self) -> Path:
            raise RuntimeError("Could not determine home directory.")

    alone.setattr("flows.running.server.start.Path", Homeless)
    with pytest.raises(NoServer, match="this user has no home: set PREFECT_HOME"), served():
        pass


def test_the_folder_is_not_asked_for_where_the_server_is_elsewhere(alone: pytest.MonkeyPatch) -> None:
    alone.setenv("PREFECT_HOME", "/proc/nohome")
    alone.setenv("PREFECT_API_URL", "http://server:4200/api")
    with served():
        pass


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    tiny.shards(tmp_path, 1)
    with temporary_settings({PREFECT_API_URL: "http://user:secret@127.0.0.1:9/api"}), pytest.raises(NoServer) as error:
        flows.references(tmp_path, tmp_path / "s.zarr", model=MODEL, layers=[LAYER])
    assert "no Prefect server answers at http://" in str(error.value)
    assert "127.0.0.1:9/api: start it with `prefect server start`, correct PREFECT_API_URL" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.slow
def test_a_server_of_its_own_that_does_not_come_is_told_with_the_way_out(
    alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from prefect.server.api.server import SubprocessASGIServer  # takes seconds, in every process that reads the tests

    def silent(server: SubprocessASGIServer) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    alone.setenv("PREFECT_HOME", str(tmp_path))
    alone.setattr(SubprocessASGIServer, "_run_uvicorn_command", silent)
    server = SubprocessASGIServer(port=9)
    with pytest.raises(NoServer, match=f"allow it more with {STARTUP}, or start `prefect server start` once"), served():
        server.start(timeout=1)
    process = server.server_process
    server.stop()
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()


def test_a_server_of_its_own_that_is_slow_to_answer_is_told_as_such(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is there, but the machine is busy: Prefect gives up after one answer that takes longer than it waits."""
    slow = httpx.ReadTimeout("timed out", request=httpx.Request("GET", "http://127.0.0.1:8912/api/health"))
    alone.setenv("PREFECT_HOME", str(tmp_path))
    none = temporary_settings({PREFECT_API_URL: None})
    with (
        none,
        pytest.raises(NoServer, match="too slow to answer: run the command again when the machine has less"),
        served(),
    ):
        raise slow


def program(text: str, home: Path) -> subprocess.Popen[str]:
    """A user's program that may start a server of Prefect's own."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", MARK))}
    begin = "import os\nfrom flows.session.preparing import prepared\n@prepared\ndef recipe():\n"
    text = f"{begin}{indent(text, '    ')}\nrecipe()"
    return subprocess.Popen(
        [sys.executable, "-c", text],
        env={**ours, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


LOOKED_FOR = 0.1
"""Seconds until all processes of the machine are looked at again, which takes the processor tens of milliseconds."""

SAY = f"print(os.environ[{MARK!r}], flush=True)\n"
SERVED = (
    SAY
    + """\
from prefect.client.orchestration import get_client
get_client(sync_client=True)
"""
)


def of_mark(mark: str) -> list[psutil.Process]:
    """Processes that a program has started, and those that these have, which have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ended = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)  # init has yet to take note of
            if not ended and process.environ().get(MARK) == mark:
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_killed_leaves_no_server(tmp_path: Path, number: signal.Signals) -> None:
    """From the moment on when there is one, which takes its time to answer on a busy machine."""
    with program(SERVED, tmp_path) as run:
        assert run.stdout is not None
        mark = run.stdout.readline().strip()
        while not servers_of(mark):  # the test's own time limit ends this
            assert goes_on(run, LOOKED_FOR)
        run.send_signal(number)
        assert run.wait() == -number
        while left := of_mark(mark):
            psutil.wait_procs(left, LOOKED_FOR)


def test_a_program_that_ends_leaves_nothing_either_and_its_fork_neither_ends_it(tmp_path: Path) -> None:
    """What waits for its end knows that this was as usual."""
    forks = "if os.fork() == 0:\n    raise SystemExit\nos.wait()\nprint('forked', flush=True)\ninput()"
    with program(f"{SAY}{forks}", tmp_path) as run:
        assert run.stdout is not None
        mark = run.stdout.readline().strip()
        assert run.stdout.readline() == "forked\n"
        assert len(of_mark(mark)) == 1
        assert run.communicate("\n") == ("", "")
    assert run.returncode == 0
    assert not of_mark(mark)


def test_a_server_of_a_program_that_was_started_stays(tmp_path: Path) -> None:
    """It has inherited the mark, as a server's own child, and waits for its own parent."""
    server = [sys.executable, "-c", "input()", "prefect.server.api.server:create_app"]
    begin = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()', 'prefect.' + 'server'])"
    env = {**os.environ, MARK: "of-this-test"}
    with (
        subprocess.Popen(server, env=env, stdin=subprocess.PIPE) as own,
        subprocess.Popen([sys.executable, "-c", begin], env=env, stdin=subprocess.PIPE) as other,
    ):
        while len(of_mark("of-this-test")) < 3:
            assert goes_on(own)
            assert goes_on(other)
        assert [process.pid for process in servers_of("of-this-test")] == [own.pid]
        for one in (own, other):
            one.communicate(b"\n")


def test_where_prefect_may_start_none_the_way_out_is_to_name_one() -> None:
    none = temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False})
    with none, pytest.raises(NoServer, match="name one in PREFECT_API_URL"), served(), get_client(sync_client=True):
        pass


def test_other_errors_stay_what_they_are() -> None:
    for error in (RuntimeError("Failed"), ValueError("no"), OSError("gone")):
        with pytest.raises(type(error), match=str(error)), served():
            raise error
