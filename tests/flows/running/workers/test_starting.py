"""How processes of this machine are started."""

import subprocess
import sys

from tests.flows.processes import environment

FIRST_WORKERS = """
import signal
from flows.jobs import Running
from flows.running.workers.workplaces import started, workplace_of
with started(workplace_of(Running(workers=2))) as runner:
    blocked = runner.client.run(signal.pthread_sigmask, signal.SIG_BLOCK, [])
print([signal.SIGINT in one for one in blocked.values()], signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_workers_hear_no_ctrl_c() -> None:
    """In a program of its own: with the first process Python starts a tracker, and lets the signal through again."""
    command = [sys.executable, "-c", FIRST_WORKERS]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert ran.stdout == "[True, True] set()\n", ran.stderr
