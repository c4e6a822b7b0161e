"""Every entrypoint of prefect.yaml loads as Prefect loads it, and its parameters are the frozen settings."""

from __future__ import annotations

from pathlib import Path

import yaml
from prefect.flows import Flow, load_flow_from_entrypoint

from flows.cli.job_files import JOBS

ROOT = Path(__file__).parents[3]


def test_every_entrypoint_loads() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {one["name"] for one in deployments} == set(JOBS)
    for one in deployments:
        file, _, function = one["entrypoint"].partition(":")
        flow: Flow[..., object] = load_flow_from_entrypoint(f"{ROOT / file}:{function}", use_placeholder_flow=False)
        assert list(flow.parameters.properties) == ["job"]
        for name, settings in flow.parameters.definitions.items():
            for field, said in settings.get("properties", {}).items():
                assert said.get("description") or "$ref" in str(said), f"{name}.{field} is not explained"
        running = flow.parameters.definitions["Running"]["properties"]
        assert running["lease"]["exclusiveMinimum"] == 0
        assert running["workers"]["anyOf"][0]["minimum"] == 1
        assert [schedule["active"] for schedule in one["schedules"]] == [False]
