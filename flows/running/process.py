"""What a process that runs tasks keeps: its network, loaded once, its judges, its threads, and its memory."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import RLock
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from flows.jobs import Running, cores
from flows.running.workers.devices import device_name
from stores import Statistics
from stores.arrays.provenance import fingerprint
from stores.files import local_path
from vital.errors import DoesNotFit, GpuFailed, UnknownModel, UnsuitableInput, of_gpu
from vital.judging.judges import Judge, load_judge, same_classes
from vital.memory import first_line, keep_memory, out_of_memory
from vital.network.arithmetic import repeatable, rounding
from vital.network.layers import Survey, survey
from vital.network.models import Model, at_side, load_model
from vital.network.neurons import Dictionary
from vital.network.probe import CLASSES, anchor
from vital.pictures.device import batch_of, needed_bytes
from vital.settings import ModelSettings

ALL_THREADS = min(torch.get_num_threads(), cores())
"""What torch takes when nothing is said: all cores, or what the environment or the container allows."""
LIVE = "live:"
"""Begins the name of a network that this program made itself and handed over."""

_live: dict[str, Model] = {}
_network_in_use = RLock()


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network on its device, and the survey of its layers."""

    model: Model
    survey: Survey

    @property
    def device(self) -> torch.device:
        """The device that the network's weights are on, to which images are brought."""
        return anchor(self.model.network).device


@contextmanager
def at_work(running: Running) -> Iterator[None]:
    """What a task does with its process's network is done in this block: with the same bytes each time where that is
    asked for, and by one thread at a time. A Dask worker has as many threads as its machine has cores unless it is told
    otherwise, and what one of them watches in the network another would run."""
    with _network_in_use, _gpu_in_one_sentence(), repeatable(running.deterministic):
        yield


@contextmanager
def _gpu_in_one_sentence() -> Iterator[None]:
    """What a GPU answers, as an error that says where: CUDA gives this process nothing more after most of them, and a
    scheduler's worker would fail at each later task."""
    try:
        yield
    except RuntimeError as error:
        where = f"of process {os.getpid()} on {socket.gethostname()}"
        if out_of_memory(error):  # of the network itself: what is halved has said so
            raise DoesNotFit(
                f"the memory {where} does not hold the network and what goes with it ({first_line(error)}): see who "
                "else uses that device (`nvidia-smi`), or take one with more memory"
            ) from error
        if not of_gpu(error):
            raise
        raise GpuFailed(
            f"the GPU {where} failed ({first_line(error)}): what is written stays; start that worker anew if it is one "
            "of a scheduler, and run the same command again; where it fails at once, compare torch's CUDA "
            "(`python -m torch.utils.collect_env`) with the driver's (`nvidia-smi`)"
        ) from error


def load(settings: ModelSettings, running: Running) -> LoadedModel:
    """This process's network of these settings: made at the first call, kept for the later ones.

    Raises:
        UnknownModel: there is no such network; or it is a module of a running program, and tasks run elsewhere.
    """
    if settings.name.startswith(LIVE):
        _check_live(settings.name, running)
    torch.set_num_threads(running.threads or ALL_THREADS)  # an earlier job may have asked for fewer
    keep_memory()
    device = device_name(running.device)
    if ":" in device:  # what takes no device of its own, such as a graph's stream, is to be on the same GPU
        torch.cuda.set_device(device)
    return _load(settings, device, _changed(settings))


def hand_over(model: Model) -> ModelSettings:
    """Make a network of this program known to the tasks of this process; the settings name it.

    The name tells apart what differs in weights, preprocessing or the names of classes.
    """
    name = f"{LIVE}{model.name}-{fingerprint({**model.identity, 'class_names': model.class_names})}"
    _live[name] = model
    return ModelSettings(name=name)


def _check_live(name: str, running: Running) -> None:
    if running.elsewhere:
        raise UnknownModel(
            f"{name.removeprefix(LIVE)!r} is a module of this program and tasks run in other processes, which cannot "
            "see it: name a function that makes it, package.module:factory, or run without workers and scheduler"
        )
    if name not in _live:
        raise UnknownModel(
            f"{name.removeprefix(LIVE)!r} was a module of a Python program: hand the same module over there, as model= "
            "of flows.targets, flows.atlas or flows.evaluate, or begin a store with package.module:factory"
        )


def load_stored(statistics: Statistics, running: Running) -> LoadedModel:
    """This process's network of a statistics store, which knows the store's directions and dictionaries.

    Raises:
        ForeignStore: its weights or preprocessing are no longer those of the statistics, in this process: a worker's
            machine may have others under the same name.
    """
    loaded = load(stored_model(statistics), running)
    statistics.check(loaded.model.identity)
    return with_directions(loaded, Kept(statistics))


class Kept(Mapping[str, "np.ndarray | Dictionary"]):
    """The directions and dictionaries of a store by name; each is read when it is asked for."""

    def __init__(self, statistics: Statistics) -> None:
        self._matrices, self._dictionaries = statistics.directions(), statistics.dictionaries()

    def __getitem__(self, name: str) -> np.ndarray | Dictionary:
        if name in self._matrices:
            return self._matrices[name]
        digest = self._dictionaries.digests[name]
        if digest not in _latest:
            kept = self._dictionaries[name]
            _latest.clear()
            _latest[digest] = Dictionary(kept.weight, kept.bias, kept.threshold, **kept.settings)  # type: ignore[arg-type]
        return _latest[digest]

    def __iter__(self) -> Iterator[str]:
        yield from self._matrices
        yield from self._dictionaries

    def __len__(self) -> int:
        return len(self._matrices) + len(self._dictionaries)


_latest: dict[str, Dictionary] = {}
"""The dictionary that was asked for last, by its digest: what a task has put on a device stays there for the next."""


def decoders_of(running: Running, device: torch.device) -> int:
    """Threads that decode images in a task of this process, whose network is on ``device``."""
    return running.sharing(cores(), device.type != "cpu", ALL_THREADS).decoders or 1


def fitting_batch(loaded: LoadedModel, what: Hashable, one: Callable[[], object]) -> int:
    """How many of some things fit together into the device of ``loaded``, by what ``one`` takes: measured once in this
    process for each network and ``what``, which has all that this depends on. What is free is asked each time."""
    needs = _needs.setdefault(loaded.model.network, {})
    if what not in needs:
        needed = needed_bytes(one, loaded.device)
        if not math.isfinite(needed):  # there may be more room for the next task
            return 1
        needs[what] = needed
    return batch_of(needs[what], loaded.device)


_needs: WeakKeyDictionary[nn.Module, dict[Hashable, float]] = WeakKeyDictionary()
"""Bytes of one thing, by network and by what it is."""


def stored_model(statistics: Statistics) -> ModelSettings:
    """The network that the statistics are of."""
    return ModelSettings.model_validate(statistics.model)


def with_directions(loaded: LoadedModel, directions: Mapping[str, np.ndarray | Dictionary]) -> LoadedModel:
    """The same network whose layers can be read along these directions, and by these dictionaries, too."""
    return replace(loaded, survey=replace(loaded.survey, directions=directions))


def _changed(settings: ModelSettings) -> tuple[int, ...]:
    """When the file of weights was written and how long it is: another one may lie there now."""
    file = local_path(settings.weights or "")
    if file is None or not settings.weights or not file.is_file():
        return ()
    return file.stat().st_mtime_ns, file.stat().st_size


@lru_cache(maxsize=1)
@_gpu_in_one_sentence()
def _load(settings: ModelSettings, device: str, _: tuple[int, ...]) -> LoadedModel:
    with rounding():  # what is found of its layers must not depend on what a caller lets torch round
        model = _live[settings.name] if settings.name.startswith(LIVE) else load_model(settings)
        layers = survey(model, needed=())  # no more of the network runs than the layers that are asked for
    model.network.to(device)
    return LoadedModel(model, layers)


def load_at_side(settings: ModelSettings, running: Running, side: int) -> LoadedModel:
    """This process's network for pictures of ``side`` pixels, which may differ from the input that the statistics were
    made at; refused in one sentence when the network cannot take them."""
    loaded = load(settings, running)
    return loaded if side == loaded.model.preprocessing.side else _resized(loaded, side)


@lru_cache(maxsize=1)
def _resized(loaded: LoadedModel, side: int) -> LoadedModel:
    own = loaded.model.preprocessing.side
    with rounding():
        try:
            model = at_side(loaded.model, side)
        except UnsuitableInput as error:
            raise UnsuitableInput(f"--side {side} does not do: {error}") from error
        way_out = f"give --side {own}, as the statistics have it, or a size that it takes"
        return LoadedModel(model, survey(model, way_out, needed=()))


@lru_cache(maxsize=8)
def _judge(name: str, classes: tuple[str, ...], device: str, download: bool) -> Judge:
    return load_judge(name, classes, torch.device(device), download)


def judge_at(name: str, words: Sequence[str], running: Running, download: bool) -> Judge:
    """This process's judge of this name, loaded once; CLIP tells ``words`` apart."""
    return _judge(name, tuple(words), device_name(running.device), download)


def judges_at(
    names: Sequence[str], loaded: LoadedModel, running: Running, download: bool, layers: Collection[str] = ()
) -> dict[str, Judge]:
    """This process's judges of these names, each loaded once; refused where they are to judge classes, which are among
    ``layers``, and tell others apart than the network."""
    known = loaded.model.class_names
    shown = loaded.model.preprocessing.shown_channels
    judges = {name: replace(judge_at(name, known, running, download), shown_channels=shown) for name in names}
    if CLASSES in layers:
        for judge in judges.values():
            same_classes(judge, known, loaded.survey.layer(CLASSES).channels)
    return judges
