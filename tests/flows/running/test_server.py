"""Every way into a flow gives Prefect's own server its time, and keeps what the user has set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.job_files import JOBS, flow_of
from flows.running.server import SECONDS, STARTUP

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROGRAM = """
import importlib, json, os, sys
import torch, prefect_dask
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS as limit

seen = {"before": limit.value()}
for module in sys.argv[1:]:  # each in a process that has not imported another
    ends = os.pipe()
    if os.fork() == 0:
        importlib.import_module(module)
        os.write(ends[1], json.dumps([limit.value(), os.environ.get(limit.name)]).encode())
        os._exit(0)
    os.wait()
    seen[module] = json.loads(os.read(ends[0], 100))
print(json.dumps(seen))
"""


def seconds(home: Path, *modules: str, **said: str) -> dict[str, object]:
    """The limit before anything of ours is imported; after each module the limit, and what child processes inherit."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**ours, "PREFECT_HOME": str(home), "PYTHONPATH": str(ROOT), **said}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *modules], env=environment, cwd=home, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_every_flow_s_module_gives_the_server_its_time(tmp_path: Path) -> None:
    modules = sorted({flow_of(name).__module__ for name in JOBS})
    assert len(modules) == len(JOBS)
    found = seconds(tmp_path, *modules)
    assert found.pop("before") == 20
    assert found == {module: [SECONDS, str(SECONDS)] for module in modules}


@pytest.mark.parametrize("where", ["environment", "profile", "file"])
def test_what_the_user_has_set_stays(tmp_path: Path, where: str) -> None:
    said = {STARTUP: "33"} if where == "environment" else {}
    if where == "profile":
        (tmp_path / "profiles.toml").write_text(f'active = "mine"\n[profiles.mine]\n{STARTUP} = "33"\n')
    if where == "file":
        (tmp_path / "prefect.toml").write_text("[server.ephemeral]\nstartup_timeout_seconds = 33\n")
    inherited = "33" if where == "environment" else None
    assert seconds(tmp_path, "flows.running.cluster", **said) == {
        "before": 33,
        "flows.running.cluster": [33, inherited],
    }
