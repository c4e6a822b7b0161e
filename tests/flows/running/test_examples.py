"""What docs/cluster.md gives to copy: the SLURM script with local jobs, Kubernetes' YAML, and every command."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
import yaml
from click import UsageError
from cyclopts import CycloptsError
from dask_jobqueue.local import LocalCluster
from dask_jobqueue.slurm import SLURMCluster
from distributed.cli.dask_scheduler import main as dask_scheduler
from distributed.cli.dask_worker import main as dask_worker
from prefect.cli._app import _app as prefect

from flows.cli.job_files import read_job
from flows.cli.parsing import command_line, joined
from flows.jobs import FullJob
from stores import open_statistics
from tests.flows.conftest import LAYER, Made, references_job
from tests.flows.processes import ROOT, environment

DOCS = ROOT / "docs"
ANY_PORT = {"scheduler_options": {"dashboard_address": ":0"}}


@pytest.fixture
def slurm() -> ModuleType:
    """docs/slurm.py."""
    spec = importlib.util.spec_from_file_location("slurm", DOCS / "slurm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accepted_by_dask(words: list[str]) -> None:
    """Whether ``dask worker`` takes these arguments; it is not started."""
    context = dask_worker.make_context("dask worker", [*words])
    assert context.params["nthreads"] == 1
    assert context.params["resources"] == "GPU=1"


def test_a_slurm_job_asks_for_one_gpu_and_starts_one_worker_of_one_thread(slurm: ModuleType) -> None:
    with SLURMCluster(**{**slurm.WORKER, **slurm.SLURM, **ANY_PORT}) as cluster:
        script = cluster.job_script()
    assert "#SBATCH --gres=gpu:1\n" in script
    assert "#SBATCH --cpus-per-task=8\n" in script
    assert "export PREFECT_API_URL=" in script
    [line] = [line for line in script.splitlines() if "dask_worker" in line]
    accepted_by_dask(line.split("distributed.cli.dask_worker ")[1].split())


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)  # its pipes stay open
def test_a_job_runs_on_workers_that_are_jobs(
    slurm: ModuleType, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment().items():  # as a batch job has it
        monkeypatch.setenv(name, value)
    store = tmp_path / "s.zarr"
    job = references_job(made.shards, store, layers=(LAYER,))
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"references": job.model_dump(mode="json")}), "utf-8")
    options: dict[str, Any] = {"memory": "2GB", "job_script_prologue": [], "worker_extra_args": [], **ANY_PORT}
    monkeypatch.chdir(tmp_path)
    assert slurm.run(file, 1, LocalCluster, **options) == str(store)
    assert len(open_statistics(str(store)).references(LAYER).image)


def kubernetes() -> dict[tuple[str, str], dict[str, Any]]:
    """What docs/kubernetes.yaml makes, by kind and name."""
    made = yaml.safe_load((DOCS / "kubernetes.yaml").read_text("utf-8"))
    assert made["kind"] == "List"
    return {(one["kind"], one["metadata"]["name"]): one for one in made["items"]}


def container(one: dict[str, Any]) -> dict[str, Any]:
    [only] = one["spec"]["template"]["spec"]["containers"]
    return dict(only)


def test_kubernetes_starts_workers_of_one_gpu_that_reach_the_scheduler() -> None:
    made = kubernetes()
    worker = container(made["Deployment", "dask-worker"])
    limits, requests = worker["resources"]["limits"], worker["resources"]["requests"]
    assert limits["nvidia.com/gpu"] == 1
    assert limits["cpu"] == requests["cpu"]  # else a worker would take as many threads as the node has cores
    assert worker["args"][:3] == ["dask", "worker", "tcp://dask:8786"]
    accepted_by_dask(worker["args"][2:])
    for name in ("dask-worker", "dask-scheduler"):
        spec = made["Deployment", name]["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == {"app": name}
    service = made["Service", "dask"]["spec"]
    assert service["selector"] == {"app": "dask-scheduler"}
    assert [port["port"] for port in service["ports"]] == [8786]
    assert container(made["Deployment", "dask-scheduler"])["args"][-1] == "8786"


def test_kubernetes_runs_the_job_with_secrets_from_the_environment() -> None:
    made = kubernetes()
    run = container(made["Job", "vital"])
    assert run["args"] == ["vital", "run", "/job/job.yaml"]
    assert run["volumeMounts"][0]["mountPath"] == "/job"
    for one in (run, container(made["Deployment", "dask-worker"])):
        assert one["envFrom"] == [{"secretRef": {"name": "bucket"}}]
        assert "PREFECT_API_URL" in {entry["name"] for entry in one["env"]}


def test_the_job_of_the_page_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(full-run:.*?)```", (DOCS / "cluster.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "job.yaml").write_text(text, "utf-8")
    job = read_job(tmp_path / "job.yaml").job
    assert isinstance(job, FullJob)
    assert job.running.scheduler == "tcp://scheduler:8786"


def blocks_of_the_page() -> list[tuple[str, str]]:
    """Each block of code of the page, with its language."""
    page = (DOCS / "cluster.md").read_text("utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(found) == page.count("```") / 2
    return found


def commands_of_the_page() -> list[list[str]]:
    """Every command of these blocks and of the text, as words; of a batch job's the one that it runs, too."""
    page = (DOCS / "cluster.md").read_text("utf-8")
    text = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    lines = [line for language, block in blocks_of_the_page() if language == "bash" for line in block.splitlines()]
    found = list[list[str]]()
    for line in [*lines, *text]:
        try:
            words = shlex.split(line.strip().removesuffix("&"), comments=True)
        except ValueError:  # a part of a line that goes on
            continue
        while words and "=" in words[0]:  # what is set for this command alone
            words = words[1:]
        found.append(words)
        if words[:1] == ["sbatch"]:
            found += [shlex.split(job) for before, job in pairwise(words) if before == "--wrap"]
    return [words for words in found if words]


def test_every_block_of_the_page_is_in_its_language() -> None:
    for language, block in blocks_of_the_page():
        if language == "yaml":
            assert yaml.safe_load(block)
            continue
        assert language == "bash"
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=True)
        assert checked.stderr == ""  # of text that does not end it says so, and is content
        for program in re.findall(r"(?:<<'END'\n(.*?)^END$)|(?:-c '\n(.*?)')", block, re.DOTALL | re.MULTILINE):
            ast.parse("".join(program))


def test_every_command_of_the_page_is_one_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS)  # where its job.yaml is
    known = {"vital": 0, "dask": 0, "prefect": 0}
    for words in commands_of_the_page():
        program, *rest = words
        if program == "vital" and len(rest) > 1:
            command_line(rest[0]).parse_args(joined(rest))
        elif words[:2] == ["dask", "worker"]:
            accepted_by_dask(rest[1:])
        elif words[:2] == ["dask", "scheduler"]:
            dask_scheduler.make_context("dask scheduler", rest[1:])
        elif program == "prefect":
            some = [str(UUID(int=1)) if word in ("ID", "SCHEDULE-ID") else word for word in rest]
            prefect.parse_args([one for one in some if one != "--no-prompt"], print_error=False, exit_on_error=False)
        else:
            continue
        known[program] += 1
    assert known["vital"] >= 4
    assert known["dask"] >= 2
    assert known["prefect"] >= 8


def test_a_command_that_is_not_one_is_seen() -> None:
    with pytest.raises(CycloptsError):
        command_line("atlas").parse_args(joined(["atlas", "s.zarr", "--layer", "l", "--out", "o", "--gpus", "8"]))
    with pytest.raises(UsageError):
        accepted_by_dask(["tcp://scheduler:8786", "--cuda", "--nthreads", "1", "--resources", "GPU=1"])
