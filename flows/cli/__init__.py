"""The ``vital`` command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cyclopts import Parameter, Token


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


KEPT = "what is finished stays; run the same command again, which makes what is missing"
"""What a run says that is ended before it is done."""
PATH = Parameter(converter=_path)
"""Annotation of a path on this machine: one rule for it, wherever it is given (`stores.files.local_path`)."""

LISTS = ("mean", "std", "black", "white", "shown")
"""Fields that are a number, or some: ``--mean 0.5,0.4,0.4`` or ``--mean 0.5 0.4 0.4``."""
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?(,.*)?"


def joined(words: Sequence[str]) -> list[str]:
    """A command line whose numbers after an option of `LISTS` are one word each: ``--mean 0.5,0.4,0.4``."""
    flags, made, within = {f"--{name}" for name in LISTS}, list[str](), 0
    for word in words:
        within = 1 if word in flags else within + 1 if within and re.fullmatch(NUMBER, word) else 0
        if within > 2:
            made[-1] += f",{word}"
        else:
            made.append(word)
    return made
