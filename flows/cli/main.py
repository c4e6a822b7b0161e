"""The ``vital`` command: its table of commands, how help looks, one sentence where something is wrong, and its end."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.metadata import version
from io import StringIO, TextIOWrapper
from pathlib import Path
from shutil import get_terminal_size
from types import FrameType
from typing import TextIO

from cyclopts import App, Group, Parameter
from cyclopts.help import HelpPanel, PlainFormatter
from rich.console import Console, ConsoleOptions
from rich.table import Table

from flows.cli import KEPT, joined
from flows.session.preparing import calm_prefect

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
OF_FLOWS = ("demo", "references", "targets", "atlas", "run", "evaluate", "names", "report")
"""Those that run flows, and so need what Prefect needs."""
ASKING = (signal.SIGINT, signal.SIGTERM)
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What breaks a line, or commands a terminal. A name may hold it."""
SECONDS = 3.0
"""What a run that is asked to end has to put things in order: it gives its blocks back and ends its workers."""


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
        app.command(f"flows.cli.{path}", name=name, help=None if name == asked else purpose, sort_key=order)
    verbose = "before the command: show Prefect's logs, and tracebacks of errors"
    app.command(f"{__name__}:main", name="--verbose", help=verbose, group=options)  # for the help: `main` takes it off
    app["--help"].group = app["--version"].group = options
    return app


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that ``words`` ask for, by default the process's; returns 0 done, 1 failed, 2 bad usage. An error
    is one sentence on standard error; after ``--verbose`` what failed is raised.

    As a shell expects, the code is 141 where nobody reads the output, which is no error, and 130 after Ctrl-C. The
    process's own command ends within seconds of it.
    """
    if words is None:
        _begin()
    words = list(sys.argv[1:] if words is None else words)
    verbose = words[:1] == ["--verbose"]
    words = words[verbose:]
    calm_prefect("INFO" if verbose else "CRITICAL")
    if unread := [word for word in words if any("\ud800" <= letter <= "\udfff" for letter in word)]:
        text = f"{sys.getfilesystemencoding()} text"
        _refuse(f"{unread[0]!a} is no {text}: rename what it names, or set PYTHONUTF8=1 where the name is right")
        return 2
    try:
        lines = command_line(*words[:1])(joined(words)) or ()
        with _needs(words[0]) if lines else nullcontext():
            for line in lines:
                if not _said(line):
                    return 128 + signal.SIGPIPE
        return 0 if words else 2  # without a command there is only its help
    except (Exception, KeyboardInterrupt) as error:
        from flows.cli.options import refusal

        sentence, code = refusal(error)
        if verbose and code == 1:
            raise
        _refuse(sentence)
        return 128 + _asked[0] if _asked else code


def _needs(command: str) -> AbstractContextManager[None]:
    if command not in OF_FLOWS:
        return nullcontext()
    from flows.running.server import served

    return served()


def _said(line: str) -> bool:
    """Whether somebody reads what is printed. Where nobody does, as after ``| head -1``, later output goes nowhere.
    What a terminal would obey is spelt, as in JSON."""
    line = UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
    try:
        print(line, flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _refuse(sentence: str, to: TextIO | None = None) -> None:
    _refused.set()
    to = to or sys.stderr
    sentence = CONTROL.sub("", sentence)  # names and messages of others may hold some, which a terminal would obey
    with suppress(BrokenPipeError):
        to.write(f"Error: {sentence}\n")
        to.flush()


_refused = threading.Event()
_asked: list[int] = []
"""The signal that asked this process to end."""


def _begin() -> None:
    """Make this process one that ends in time, and that finds a factory in the current folder, as with ``python -m``;
    there it hides no installed module."""
    sys.path.append(str(Path.cwd()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that has no such letter shows its number
            stream.reconfigure(errors="backslashreplace")
    heard, written = os.pipe()
    os.set_blocking(written, False)  # as Python wants it
    for number in ASKING:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):  # else it is ignored
            signal.signal(number, _raised)
    # A step of a network may take long, and Python runs no handler before it has returned. A thread hears at once.
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(heard,), daemon=True).start()


def _raised(number: int, _: FrameType | None) -> None:
    """The first signal ends what is going on; what that does to put things in order is not disturbed by others."""
    if not _asked:
        _asked.append(number)
        raise KeyboardInterrupt


def _end_in_time(heard: int) -> None:
    """At the second signal, or a while after the first, the process ends where it is, with those that it started: what
    is written is whole, and the lease of a process that is not there any more counts for nothing."""
    number = 0
    while number not in ASKING:
        number = os.read(heard, 1)[0]
    select.select([heard], [], [], SECONDS)
    shown, sys.stderr = sys.stderr, StringIO()  # what still goes on has not the last word
    if not _refused.is_set():
        _refuse(f"interrupted: {KEPT}", shown)
    if shown.isatty():
        shown.write("\x1b[?25h")  # the progress bar has hidden the cursor
    import psutil

    this = psutil.Process()
    for child in this.children(recursive=True):
        with suppress(psutil.Error):
            if child.exe() == this.exe():  # a worker or Prefect's server; not the user's browser
                child.kill()
    shown.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
