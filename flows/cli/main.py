"""The ``vital`` command: its begin, one sentence where something is wrong, and its end.

Nothing that takes time is imported before the command hears Ctrl-C.
"""

from __future__ import annotations

import gc
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from io import StringIO, TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import TextIO

from flows.cli import INTERRUPTED
from flows.session.preparing import calm_prefect

OF_FLOWS = ("demo", "references", "targets", "atlas", "run", "evaluate", "names", "report")
"""Those that run flows, and so need what Prefect needs."""
ON_NETWORKS = {name: "flows.running.cluster" for name in OF_FLOWS if name != "run"}  # which reads its job before
ON_NETWORKS |= dict.fromkeys(("layers", "pages", "look"), "flows.running.process")
"""Those that import torch whatever they are asked, by what imports most of what takes time."""
ASKING = (signal.SIGINT, signal.SIGTERM)
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What breaks a line, or commands a terminal. A name may hold it."""
SECONDS = 3.0
"""What a run that is asked to end has to put things in order: it gives its blocks back and ends its workers."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that ``words`` ask for, by default the process's; returns 0 done, 1 failed, 2 bad usage. An error
    is one sentence on standard error; after ``--verbose`` what failed is raised.

    As a shell expects, the code is 141 where nobody reads the output, which is no error, and 130 after Ctrl-C. The
    process's own command ends within seconds of it.
    """
    verbose = False
    try:
        if words is None:
            _begin()
        words = list(sys.argv[1:] if words is None else words)
        verbose = words[:1] == ["--verbose"]
        return _ran(words[verbose:], verbose)
    except (Exception, KeyboardInterrupt) as error:
        if _asked or isinstance(error, KeyboardInterrupt):  # what is half imported cannot say it
            _refuse(str(error) if isinstance(error, KeyboardInterrupt) and str(error) else INTERRUPTED)
            return 128 + (_asked[0] if _asked else signal.SIGINT)
        from flows.cli.options import refusal

        sentence, code = refusal(error)
        if verbose and code == 1:
            raise
        _refuse(sentence)
        return code


def _ran(words: Sequence[str], verbose: bool) -> int:
    calm_prefect("INFO" if verbose else "CRITICAL")
    if unread := [word for word in words if any("\ud800" <= letter <= "\udfff" for letter in word)]:
        text = f"{sys.getfilesystemencoding()} text"
        _refuse(f"{unread[0]!a} is no {text}: rename what it names, or set PYTHONUTF8=1 where the name is right")
        return 2
    from flows.cli.parsing import command_line, joined

    lines = command_line(*words[:1])(joined(words)) or ()
    with _needs(words[0]) if lines else nullcontext():
        if lines and words[0] in ON_NETWORKS:
            _import_at_once(ON_NETWORKS[words[0]])
        for line in lines:
            if not _said(line):
                return 128 + signal.SIGPIPE
    return 0 if words else 2  # without a command there is only its help


def _needs(command: str) -> AbstractContextManager[None]:
    if command not in OF_FLOWS:
        return nullcontext()
    from flows.running.server import served

    return served()


def _import_at_once(module: str) -> None:
    """Before its command imports it, unless it is there. Nothing of it is garbage, and to look for some again and again
    takes a fifth of the time."""
    if module in sys.modules:
        return
    gc.disable()
    try:
        import_module(module)
        gc.freeze()
    finally:
        gc.enable()


def _said(line: str) -> bool:
    """Whether somebody reads what is printed. Where nobody does, as after ``| head -1``, later output goes nowhere.
    What a terminal would obey is spelt, as in JSON."""
    line = UNSEEN.sub(_spelt, line)
    try:
        print(line, flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _spelt(unseen: re.Match[str]) -> str:
    return SHORT.get(unseen[0], f"\\u{ord(unseen[0]):04x}")


def _refuse(sentence: str, to: TextIO | None = None) -> None:
    _refused.set()
    to = to or sys.stderr
    sentence = CONTROL.sub("", sentence)  # names and messages of others may hold some, which a terminal would obey
    sentence = UNSEEN.sub(_spelt, sentence)  # and line breaks: a sentence has one line
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
        _refuse(INTERRUPTED, shown)
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
