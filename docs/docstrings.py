"""Docstrings for the API's pages: examples become blocks of code, as a reader of the source sees them."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1(?:\.\.\.|>>>|(?=\S)).*)*", re.MULTILINE)
LITERAL = re.compile(r"^(.*):: *$", re.MULTILINE)


def shown(text: str) -> str:
    """A docstring with its examples fenced and without what only doctest reads."""
    text = LITERAL.sub(lambda line: f"{line[1]}:" if line[1].strip() else "", text)
    text = EXAMPLE.sub(lambda block: f"\n{block[1]}```python\n{block[0]}\n{block[1]}```", text)
    return re.sub(r" *# doctest: .*", "", text)


class Examples(griffe.Extension):
    """Applies `shown` to every docstring."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called once for each package, when all of it was read."""
        _show(pkg)


def _show(obj: griffe.Object) -> None:
    if obj.docstring:
        obj.docstring.value = shown(obj.docstring.value)
    for member in obj.members.values():
        if isinstance(member, griffe.Object):
            _show(member)
