"""What the command imports before it works: by modules, since times differ from machine to machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flows.cli.main import COMMANDS
from tests.flows.conftest import Made
from tests.flows.processes import environment

HEAVY = ("torch", "prefect", "dask", "distributed")
ASK = """
import sys
from flows.cli.main import main
code = main(sys.argv[1:])
sys.stderr.write(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
sys.exit(code)
"""


def imported(*words: object) -> set[str]:
    """Packages that are there after a command ran in a process of its own."""
    arguments = [sys.executable, "-c", ASK, *map(str, words)]
    ran = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
    return set(ran.stderr.split())


def test_help_imports_the_parser_alone() -> None:
    assert imported("--help").isdisjoint((*HEAVY, "zarr", "fsspec", "numpy", "pydantic", "vital", "stores"))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_imports_nothing_that_works(command: str) -> None:
    assert imported(command, "--help").isdisjoint((*HEAVY, "zarr"))


def test_a_summary_needs_neither_torch_nor_prefect(made: Made) -> None:
    for url in (made.store, made.atlas):
        assert imported("info", url).isdisjoint((*HEAVY, "torchvision", "pydantic"))
