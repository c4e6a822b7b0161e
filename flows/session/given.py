"""What a Python program gives the functions of `flows`, as jobs have it: paths, neurons, networks, settings.

Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from stores import Statistics
    from vital.settings import ModelSettings

Paths: TypeAlias = str | Path | Sequence[str | Path]
RENAMED = {"moments": "targets", "place": "running", "grain": "noise"}
"""Words of earlier versions, and those that replace them."""


def url_of(store: Any) -> str:
    """A store's own path or URL, or the one that was given."""
    return str(getattr(store, "url", store))


def many(values: Any) -> tuple[str, ...]:
    """One or several paths or names as several texts."""
    return (str(values),) if isinstance(values, (str, Path)) else tuple(str(value) for value in values)


def ranges(neurons: str | int | Iterable[int]) -> str:
    """Neurons given as numbers, in the words of the command; raises UnknownNeuron for none and for what is none."""
    from vital.errors import UnknownNeuron

    if isinstance(neurons, str):
        return neurons
    try:
        chosen = [int(neuron) for neuron in (neurons if isinstance(neurons, Iterable) else [neurons])]
    except (TypeError, ValueError):
        raise UnknownNeuron(f"neurons = {neurons!r} are no numbers: give numbers, or text such as '0:64,70'") from None
    if not chosen:
        raise UnknownNeuron("no neuron was chosen: give numbers, or leave neurons out for all of the layer")
    return ",".join(map(str, chosen))


def model_settings(model: Any) -> ModelSettings:
    """Settings that name a network; one of this program is handed over. Raises UnsuitableInput for all else."""
    from vital import Model
    from vital.errors import UnsuitableInput
    from vital.settings import ModelSettings

    if isinstance(model, Model):
        if model.settings is not None:  # other programs can load it, too
            return model.settings
        from flows.running.process import hand_over

        return hand_over(model)
    if isinstance(model, (str, ModelSettings)):
        return ModelSettings(name=model) if isinstance(model, str) else model
    raise UnsuitableInput(
        f"model = {type(model).__name__} was given, but a name, settings or a model was expected: "
        "make one of a module with vital.wrap(module, side=…, mean=…, std=…)"
    )


def hand_over_again(model: Any, statistics: Statistics) -> None:
    """The network of a store once more, where the store was made of a module; another one is refused by field."""
    model_settings(model)
    statistics.check(model.identity)


def job_of(kind: Any, **values: Any) -> Any:
    """A job of these parts; raises UnsuitableInput where one is unknown or out of bounds."""
    from vital.settings import checked

    return checked(kind, values)


def parts_of(function: Callable[..., Any], settings: Mapping[str, Any], **kinds: Any) -> dict[str, Any]:
    """Settings given flat to a function, as the parts of a job that they belong to; an unknown name is refused with the
    nearest of these and of the function's own."""
    from vital.errors import UnsuitableInput, nearest
    from vital.settings import ModelSettings, checked

    known = {name for kind in kinds.values() for name in kind.model_fields}
    if old := RENAMED.keys() & settings.keys():
        raise UnsuitableInput(f"{min(old)} is called {RENAMED[min(old)]} now: rename it")
    if unknown := [name for name in settings if name not in known]:
        if unknown[0] in ModelSettings.model_fields:
            raise UnsuitableInput(
                f"{unknown[0]} is a setting of the network: give model=vital.load_model(name, {unknown[0]}=…)"
            )
        own = {name for name, one in signature(function).parameters.items() if one.kind != one.VAR_KEYWORD}
        choice = nearest(unknown[0], sorted(known | own))
        raise UnsuitableInput(f"there is no setting {unknown[0]!r}; the nearest are {choice}")
    return {
        part: checked(kind, {name: value for name, value in settings.items() if name in kind.model_fields})
        for part, kind in kinds.items()
    }
