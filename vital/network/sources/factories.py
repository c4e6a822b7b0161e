"""Networks that a function of the user's own makes."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

from torch import nn

from vital.errors import UnknownModel
from vital.network.sources.loaded import RANDOM, Loaded
from vital.network.sources.weight_files import fill
from vital.settings import ModelSettings


def from_factory(settings: ModelSettings) -> Loaded:
    """What ``package.module:factory`` makes, with ImageNet's usual preprocessing."""
    name = settings.name
    try:
        factory = resolve_name(name)
        if not callable(factory):
            raise ValueError(f"{type(factory).__name__} is no function")
    except (ImportError, AttributeError, ValueError) as error:  # the last is of a name that is none
        raise UnknownModel(
            f"{name!r} cannot be imported ({error}): give package.module:factory, importable in this process"
        ) from error
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UnknownModel(
            f"{name!r} is called without arguments and does not allow it ({error}): name a function that makes the "
            "network by itself"
        ) from None
    except ValueError:
        pass  # what is written in C may have no signature
    network = factory()
    if not isinstance(network, nn.Module):
        raise UnknownModel(
            f"{name!r} returned {type(network).__name__}, not a torch.nn.Module: name a function that makes one"
        )
    notes = fill(network, settings.weights) if settings.weights and settings.weights != RANDOM else ()
    return Loaded(network, notes=notes)
