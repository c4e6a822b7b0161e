"""What the command imports before it works: by modules, since times differ from machine to machine."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

import pytest

from flows.cli.main import ON_NETWORKS, _import_at_once
from flows.cli.parsing import COMMANDS
from tests.flows.conftest import Made
from tests.flows.processes import environment

HEAVY = ("torch", "prefect", "dask", "distributed")
ASK = """
import contextlib, io, json, sys
from flows.cli.main import main

for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main(words)
    print(json.dumps([code, said.getvalue() != "", *{name.partition(".")[0] for name in sys.modules}]))
"""


def imported(*commands: tuple[object, ...]) -> list[set[str]]:
    """Packages that are there after each command, which ran one after the other in a process of their own."""
    words = json.dumps([list(map(str, command)) for command in commands])
    ran = subprocess.run(
        [sys.executable, "-c", ASK], input=words, capture_output=True, text=True, env=environment(), check=True
    )
    found = []
    for line in ran.stdout.splitlines():
        code, said, *packages = json.loads(line)
        assert (code, said) == (0, True), ran.stderr
        found.append(set(packages))
    assert len(found) == len(commands)
    return found


def test_help_imports_the_parser_alone() -> None:
    [found] = imported(("--help",))
    assert found.isdisjoint((*HEAVY, "zarr", "fsspec", "numpy", "pydantic", "vital", "stores"))


@pytest.mark.slow
def test_the_help_of_a_command_imports_nothing_that_works() -> None:
    for command, found in zip(COMMANDS, imported(*((command, "--help") for command in COMMANDS)), strict=True):
        assert found.isdisjoint((*HEAVY, "zarr")), command


def test_a_summary_needs_neither_torch_nor_prefect(made: Made) -> None:
    for found in imported(("info", made.store), ("info", made.atlas)):
        assert found.isdisjoint((*HEAVY, "torchvision", "pydantic"))


def test_garbage_is_looked_for_again_whatever_an_import_comes_to() -> None:
    assert ON_NETWORKS.keys() < COMMANDS.keys()
    with pytest.raises(ModuleNotFoundError):
        _import_at_once("flows.nothing_of_this_name")
    assert gc.isenabled()
