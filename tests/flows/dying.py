"""Runs the job of its first argument, and kills itself when it has written as many files of partials as the second says
and is about to write the next."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from unittest.mock import patch

from flows.jobs import ReferencesJob
from flows.recipes.references import select_references
from stores.files import write_arrays

if __name__ == "__main__":
    left = int(sys.argv[2])

    def dying(*arguments: Any) -> None:
        """As `write_arrays`, as long as it may."""
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        write_arrays(*arguments)

    with patch("flows.steps.reading.merging.write_arrays", dying):
        select_references(ReferencesJob.model_validate_json(sys.argv[1]))
