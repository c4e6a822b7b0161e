"""Prefect's own server ends with the process that started it, however that ends.

Prefect stops its server where Python ends as usual, which it does not after SIGTERM or SIGKILL: scripts, notebooks and
killed commands left one behind, with 200 MB. So another process, for which this file is the whole program, waits for
the end of the first and then ends the server. It takes no signal from the user's program and none of its handlers, it
hears no Ctrl-C of a terminal, and nothing of `flows` is imported there.
"""

from __future__ import annotations

import atexit
import os
import secrets
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

MARK = "VITAL_ATLAS_STARTED_BY"
"""A variable in the environment of what a process starts, by which its server is found when it is gone."""
SERVER = "prefect.server"
"""Stands in the command line of Prefect's server."""
SECONDS = 5.0
"""What a server has to end by itself, as Prefect gives it."""
AS_USUAL = b"\n"
"""Said by a process whose server has ended already."""

_guards: dict[int, subprocess.Popen[bytes]] = {}
"""The process that waits for this one's end, by this one's id: a fork of it has none yet."""


def end_server_with_this_process() -> None:
    """Have servers that Prefect starts from now on end when this process is gone. Asked again it does nothing."""
    own = os.getpid()
    if own in _guards:
        return
    os.environ[MARK] = mark = f"{own}-{secrets.token_hex(8)}"
    words = [sys.executable, "-P", __file__, str(own), mark]
    with suppress(OSError):  # then it is as Prefect has it
        _guards[own] = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        atexit.register(_dismiss, own)  # after Prefect has stopped its server, whose turn was asked for later


def _dismiss(process: int) -> None:
    if os.getpid() == process:  # and no fork of it
        _guards.pop(process).communicate(AS_USUAL)


def servers_of(mark: str) -> list[psutil.Process]:
    """Servers that were started by the process of this mark, and not by a program that it has started."""
    import psutil

    def marked(process: psutil.Process | None) -> bool:
        with suppress(psutil.Error):
            return process is not None and process.environ().get(MARK) == mark
        return False

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if marked(process) and SERVER in " ".join(process.cmdline()) and not marked(process.parent()):
                found.append(process)
    return found


def main(process: int, mark: str) -> None:
    """Wait until the process is gone, and end its server unless it says that this has ended."""
    heard = sys.stdin.fileno()
    watched = [heard]
    with suppress(OSError, AttributeError):  # where there is such a thing: forks of it may keep the pipe open
        watched.append(os.pidfd_open(process))
    if heard in select.select(watched, [], [])[0] and os.read(heard, 1) == AS_USUAL:
        return
    import psutil

    servers = servers_of(mark)
    for ask in (signal.SIGTERM, signal.SIGKILL):
        for server in servers:
            with suppress(psutil.Error):
                server.send_signal(ask)
        _, servers = psutil.wait_procs(servers, SECONDS)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
