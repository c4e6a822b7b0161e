"""How the command line is read: its table of commands, how help looks, paths, and lists of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from shutil import get_terminal_size

from cyclopts import App, Group, Parameter, Token
from cyclopts.help import HelpPanel, PlainFormatter
from rich.console import Console, ConsoleOptions
from rich.table import Table

HELP = """Pictures of what every neuron of a vision network responds to.

To try it: vital demo. With your own images:
  vital pack FOLDER --out shards
  vital references shards --store stats.zarr --model resnet50 --layer layer4.2
  vital targets stats.zarr --layer layer4.2 --neurons 0:64
  vital atlas stats.zarr --layer layer4.2 --neurons 0:64 --out a.zarr
  vital pages a.zarr --out pages
"""
COMMANDS = {
    "demo": ("making:demo", "the whole pipeline on an embedded network and photographs"),
    "layers": ("making:layers", "layers, channels and default nodes of a network"),
    "pack": ("making:pack", "a folder of images as shards"),
    "references": ("making:references", "stream shards once: which images excite which neuron"),
    "targets": ("making:targets", "measure the references: what pictures will match"),
    "atlas": ("making:atlas", "make the pictures"),
    "run": ("making:run", "any of these from one settings file"),
    "info": ("looking:info", "what a store holds, how complete, made from what"),
    "evaluate": ("making:evaluate", "measure an atlas's pictures"),
    "names": ("making:names", "words for an atlas's neurons"),
    "report": ("making:report", "compare methods, as a page, plots and report.json"),
    "pages": ("looking:pages", "an atlas as a folder of static pages"),
    "view": ("looking:view", "serve pages on this machine and open them"),
    "show": ("looking:show", "save one picture"),
    "look": ("looking:look", "which neurons see a photograph, how strongly and where"),
    "export": ("looking:export", "save a selection of pictures, as a folder or a zip"),
}
"""Where each command is, since nothing is imported before it is asked for; and what it is for, in the order of use."""
USAGES = {"look": "[OPTIONS] ATLAS PHOTO..."}
"""How a command is used whose positions cyclopts does not name."""


class Layout(PlainFormatter):
    """Help without boxes: names, and beside them what they are."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a heading, and its options or commands."""
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=26 if panel.format == "parameter" else None, no_wrap=True)
        for entry in sorted(panel.entries, key=lambda entry: not entry.required):  # what must be said comes first
            labels = [entry.positional_label] if entry.positional_label else entry.display_labels_with_metavar
            table.add_row(f"  {', '.join(labels)}", entry.description)
        if panel.entries:
            console.print(f"{panel.title}:", table, "", sep="\n")


def command_line(asked: str | None = None) -> App:
    """The command as cyclopts parses it; the help of the subcommand that is ``asked`` for is its own docstring."""
    options = Group("Options", sort_key=0)
    app = App(
        name="vital", help=HELP, version=lambda: f"vital, version {version('vital-atlas')}",
        console=Console(width=min(get_terminal_size().columns, 110), highlight=False),
        help_format="plaintext", help_formatter=Layout(), group_parameters=options,
        default_parameter=Parameter(negative=(), allow_repeating=True),  # the last of one given twice counts
        result_action="return_value", print_error=False, exit_on_error=False, suppress_keyboard_interrupt=False,
    )  # fmt: skip
    for order, (name, (path, purpose)) in enumerate(COMMANDS.items()):
        usage = f"Usage: vital {name} {USAGES[name]}" if name in USAGES else None
        shown = None if name == asked else purpose
        app.command(f"flows.cli.{path}", name=name, help=shown, sort_key=order, usage=usage)
    verbose = "before the command: show Prefect's logs, and tracebacks of errors"
    app.command("flows.cli.main:main", name="--verbose", help=verbose, group=options)  # `main` takes it off
    app["--help"].group = app["--version"].group = options
    return app


def path_of(word: str) -> Path:
    """A path on this machine; raises ValueError for the URL of anything else."""
    # imported when there is a path to read: it takes NumPy along, and help needs none
    from stores.files import local_path, safe_url

    path = local_path(word)
    if path is None:
        raise ValueError(f"a path on this machine was expected, but {safe_url(word)} was given")
    return path


def _path(_: object, tokens: Sequence[Token]) -> Path:
    return path_of(tokens[0].value)


PATH = Parameter(converter=_path)
"""Annotation of a path on this machine: one rule for it, wherever it is given (`stores.files.local_path`)."""

LISTS = ("mean", "std", "black", "white", "shown")
"""Fields that are a number, or some: ``--mean 0.5,0.4,0.4`` or ``--mean 0.5 0.4 0.4``."""
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?(,.*)?"


def joined(words: Sequence[str]) -> list[str]:
    """A command line whose numbers after an option of `LISTS` are one word each: ``--mean 0.5,0.4,0.4``.

    Raises UsageError: an option is given nothing, as by a shell whose variable is not set; all neurons would be meant.
    """
    for before, word in pairwise(("", *words)):
        flag = word.removesuffix("=") if word.endswith("=") else before if not word else ""
        if re.fullmatch(r"--[a-z][a-z-]*", flag):
            from flows.cli.options import UsageError

            raise UsageError(f"{flag} is given nothing: give it a value, or leave it out")
    flags, made, within = {f"--{name}" for name in LISTS}, list[str](), 0
    for word in words:
        within = 1 if word in flags else within + 1 if within and re.fullmatch(NUMBER, word) else 0
        if within > 2:
            made[-1] += f",{word}"
        else:
            made.append(word)
    return made
