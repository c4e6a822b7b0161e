"""Serves a folder of pages on this machine, for browsers that are told to refuse files."""

from __future__ import annotations

import functools
import http.server
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from stores.errors import UnsuitableFolder

HERE = "127.0.0.1"
"""Nobody but this machine may see the pages: photographs may be private."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Without a line for every file, and without listings of folders."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class calls
        """Nothing is logged."""

    def list_directory(self, path: object) -> None:
        """Folders are not listed."""
        self.send_error(404)


def require_pages(folder: Path) -> Path:
    """The index page of a folder; raises UnsuitableFolder where there is none."""
    index = folder / "index.html"
    if not index.is_file():
        raise UnsuitableFolder(
            f"{folder} holds no pages (no index.html): write them with `vital pages ATLAS --out {folder}` first"
        )
    return index


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve ``folder`` while the block lasts; gives the URL. Port 0 is any free one.

    Raises:
        UnsuitableFolder: the folder holds no pages, or the port is taken.
    """
    require_pages(folder)
    handler = functools.partial(_Quiet, directory=str(folder))
    try:
        server = http.server.ThreadingHTTPServer((HERE, port), handler)
    except OSError as error:
        raise UnsuitableFolder(
            f"port {port} cannot be used ({error.strerror}): give another --port, or none for any free one"
        ) from None
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HERE}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
