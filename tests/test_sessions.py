"""What the README and the notebooks show runs as it stands, with fewer steps and smaller pictures; Python in processes
of their own."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.flows.command import vital
from tests.flows.processes import ended, program
from tests.flows.steps.test_inputs import done
from tests.flows.tiny import write_tar

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 300_000
"""Bytes of a notebook."""


NO_COMPILER = "import sys; assert 'torch._dynamo' not in sys.modules"
"""PyTorch's compiler, which nothing here uses, takes a second to import."""

DEMO = ROOT / "flows" / "demo"

QUICKER = (
    (r"(, side=\w+)?, steps=\d+", ", side=96, steps=2"), (r" --steps \d+", " --side 96 --steps 2"),
    (r"\breferences=\d+", "references=1"), (r"\(60\)", "(9)"),
    (r'str\(resources\.files\("flows\.demo"\)\)', '"photographs"'),
)  # fmt: skip
"""Two steps a small picture, one reference a neuron; nine images a class, and nine steps of the network's training; a
pass over the first photographs alone."""


def quicker(text: str) -> str:
    for pattern, instead in QUICKER:
        text = re.sub(pattern, instead, text)
    return text


def cells_file(folder: Path, cells: list[str]) -> str:
    """For `tests.cells`, in the folder where they are to run."""
    file = folder / "cells.json"
    file.write_text(json.dumps([quicker(cell) for cell in cells]), "utf-8")
    return str(file)


def block(language: str) -> str:
    """The README's block of code in a language."""
    [found] = re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return str(found)


def command(words: list[str]) -> str:
    """What a line of the README's printed, run in this process: eight others would take half a minute to start."""
    name, *arguments = words
    assert name == "vital"
    return done(vital(*arguments))


def test_the_readme_runs_in_python_and_as_commands_to_the_same_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    with tarfile.open(next(DEMO.glob("*.tar"))) as tar:
        members = [member for member in tar if member.name.endswith(".jpg")]
        for member in members[:4]:
            file = tar.extractfile(member)
            assert file is not None
            (photos / member.name).write_bytes(file.read())
    monkeypatch.chdir(tmp_path)
    pack, *commands = [shlex.split(quicker(line), comments=True) for line in block("bash").splitlines()]
    said = {"pack": command(pack)}
    code, errors = ended(program("tests.cells", cells_file(tmp_path, [block("python"), NO_COMPILER]), MPLBACKEND="agg"))
    assert code == 0, errors
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "a.zarr").rglob("c/*") if path.is_file()}
    assert written
    said |= {words[1]: command(words) for words in commands}
    assert "1 of 6 blocks" in said["info"]
    assert (tmp_path / "neuron7.png").stat().st_size > 1000
    assert (tmp_path / "pages" / "index.html").exists()
    # What the session had made, the commands took as done: both ask for the same.
    assert written == {path: path.stat().st_mtime_ns for path in written}


def first_photographs(folder: Path, most: int = 24) -> None:
    """A shard of the first embedded ones."""
    with tarfile.open(DEMO / "photos-000000.tar") as tar:
        keys = dict.fromkeys(member.name.partition(".")[0] for member in tar)
        wanted = list(keys)[:most]
        members = {
            member.name: file.read()
            for member in tar
            if member.name.partition(".")[0] in wanted and (file := tar.extractfile(member))
        }
    write_tar(folder / "first-000000.tar", members)


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text("utf-8"))["cells"]
    return cells


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, prefect_server: str) -> None:
    """In a fork, and with the session's Prefect server: importing all, and a server, take a process seconds each."""
    cells = ["".join(cell["source"]) for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    first_photographs(tmp_path / "photographs")
    code, said = ended(program("tests.cells", cells_file(tmp_path, cells), MPLBACKEND="agg"))
    assert code == 0, said


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_executed_and_small(notebook: Path) -> None:
    assert notebook.stat().st_size < LARGEST
    code = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert any(cell["outputs"] for cell in code)
    assert "Traceback" not in notebook.read_text("utf-8")
    for cell in code:
        ast.parse("".join(cell["source"]))


def test_there_are_three_notebooks() -> None:
    assert len(NOTEBOOKS) == 3
