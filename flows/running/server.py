"""How long the server that Prefect starts for a process, where none is set, may take."""

from __future__ import annotations

import os

from prefect.context import refresh_global_settings_context
from prefect.settings import get_current_settings

STARTUP = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
SECONDS = 120


def give_it_time() -> None:
    """Prefect waits 20 seconds, which are over before the server answers where other work takes the processor.

    What the user has set stays, be it in the environment, a profile or a file. Child processes inherit the rest.
    """
    if STARTUP not in get_current_settings().to_environment_variables(exclude_unset=True):
        os.environ[STARTUP] = str(SECONDS)
        refresh_global_settings_context()
