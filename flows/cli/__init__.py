"""The ``vital`` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cyclopts import Parameter, Token


def _path(_: object, tokens: Sequence[Token]) -> Path:
    # imported when there is a path to read: it takes NumPy along, and help needs none
    from stores.files import local_path, safe_url

    path = local_path(tokens[0].value)
    if path is None:
        raise ValueError(f"a path on this machine was expected, but {safe_url(tokens[0].value)} was given")
    return path


KEPT = "what is finished stays; run the same command again, which makes what is missing"
"""What a run says that is ended before it is done."""
PATH = Parameter(converter=_path)
"""Annotation of a path on this machine: one rule for it, wherever it is given (`stores.files.local_path`)."""
