"""What holds for all tests: one thread each, shapes in signatures that are checked, and one Prefect server."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

# Before torch is imported, and for child processes too: small networks lose far more to waiting threads than they
# gain, above all on a busy machine, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# And before Prefect is.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
# Prefect's events are nobody's here: keeping them is a third of what a server has to do, and its end waits for them.
os.environ.setdefault("PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED", "false")
# Nor are its blocks, which a new database is given one by one.
os.environ.setdefault("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")
# And each flow asks first for a token against other pages of a browser, which the server does not have.
os.environ.setdefault("PREFECT_CLIENT_CSRF_SUPPORT_ENABLED", "false")

import jaxtyping
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from tests import checking
from tests.server import Server, reported_to

# Deadlines, and how slowly examples are drawn, would measure what else the machine is doing. The examples are those of
# the run before: what fails is then a change's doing. `--hypothesis-profile=others` draws others.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("others", unhurried)
settings.register_profile("unhurried", unhurried, derandomize=True)
settings.load_profile("unhurried")

PACKAGES = ("flows", "stores", "vital")
CHECKER = f"{checking.__name__}.{checking.checked.__name__}"
"""The hook wants an expression that begins with a module's name."""


def is_unchecked(file: Path) -> bool:
    """Whether a module defines Prefect's flows: Prefect reads annotations in the globals of their functions, which a
    checked function does not have. It checks their arguments itself, and no arrays are among them."""
    return file.parts[-3:-1] == ("flows", "recipes") and "\nfrom prefect import flow" in file.read_text("utf-8")


class _AsItIs(MetaPathFinder):
    """Finds what is not to be checked, before the hook that checks everything does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("flows.recipes."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        return spec if spec and spec.origin and is_unchecked(Path(spec.origin)) else None


# Nothing of what is imported from now on is garbage: looking for some takes as long as importing.
gc.disable()
# Before anything of them is imported, whichever tests come first.
jaxtyping.jaxtyped = checking.once(jaxtyping.jaxtyped)  # by this name what the hook has read asks for it
install_import_hook(list(PACKAGES), CHECKER)
sys.meta_path.insert(0, _AsItIs())


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Where nobody has compiled the tests, and what they import, one process does, and the others wait for it: all
    would do the same at the same time."""
    folder: str | None = getattr(session.config, "workerinput", {}).get("uncompiled")
    if folder is None:
        yield
        return
    compiled = Path(folder, "compiled")
    with FileLock(f"{compiled}.lock"):
        first = not compiled.exists()
        if first:
            yield
            compiled.touch()
    if not first:
        yield


def pytest_collection_finish() -> None:
    """What is imported by now stays: Python need not look for garbage in it again and again."""
    gc.freeze()
    gc.enable()


_SERVER = pytest.StashKey[Server]()
_UNCOMPILED = pytest.StashKey[bool]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes of `pytest -n auto`: one for each core, and another for slow tests, which wait for other processes."""
    return len(os.sched_getaffinity(0)) + ("not slow" not in config.option.markexpr)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Before pytest-xdist starts a process: all share one server, which starts at once."""
    if _SERVER not in node.config.stash:
        node.config.stash[_SERVER] = Server()
    server = node.config.stash[_SERVER]
    node.workerinput["prefect"] = (server.url, str(server.database))
    if node.config.stash.setdefault(_UNCOMPILED, not any(Path(__file__).parent.glob("vital/__pycache__/*pytest*"))):
        node.workerinput["uncompiled"] = str(server.database.parent)


def pytest_unconfigure(config: pytest.Config) -> None:
    """When the last process is done."""
    if _SERVER in config.stash:
        config.stash[_SERVER].stop()


@pytest.fixture(scope="session")
def _prefect(pytestconfig: pytest.Config) -> tuple[str, str]:
    """Address and database of the session's Prefect server."""
    shared: tuple[str, str] | None = getattr(pytestconfig, "workerinput", {}).get("prefect")
    if shared is not None:
        return shared
    server = pytestconfig.stash[_SERVER] = Server()
    return server.url, str(server.database)


@pytest.fixture(scope="session")
def prefect_server(_prefect: tuple[str, str]) -> Iterator[str]:
    """Address of a real Prefect server that the flows of the session report to."""
    with reported_to(_prefect[0]):
        yield _prefect[0]


@pytest.fixture(scope="session")
def prefect_database(_prefect: tuple[str, str]) -> Path:
    """The file of its database; beside it lies what was written last."""
    return Path(_prefect[1])


def pytest_runtest_teardown() -> None:
    """Torch's threads are one again, whatever a test or what it ran has asked for: several in each process of tests
    wait for each other, and all that come after would cost many times as much."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def memory() -> None:
    """Tests keep the memory that they free, as processes that run tasks do."""
    from vital.memory import keep_memory

    keep_memory()
