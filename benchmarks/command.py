"""The command in a process of its own, and what it took: for the benchmarks that measure it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import struct_rusage

ROOT = Path(__file__).parents[1]


def vital(*words: str | Path) -> struct_rusage:
    """What a run of the command used, its own processes with it: processor time, and the peak memory of the greatest.
    Its failure is this process's."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        command = [sys.executable, "-m", "flows.cli.main", *map(str, words)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"vital {' '.join(map(str, words))}: {said.read().strip()}")
    return used


def peak_bytes(*words: str | Path) -> int:
    """The peak memory of a run of the command."""
    return 1024 * vital(*words).ru_maxrss
