"""A job as the user gave it, made one that holds wherever its tasks run."""

from __future__ import annotations

from typing import TypeVar

from flows.jobs.fields import CLASS_WORDS, LABEL_WORDS
from flows.jobs.judging import EvaluateJob, NamesJob
from flows.jobs.making import AtlasJob, ReferencesJob, TargetsJob
from stores.files import local_path
from vital.settings import ModelSettings

J = TypeVar("J", ReferencesJob, TargetsJob, AtlasJob, EvaluateJob, NamesJob)


def settled(job: J) -> J:
    """The same job for tasks: with paths that hold in any directory."""
    changed: dict[str, object] = {}
    for name in ("store", "out", "atlas", "manifest", "labels", "vocabulary", "broader"):
        if (location := getattr(job, name, None)) is not None and location not in (*LABEL_WORDS, CLASS_WORDS):
            changed[name] = _absolute(location)
    if isinstance(job, ReferencesJob):
        changed["model"] = _anywhere(job.model)
    for name in ("shards", "siblings"):
        changed |= {name: tuple(_absolute(one) for one in getattr(job, name))} if hasattr(job, name) else {}
    return job.model_copy(update=changed)


def _anywhere(model: ModelSettings) -> ModelSettings:
    """The same network from any directory: it is read again for targets and pictures, by workers and in later runs."""
    changed: dict[str, str] = {}
    if (weights := local_path(model.weights or "")) and weights.is_file():
        changed["weights"] = str(weights.absolute())
    collection, _, location = model.name.partition("/")
    if collection == "hf" and (folder := local_path(location)) and folder.is_dir():
        changed["name"] = f"{collection}/{folder.absolute()}"
    return model.model_copy(update=changed)


def _absolute(location: str) -> str:
    # the output of a command is no path, and is refused as such where it is read
    path = None if "://" in location or location.startswith("pipe:") else local_path(location)
    return location if path is None else str(path.absolute())
