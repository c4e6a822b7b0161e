"""Settings as options of the command: one description, one set of bounds, for both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_Command = Callable[..., Any]
T = TypeVar("T", bound=BaseModel)


def options(
    settings: type[BaseModel], only: Collection[str] = (), names: Mapping[str, str] | None = None
) -> Callable[[_Command], _Command]:
    """Give a command an option for each field of ``settings`` (those in ``only``, if given). What the user does not
    say stays None."""
    renamed = names or {}

    def decorate(command: _Command) -> _Command:
        for name, field in reversed(settings.model_fields.items()):
            if not only or name in only:
                command = _option(renamed.get(name, name), field)(command)
        return command

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[_Command], _Command]:
    flag = f"--{name.replace('_', '-')}"
    default = None if field.default is None or field.default in ((), "") or field.is_required() else field.default
    text = f"{field.description}" + (
        f"  [default: {default}]" if default is not None and not isinstance(default, bool) else ""
    )
    kind = field.annotation
    if kind is bool:
        return click.option(flag, is_flag=True, default=None, help=text)
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if len(parts) == 2 and parts[1] is Ellipsis:
            return click.option(flag, multiple=True, help=text)
        return click.option(flag, type=tuple(_bare(part) for part in parts), default=None, help=text)
    bare = [part for part in get_args(kind) if part is not type(None)] if type(None) in get_args(kind) else [kind]
    inner = bare[0] if len(bare) == 1 else str
    if get_origin(inner) is tuple:
        return click.option(flag, type=tuple(get_args(inner)), default=None, help=text)
    if get_origin(inner) is Literal:
        return click.option(
            flag, type=click.Choice([str(choice) for choice in get_args(inner)]), default=None, help=text
        )
    return click.option(flag, type=inner if inner in (int, float) else str, default=None, help=text)


def _bare(kind: Any) -> Any:
    """A type without the bounds that are annotated to it."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def build(settings: type[T], values: Mapping[str, Any]) -> T:
    """Settings from what the user said; raises click's usage error, one sentence, when a value is out of bounds."""
    said = {
        name: value
        for name, value in values.items()
        if name in settings.model_fields and value is not None and value != ()
    }
    try:
        return settings(**said)
    except ValidationError as error:
        first = error.errors()[0]
        place = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "settings"
        if first["type"] == "value_error":  # our own checks say what came; nothing here repeats a password
            raise click.UsageError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
        raise click.UsageError(f"{place}: {first['msg']}, but {first['input']!r} was given") from None


def pick(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """What the user said of these options."""
    return {name: said[name] for name in names if said.get(name) is not None}


def require(said: Mapping[str, Any], *names: str) -> None:
    """Raise click's usage error for the first of these options that was not given."""
    for name in names:
        if said.get(name) is None:
            raise click.UsageError(f"Missing option '--{name}'.")
