"""Runs a notebook's cells, read from the file that it is told as a list of texts, one after the other in a folder, and
has the last value of each show itself, as a notebook does."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path
from typing import Any


def run(cells: list[str]) -> None:
    """Raises what a cell raises."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(cells):
        body = ast.parse(source, f"cell {number}").body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
            assert repr(shown)
            for kind in ("_repr_html_", "_repr_png_"):
                if hasattr(type(shown), kind):
                    assert getattr(shown, kind)(), (number, kind)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    os.chdir(file.parent)
    run(json.loads(file.read_text("utf-8")))
