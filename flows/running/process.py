"""What a process that runs tasks keeps: its model, loaded once, and its threads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import zarr

from flows.jobs import Running
from stores.arrays.provenance import claim, claimed
from stores.dataset.references import (
    read_directions,
)
from vital.errors import UnsuitableInput
from vital.judging.judges import Judge, load_judge, same_classes
from vital.network.layers import Survey, survey
from vital.network.models import Model, at_side, load_model
from vital.network.probe import CLASSES
from vital.settings import ModelSettings

ALL_THREADS = torch.get_num_threads()
"""What torch takes when nothing is said: all cores, or what the environment allows."""


@dataclass(frozen=True, eq=False)
class Worker:
    """A model on its device, and what its layers are."""

    model: Model
    found: Survey


def worker(settings: ModelSettings, running: Running) -> Worker:
    """This process's worker for a model: made at the first call, kept for the later ones."""
    torch.set_num_threads(running.threads or ALL_THREADS)  # an earlier job may have asked for fewer
    return _load(settings, device_name(running.device))


def knowing(here: Worker, directions: Mapping[str, np.ndarray]) -> Worker:
    """The same worker whose layers can be read along these directions, too."""
    return replace(here, found=replace(here.found, directions=directions))


@lru_cache(maxsize=1)
def _load(settings: ModelSettings, device: str) -> Worker:
    model = load_model(settings)
    found = survey(model)
    model.network.to(device)
    return Worker(model, found)


def worker_at(settings: ModelSettings, running: Running, side: int) -> Worker:
    """This process's worker for pictures of ``side`` pixels, which may differ from the input that the statistics were
    made at; refused in one sentence when the network cannot take them."""
    here = worker(settings, running)
    return here if side == here.model.preprocessing.side else _resized(settings, device_name(running.device), side)


@lru_cache(maxsize=1)
def _resized(settings: ModelSettings, device: str, side: int) -> Worker:
    here = _load(settings, device)
    kept = here.model.preprocessing.side
    try:
        model = at_side(here.model, side)
    except UnsuitableInput as error:
        raise UnsuitableInput(f"--side {side} does not do: {error}") from error
    return Worker(model, survey(model, f"give --side {kept}, as the statistics have it, or a size that it takes"))


def device_name(asked: str) -> str:
    """The device that ``auto`` means here, or the one asked for; refused when it is not there."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise UnsuitableInput(f"device {asked!r} was asked for but torch sees no CUDA device: use --device cpu or auto")
    return asked


@lru_cache(maxsize=8)
def _judge(name: str, classes: tuple[str, ...], device: str, download: bool) -> Judge:
    return load_judge(name, classes, torch.device(device), download)


def judges_at(
    names: Sequence[str], here: Worker, running: Running, download: bool, layers: Collection[str] = ()
) -> dict[str, Judge]:
    """This process's judges of these names, each loaded once; refused where they are to judge classes, which are among
    ``layers``, and tell others apart than the model of ``here``."""
    known, device = here.model.class_names, device_name(running.device)
    judges = {name: _judge(name, known, device, download) for name in names}
    if CLASSES in layers:
        for judge in judges.values():
            same_classes(judge, known, here.found.layer(CLASSES).channels)
    return judges


def stored_model(group: zarr.Group) -> ModelSettings:
    """The model that the statistics are of."""
    return ModelSettings.model_validate(group.attrs["model"])


def stored_worker(group: zarr.Group, running: Running) -> Worker:
    """This process's worker for the store's model, knowing the store's directions."""
    return knowing(worker(stored_model(group), running), read_directions(group))


def check_model(group: zarr.Group, model: Model) -> None:
    """Refuse a model whose weights or preprocessing are no longer those of the statistics."""
    kept = claimed(group, "base") or {}
    claim(group, "base", {**kept, **model.identity})
