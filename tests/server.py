"""One Prefect server for all tests of a session, also where pytest-xdist runs them in several processes: it starts
while these read the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

SECONDS = 300
"""That its start may take, on a machine that does other things, too."""
ONE_CONNECTION = ":memory:"
"""Where this stands in a database's address, Prefect opens it once, whatever else the address says. It opens others as
often as there are requests, and then all of them stand still for a minute now and then. SQLite refuses a write whose
transaction has read what another has changed since, and what is left of the refused statement is garbage that waits for
its connection. Python finds it in the thread of the event loop; the connection waits for another to write, at most 60
seconds; and that one's request for the loop."""


class Server:
    """A process that serves Prefect's API from a database of its own."""

    def __init__(self, lasting: bool = False, **more: str) -> None:
        """Requests wait from now on: the socket is there before the process, and its port is nobody else's.

        As Prefect's own short-lived servers do it, without what works by itself; or as one that ``lasting`` runs, with
        its scheduler. ``more`` is set in its environment.
        """
        prefect = find_spec("prefect")
        assert prefect is not None
        assert prefect.origin is not None
        self._folder = TemporaryDirectory(prefix="prefect-of-tests-", dir=_in_memory())
        self.database = Path(self._folder.name) / ("prefect.db" if lasting else f"prefect{ONE_CONNECTION}.db")
        ours = ("PREFECT_API_URL", "COVERAGE_")  # it runs no code whose coverage is asked for
        own = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            "PREFECT_HOME": self._folder.name,
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.database}",
            "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_FINAL": "1",
            **({} if lasting else {"PREFECT__SERVER_EPHEMERAL": "1"}), **more,
        }  # fmt: skip
        with socket.create_server(("127.0.0.1", 0), backlog=128) as waiting:
            # Its connections inherit it. asyncio sets it itself, but not where uvicorn is given a socket, which it
            # takes for a Unix one: then the second packet of an answer waits 40 ms for the first to be acknowledged.
            waiting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.url = f"http://127.0.0.1:{waiting.getsockname()[1]}/api"
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "uvicorn", "--app-dir", str(Path(prefect.origin).parents[1]),
                    "--factory", "prefect.server.api.server:create_app", "--fd", str(waiting.fileno()),
                    "--log-level", "error", "--lifespan", "on",
                ],
                env=own, pass_fds=(waiting.fileno(),),
            )  # fmt: skip

    def stop(self) -> None:
        """End the process, and remove its database."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def _in_memory() -> str | None:
    """A folder in memory, where there is one: a database waits for a disk that others keep busy, and all tests with it
    do."""
    folder = "/dev/shm"
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def wait_for(url: str) -> None:
    """Until the server answers."""
    with urllib.request.urlopen(f"{url}/health", timeout=SECONDS) as answer:
        assert answer.status == 200


@contextmanager
def reported_to(url: str) -> Iterator[None]:
    """Flows of this process report to the server while the block lasts, without heartbeats."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

    from flows.running.cluster import unwatched

    wait_for(url)
    with (
        TemporaryDirectory(prefix="authority-of-tests-") as folder,
        temporary_settings({PREFECT_API_URL: url, PREFECT_API_SSL_CERT_FILE: str(_authority(Path(folder)))}),
        unwatched(),
    ):
        yield
        APILogWorker.drain_all()
        EventsWorker.drain_all()


def _authority(folder: Path) -> Path:
    """One of the authorities that may vouch for a server. Each flow reads all that there are, which is half of what it
    takes, and a server without a certificate needs none."""
    import certifi

    end = "-----END CERTIFICATE-----\n"
    file = folder / "authority.pem"
    file.write_text(Path(certifi.where()).read_text("utf-8").partition(end)[0] + end, "utf-8")
    return file
