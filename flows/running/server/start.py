"""How long a server of Prefect's own may take to start, and what is wrong when there is none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.running.server.ending import end_server_with_this_process
from stores.files import safe_url
from vital.errors import VitalError

STARTUP = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"
SECONDS = 120


class NoServer(VitalError):
    """No Prefect server answers, or none can be started."""


def give_it_time() -> None:
    """Prefect waits 20 seconds, which are over before the server answers where other work takes the processor.

    What the user has set stays, be it in the environment, a profile or a file. Child processes inherit the rest.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    if STARTUP not in get_current_settings().to_environment_variables(exclude_unset=True):
        os.environ[STARTUP] = str(SECONDS)
        refresh_global_settings_context()


@contextmanager
def served() -> Iterator[None]:
    """What flows need while the block lasts. It comes before Prefect is imported, which makes its folder then. A server
    that Prefect starts ends with this process.

    Raises:
        NoServer: Prefect's folder cannot be written, or the server does not answer, does not start, or refuses.
    """
    _check_home()
    if not os.environ.get("PREFECT_API_URL"):
        end_server_with_this_process()
    try:
        yield
    except Exception as error:
        if sentence := _explained(error):
            raise NoServer(sentence) from error
        raise


def _check_home() -> None:
    """Prefect's own server keeps its database there; without the folder it ends, and Prefect waits for it in vain."""
    asked = os.environ.get("PREFECT_HOME") or "~/.prefect"
    way_out = "set PREFECT_HOME to a folder that can be written"
    try:
        home = Path(asked).expanduser()
    except RuntimeError:
        raise NoServer(f"Prefect keeps its runs in {asked}, and this user has no home: {way_out}") from None
    if os.environ.get("PREFECT_API_URL"):
        return
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise NoServer(
            f"Prefect keeps its runs in {home}, which cannot be written ({error.strerror}): {way_out}"
        ) from None


def _explained(error: Exception) -> str | None:
    """A sentence for what Prefect's client says of a server, which are errors of no type of its own."""
    message = str(error)
    of_client = type(error).__module__.partition(".")[0] in ("httpx", "prefect")
    if not (of_client or isinstance(error, RuntimeError | ValueError)):
        return None
    if "connect to ephemeral Prefect API server" in message:
        limit = os.environ.get(STARTUP, SECONDS)
        return (
            f"the server that Prefect starts for a run did not answer within {limit} seconds: allow it more with "
            f"{STARTUP}, or start `prefect server start` once and name it in PREFECT_API_URL"
        )
    if "No Prefect API URL provided" in message:
        return "Prefect may start no server of its own here: name one in PREFECT_API_URL"
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value() or ""
    if of_client and not url and _asked_for(error).endswith("/api/health"):
        # an answer may take 5 seconds, whatever the limit of the start
        return (
            "the server that Prefect starts for a run was too slow to answer: run the command again when the machine "
            "has less to do, or start `prefect server start` once and name it in PREFECT_API_URL"
        )
    if "Failed to reach API at" in message or (of_client and url and _asked_for(error).startswith(url)):
        url = safe_url(url) if url else "the address that Prefect chose"
        if "401" in message or "403" in message:
            return (
                f"the Prefect server at {url} refuses (HTTP 401 or 403): set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
            )
        return (
            f"no Prefect server answers at {url}: start it with `prefect server start`, correct PREFECT_API_URL, or "
            "unset it and one is started for the run; what is finished stays"
        )
    return None


def _asked_for(error: Exception) -> str:
    try:
        return str(error.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # httpx knows it of some errors alone
        return ""
