"""Settings as options of the command: one description, one set of bounds, for both; and the sentence on a wrong one.

A command takes a job as its parameter: cyclopts gives it an option for every field, those of nested settings included,
and pydantic checks the values. What the user leaves out is left to the settings.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from cyclopts import CycloptsError, Group, Parameter, exceptions
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flows.cli import KEPT
from flows.jobs import AtlasJob, EvaluateJob, NamesJob, ReferencesJob, Running, TargetsJob
from flows.reports.plan import ReportJob
from flows.session.given import RENAMED
from stores.errors import StoreError, of_disk_or_service
from stores.files import first_line, safe_url
from vital.errors import VitalError
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

HEADINGS: dict[type[BaseModel], str] = {
    **dict.fromkeys((ReferencesJob, TargetsJob, AtlasJob, EvaluateJob, NamesJob, ReportJob), "Options"),
    StatisticsSettings: "What is kept", PictureSettings: "Pictures", VariantSettings: "Targets",
    ModelSettings: "Network", Running: "Where tasks run",
}  # fmt: skip
"""Settings whose fields are options, and what stands above these in a command's help, in this order."""
FULL = (errno.ENOSPC, errno.EDQUOT)
FLAGS = {name: f"--{name[:-1]}" for name in ("layers", "nodes", "judges", "siblings", "methods")} | {
    "name": "--model",
    "dictionaries": "--dictionary",
}
"""The option of each field, where it is not the field's name: one that may be repeated bears the singular."""
ONCE = ("layer", "neurons")
"""Fields that are one value, and that others of the same name, as those of `vital references`, have several of: of two
the last would be taken, and nobody would hear of the first."""
UNNAMED = (
    (ReferencesJob, "shards"),
    (TargetsJob, "store"),
    (AtlasJob, "store"),
    (EvaluateJob, "atlas"),
    (NamesJob, "atlas"),
)
"""What a command reads: a field that needs no option before it, and may have it."""
ARGUMENTS = Group.create_default_arguments()
BOUNDS = {Ge: "from {0.ge:g}", Gt: "above {0.gt:g}", Le: "to {0.le:g}", Lt: "to below {0.lt:g}"}


class UsageError(Exception):
    """The command line, or a job file, asks for what cannot be; the text is one sentence for the user."""


def without(*fields: str) -> Parameter:
    """Annotation of a command's settings some of whose fields are none of its options."""
    return Parameter(parse=rf"^(?!({'|'.join(fields)})$)")


def _declare(settings: type[BaseModel], heading: Group) -> None:
    """Tell cyclopts what it does not see in pydantic's fields: an option's name and heading, its bounds in words."""
    Parameter(name="*", group=heading)(settings)  # the star: --steps instead of --picture.steps
    for name, field in settings.model_fields.items():
        field.kw_only = (settings, name) not in UNNAMED
        if field.annotation not in HEADINGS:
            flag = FLAGS.setdefault(name, f"--{name.replace('_', '-')}")
            metavar = None if re.search(r"\b(int|float)\b", str(field.annotation)) else "TEXT"
            above = heading if field.kw_only else ARGUMENTS
            field.metadata.append(Parameter(name=flag, help=_words(field), metavar=metavar, group=above))
            if name in ONCE:
                field.metadata.append(Parameter(allow_repeating=False))


def _words(field: FieldInfo) -> str:
    """A field's description; in brackets its choices or bounds, and its default."""
    text, _, own = (field.description or "").removesuffix("]").partition("  [")
    kind, default = field.annotation, field.default
    repeated = get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis
    inner = [info for part in get_args(kind) for info in getattr(part, "__metadata__", ())]
    limits = [*field.metadata, *(limit for info in inner for limit in getattr(info, "metadata", ()))]
    bounds = dict.fromkeys(BOUNDS[type(limit)].format(limit) for limit in limits if type(limit) in BOUNDS)
    marks = [", ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else " ".join(bounds)]
    marks += ["repeatable" * repeated, "required" * field.is_required(), own]
    if not (field.is_required() or default in (None, "", ()) or isinstance(default, bool)):
        values = default if isinstance(default, tuple) else (default,)
        marks.append(f"default: {(', ' if repeated else ' ').join(map(str, values))}")
    return f"{text}  [{marked}]" if (marked := "; ".join(filter(None, marks))) else text


def refusal(error: BaseException) -> tuple[str, int]:
    """One sentence on an error, and the exit code: 2 where the command line or a job file is wrong, 1 for all else."""
    if isinstance(error, CycloptsError | UsageError):
        return _usage(error) if isinstance(error, CycloptsError) else str(error), 2
    if isinstance(error, OSError) and error.errno in FULL:
        where = f", as {error.filename} shows" if error.filename else ""
        return f"the disk is full, or your share of it{where}: make room; {KEPT}", 1
    if isinstance(error, VitalError | StoreError | OSError):
        return _of_system(error) if isinstance(error, OSError) and error.filename else str(error), 1
    if of_disk_or_service(error):
        said = f"{type(error).__name__}: {first_line(error)}"
        return f"a service failed ({said}): check the address, the network and the credentials; {KEPT}", 1
    first = (str(error).splitlines() or [""])[0]  # a bug, or an input that nobody foresaw
    return f"unexpected {type(error).__name__}: {first}; `vital --verbose …` shows where it came from", 1


def _of_system(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename} is a file, or lies below one, where a folder is needed: choose another path"
    return f"{error.filename} cannot be read or written ({error.strerror}): check the path, and who may write there"


def _usage(error: CycloptsError) -> str:
    """What is wrong with a command line, by the option's name, and without repeating a password."""
    more = f"`{' '.join(('vital', *(error.command_chain or ()), '--help'))}`"
    argument, unused = error.argument, (error.unused_tokens or [""])[0]
    name = argument.name if argument else ""
    name = name if not argument or argument.index is None else name.removeprefix("--").upper()
    match error:
        case exceptions.UnknownCommandError() if unused in RENAMED:
            return f"`vital {unused}` is called `vital {RENAMED[unused]}` now: say that instead"
        case exceptions.UnknownCommandError():
            return _unknown(unused, error.app or (), more)
        case exceptions.UnknownOptionError(token=token):
            return _unknown(token.keyword or token.value, _flags(error), more)
        case exceptions.UnusedCliTokensError():
            return f"{_shown(unused)} is one argument too many: {more} says what is taken"
        case exceptions.RepeatArgumentError(token=token):
            return f"{token.keyword} was given more than once, and takes one value here: run the command once for each"
        case exceptions.MissingArgumentError() if error.keyword or error.tokens_so_far:
            count = argument.token_count()[0] if argument else 1
            return f"{error.keyword or name} needs {count} value{'s' * (count > 1)}: {more} says what it takes"
        case exceptions.MissingArgumentError() if unused.startswith("-"):  # misspelt: that is why another is missing
            return _unknown(unused, _flags(error), more)
        case exceptions.MissingArgumentError():
            return f"{name} is missing: {more} says what it takes"
        case exceptions.ValidationError(exception_message=text) if argument and text.startswith('"'):
            return f"{name}: {text.removesuffix('.')}: check the path"  # of a path, which stands in the text
        case _ if isinstance(error.__cause__, ValidationError):
            path, text = unsuitable(error.__cause__)
            return f"{next((FLAGS[part] for part in path if part in FLAGS), 'settings')}: {text}"
    return str(error).removesuffix(".").replace(". ", ": ")


def _flags(error: CycloptsError) -> list[str]:
    return (
        [flag for one in error.app.assemble_argument_collection() if one.parse for flag in one.names]
        if error.app
        else []
    )


def _unknown(word: str, known: Iterable[str], more: str) -> str:
    word = word.partition("=")[0]
    if (new := RENAMED.get(word.removeprefix("--"))) and word.startswith("--"):
        return f"{word} is called --{new} now: say that instead"
    near = get_close_matches(word, known, 1)
    what = "option" if word.startswith("-") else "command"
    return f"there is no {what} {word}: {f'the nearest is {near[0]}, and ' if near else ''}{more} lists all"


def unsuitable(error: ValidationError) -> tuple[tuple[str, ...], str]:
    """The path of the first wrong field, and what is wrong with it, without repeating a password."""
    first = error.errors()[0]
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] not in ("missing", "value_error"):  # our own checks say themselves what came
        text += f", but {_shown(first['input'])} was given"
    return tuple(map(str, first["loc"])), text


def _shown(value: object) -> str:
    plain = safe_url(value) if isinstance(value, str) else value
    return repr(plain) if isinstance(plain, str | int | float | None) else f"a {type(plain).__name__}"


for _settings, _heading in HEADINGS.items():
    _declare(_settings, Group(_heading, sort_key=[*dict.fromkeys(HEADINGS.values())].index(_heading)))
