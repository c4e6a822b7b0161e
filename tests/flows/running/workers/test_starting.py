"""How processes of this machine are started."""

import subprocess
import sys

from tests.flows.processes import environment

FIRST_PROCESSES = """
import multiprocessing, signal
from flows.running.workers.starting import deaf_processes
with deaf_processes():
    pool = multiprocessing.get_context("spawn").Pool(2)
heard = [signal.SIGINT not in pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, [])) for _ in range(4)]
print(heard, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
pool.terminate()
"""


def test_the_first_processes_of_a_program_are_deaf_too() -> None:
    """Python starts its own tracker of resources with the first of them, and lets Ctrl-C through after that."""
    command = [sys.executable, "-c", FIRST_PROCESSES]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("[False, False, False, False] False\n", "")
