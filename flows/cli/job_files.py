"""A job from one settings file: the flow's name, and under it the fields of its job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from flows.jobs import AtlasJob, EvaluateJob, FullJob, ReferencesJob, TargetsJob
from flows.reports.plan import ReportJob
from vital.settings import Settings

JOBS: dict[str, type[Settings]] = {
    "full-run": FullJob,
    "references": ReferencesJob,
    "targets": TargetsJob,
    "atlas": AtlasJob,
    "evaluate": EvaluateJob,
    "report": ReportJob,
}
"""The deployments of prefect.yaml, and what each is asked to do."""


@dataclass(frozen=True)
class JobFile:
    """What a settings file asks for."""

    flow: str
    job: Settings


def read_job(file: Path) -> JobFile:
    """The job of a settings file; raises click's usage error, one sentence naming the field, where it is none.

    The part under the flow's name is a deployment's parameter ``job`` as it stands.
    """
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = " ".join(str(error).split())
        raise click.UsageError(f"{file} is no YAML file: {first}") from error
    if not isinstance(content, dict) or len(content) != 1 or next(iter(content)) not in JOBS:
        said = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise click.UsageError(
            f"{file} holds {said or 'nothing'} at its top: one key was expected, {', '.join(JOBS)}, with the job's "
            "fields under it; docs/job.yaml is an example"
        )
    [(flow, fields)] = content.items()
    try:
        return JobFile(flow, JOBS[flow].model_validate(fields))
    except ValidationError as error:
        first_error = error.errors()[0]
        place = ".".join(map(str, (flow, *first_error["loc"])))
        given = "" if first_error["type"] == "missing" else f", but {first_error['input']!r} was given"
        raise click.UsageError(f"{file}: {place}: {first_error['msg']}{given}") from error


def flow_of(name: str) -> Callable[[Any], object]:
    """The flow of a job; imported when asked for, since Prefect takes seconds."""
    if name == "full-run":
        from flows.recipes.full import full_run

        return full_run
    if name == "references":
        from flows.recipes.references import select_references

        return select_references
    if name == "targets":
        from flows.recipes.targets import measure_targets

        return measure_targets
    if name == "evaluate":
        from flows.recipes.evaluation import evaluate_atlas

        return evaluate_atlas
    if name == "report":
        from flows.recipes.comparison import compare_methods

        return compare_methods
    from flows.recipes.atlas import build_atlas

    return build_atlas
