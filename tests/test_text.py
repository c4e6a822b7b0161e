"""Text is UTF-8 wherever it is read or written, whatever the machine's own encoding: it is named each time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("flows", "vital", "stores", "benchmarks", "docs")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def unnamed(source: str) -> Iterator[int]:
    """Lines of a program that open text without saying how it is encoded."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        said = [*node.args, *keywords.values()]
        modes = [one.value for one in said if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        text = {
            "read_text": not node.args,
            "write_text": len(node.args) < 2,
            "open": any(set(mode) <= set("rwaxt+") for mode in modes)
            or (isinstance(node.func, ast.Name) and not modes),
            "run": "text" in keywords,
            "Popen": "text" in keywords,
        }
        if text.get(name) and "encoding" not in keywords and not _of_a_store(node):
            yield node.lineno


def _of_a_store(call: ast.Call) -> bool:
    """`BlocksAt.open`, whose argument is a mode of Zarr; and tars, which hold bytes."""
    return isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in ("at", "work.at", "tarfile")


def test_its_encoding_is_named() -> None:
    found = {str(file.relative_to(ROOT)): list(unnamed(file.read_text("utf-8"))) for file in FILES}
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("p.read_text()\np.read_text('utf-8')", [1]),
        ("p.write_text(x)\np.write_text(x, 'utf-8')\np.write_text(x, encoding='utf-8')", [1]),
        ("open(p)\nopen(p, 'rb')\np.open('w')\np.open('w', encoding='utf-8')\np.open('rb')", [1, 3]),
        ("run(x, text=True)\nrun(x)\nrun(x, text=True, encoding='utf-8')", [1]),
    ],
)
def test_it_is_seen_where_it_is_not(program: str, lines: list[int]) -> None:
    assert list(unnamed(program)) == lines
