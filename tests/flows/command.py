"""The ``vital`` command run in this process, and what it printed."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

from flows.cli.main import main


@dataclass(frozen=True)
class Result:
    """What a command line came to; ``output`` holds both streams in the order of writing."""

    exit_code: int
    output: str


def vital(*words: object) -> Result:
    """Run the command with these words."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        code = main([str(word) for word in words])
    return Result(code, written.getvalue())
