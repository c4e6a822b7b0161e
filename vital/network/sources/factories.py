"""Networks that a function of the user's own makes."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name
from typing import Protocol, runtime_checkable

from torch import nn

from vital.errors import UnknownModel, VitalError
from vital.network.preprocessing import Preprocessing
from vital.network.sources.loaded import RANDOM, Loaded, assumed
from vital.network.sources.weight_files import fill
from vital.settings import ModelSettings


@runtime_checkable
class Wrapped(Protocol):
    """A network that `vital.wrap` was given: a `vital.network.models.Model`."""

    network: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def from_factory(settings: ModelSettings) -> Loaded:
    """What ``package.module:factory`` makes: a module, with ImageNet's usual preprocessing, or what `vital.wrap`
    gives."""
    name = settings.name
    try:
        factory = resolve_name(name)
        if not callable(factory):
            raise ValueError(f"{type(factory).__name__} is no function")
    except (ImportError, AttributeError, ValueError) as error:  # the last is of a name that is none
        module, _, function = name.partition(":")
        path = module.removesuffix(".py").removeprefix("./").replace("/", ".")
        named = "package.module:factory" if path == module else f"{path}:{function}"
        raise UnknownModel(
            f"{name!r} cannot be imported ({error}): give {named}, importable in this process"
        ) from error
    except SystemExit as error:  # a training script that reads its command line when it is imported
        raise UnknownModel(
            f"{name!r} cannot be imported, as its module ends the process ({_told(error)}): put what it runs under "
            "if __name__ == '__main__'"
        ) from error
    except Exception as error:  # whatever somebody's module raises when it is imported
        raise UnknownModel(f"{name!r} cannot be imported, as its module fails by itself ({_told(error)})") from error
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UnknownModel(
            f"{name!r} is called without arguments and does not allow it ({error}): name a function that makes the "
            "network by itself"
        ) from None
    except ValueError:
        pass  # what is written in C may have no signature
    try:
        network = factory()
    except VitalError:
        raise
    except (Exception, SystemExit) as error:  # whatever somebody's function raises
        raise UnknownModel(f"{name!r} fails by itself ({_told(error)}): call it in Python to see where") from error
    if isinstance(network, Wrapped):  # its own preprocessing, its conventions, its classes' names
        notes = fill(network.network, settings.weights) if settings.weights not in (None, RANDOM) else ()
        return Loaded(network.network, network.preprocessing, network.class_names, (*network.notes, *notes), True)
    if not isinstance(network, nn.Module):
        raise UnknownModel(
            f"{name!r} returned {type(network).__name__}, not a torch.nn.Module: name a function that makes one"
        )
    notes = fill(network, settings.weights) if settings.weights and settings.weights != RANDOM else ()
    return Loaded(network, notes=(*notes, *assumed(settings)))


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
