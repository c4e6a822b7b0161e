"""The deployments for real: a server, a work pool, `prefect deploy --all`, a worker, a run that a schedule starts."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml

from stores import AtlasLayer
from stores.arrays.opening import open_store
from tests.flows import tiny
from tests.flows.conftest import LAYER, MODEL, PICTURE, VARIANT
from tests.flows.forks import Fork
from tests.flows.processes import killed
from tests.server import Server, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


class Scheduling:
    """A Prefect server of its own with a scheduler, and its command line."""

    def __init__(self, home: Path) -> None:
        self._server = Server(lasting=True, PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="1")
        self.url = self._server.url
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = {
            **ours, "PREFECT_HOME": str(home), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT)
        }  # fmt: skip

    def prefect(self, *arguments: str) -> None:
        """In the project's folder, as a fork: Prefect is imported once for all."""
        with chdir(ROOT):
            run = Fork(("prefect", "--no-prompt", *arguments), self.environment)
        with killed(run):  # in case that the test's own time limit ends this
            output, errors = run.communicate()
        assert run.returncode == 0, f"prefect {' '.join(arguments)}\n{output[-3000:]}\n{errors[-3000:]}"

    def found(self, kind: str, **filters: Any) -> list[dict[str, Any]]:
        """What the server holds of a kind; another command line would take seconds to start."""
        asked = urllib.request.Request(
            f"{self.url}/{kind}/filter", json.dumps(filters).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:
            listed: list[dict[str, Any]] = json.load(answer)
        return listed

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Scheduling]:
    started = Scheduling(tmp_path / "prefect")
    try:
        wait_for(started.url)
        yield started
    finally:
        started.stop()


def deployments_with(folder: Path, job: dict[str, Any]) -> Path:
    """The project's own prefect.yaml, in which full-run has a job and a schedule of which some run is always due."""
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    content["pull"] = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    [full] = [one for one in content["deployments"] if one["name"] == "full-run"]
    full["parameters"] = {"job": job}
    full["schedules"] = [{"interval": 10, "active": True}]
    file = folder / "prefect.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_scheduled_run_leaves_an_atlas(server: Scheduling, tmp_path: Path) -> None:
    tiny.shards(tmp_path / "shards")
    job = {
        "shards": [str(tmp_path / "shards")],
        "store": str(tmp_path / "stats.zarr"), "out": str(tmp_path / "atlas.zarr"),
        "model": MODEL.model_dump(mode="json", exclude_unset=True), "statistics": {"references": 3, "levels": 16},
        "layers": [
            {
                "layer": LAYER,
                "variant": VARIANT.model_dump(mode="json", exclude_unset=True),
                "picture": PICTURE.model_dump(mode="json", exclude_unset=True),
            }
        ],
    }  # fmt: skip
    server.prefect("work-pool", "create", "vital", "--type", "process")
    file = deployments_with(tmp_path, job)
    server.prefect("deploy", "--all", "--prefect-file", str(file))
    assert {"full-run", "references", "targets", "atlas"} <= {one["name"] for one in server.found("deployments")}
    # Takes the first that is due within the next minutes, waits for its time, and ends when it has run.
    asked = ("--run-once", "--limit", "1", "--prefetch-seconds", "300")
    server.prefect("worker", "start", "--pool", "vital", *asked)
    found = AtlasLayer(open_store(str(tmp_path / "atlas.zarr"), "atlas", "r"), LAYER).made()
    assert found.sum() > tiny.CHANNELS // 2
    assert server.found("flow_runs", flow_runs={"state": {"type": {"any_": ["COMPLETED"]}}})
