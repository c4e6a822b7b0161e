"""A job from one settings file: the flow's name, and under it the fields of its job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from pydantic import ValidationError

from flows.cli.options import UsageError, unsuitable
from flows.jobs import AtlasJob, EvaluateJob, FullJob, NamesJob, ReferencesJob, TargetsJob
from flows.reports.plan import ReportJob
from flows.session.given import RENAMED
from vital.settings import Settings

JOBS: dict[str, type[Settings]] = {
    "full-run": FullJob,
    "references": ReferencesJob,
    "targets": TargetsJob,
    "atlas": AtlasJob,
    "evaluate": EvaluateJob,
    "names": NamesJob,
    "report": ReportJob,
}
"""The deployments of prefect.yaml, and what each is asked to do."""
FLOWS = {
    "full-run": "flows.recipes.full:full_run",
    "references": "flows.recipes.references:select_references",
    "targets": "flows.recipes.targets:measure_targets",
    "atlas": "flows.recipes.atlas:build_atlas",
    "evaluate": "flows.recipes.evaluation:evaluate_atlas",
    "names": "flows.recipes.names:name_atlas",
    "report": "flows.recipes.comparison:compare_methods",
}


@dataclass(frozen=True)
class JobFile:
    """What a settings file asks for."""

    flow: str
    job: Settings


def read_job(file: Path) -> JobFile:
    """The job of a settings file.

    The part under the flow's name is a deployment's parameter ``job`` as it stands.

    Raises:
        UsageError: the file holds none; one sentence that names the field.
    """
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no YAML file: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise UsageError(f"{file} is no job file: it is nested too deep") from None
    keys = list(content) if isinstance(content, dict) else []
    _refuse_old(file, "", keys)
    if len(keys) != 1 or keys[0] not in JOBS:
        held = ", ".join(map(str, keys)) if isinstance(content, dict) else type(content).__name__
        raise UsageError(
            f"{file} holds {held or 'nothing'} at its top: one key was expected, {', '.join(JOBS)}, with the job's "
            "fields under it; docs/job.yaml is an example"
        )
    [(flow, fields)] = content.items()
    _refuse_old(file, f"{flow}.", fields if isinstance(fields, dict) else ())
    try:
        return JobFile(flow, JOBS[flow].model_validate(fields))
    except ValidationError as error:
        path, text = unsuitable(error)
        raise UsageError(f"{file}: {'.'.join((flow, *path))}: {text}") from error


def _refuse_old(file: Path, inside: str, keys: Any) -> None:
    for old in RENAMED.keys() & set(keys):
        raise UsageError(f"{file}: {inside}{old} is called {RENAMED[old]} now: rename it in the file")


def flow_of(name: str) -> Callable[[Any], object]:
    """The flow of a job; imported when asked for, since Prefect takes seconds."""
    flow: Callable[[Any], object] = resolve_name(FLOWS[name])
    return flow
