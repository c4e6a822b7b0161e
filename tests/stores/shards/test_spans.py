"""Spans of a service's files are asked for together: none waits until another has come; and it gives no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.registry import _registry
from upath import UPath
from upath.registry import register_implementation

from stores.errors import UnreadableShard
from stores.shards.reading import GAP, read_spans

SPANS = 5
WAIT = 60.0
"""Seconds after which a request that should have come has not."""


class Meeting(AsyncFileSystem):  # type: ignore[misc]
    """A service that answers nobody until so many requests are under way."""

    protocol = "meeting"
    asked: ClassVar[list[int]] = []
    _all: ClassVar[asyncio.Event]

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        assert start is not None
        assert end is not None
        if not self.asked:
            Meeting._all = asyncio.Event()
        self.asked.append(start)
        if len(self.asked) == SPANS:
            self._all.set()
        await asyncio.wait_for(self._all.wait(), WAIT)
        return bytes([start % 251]) * (end - start)


@pytest.fixture
def _service() -> Iterator[None]:
    fsspec.register_implementation("meeting", Meeting, clobber=True)
    register_implementation("meeting", UPath, clobber=True)
    yield
    Meeting.asked.clear()
    Meeting.clear_instance_cache()
    del _registry["meeting"]


@pytest.mark.usefixtures("_service")
def test_spans_that_lie_apart_are_under_way_together() -> None:
    spans = [(f"meeting://images/{'ab'[number % 2]}.tar", 3 * GAP * number + 7, number + 1) for number in range(SPANS)]
    assert read_spans(spans) == [bytes([offset % 251]) * size for _, offset, size in spans]
    assert sorted(Meeting.asked) == [offset for _, offset, _ in spans]


class _Quiet(SimpleHTTPRequestHandler):
    """Python's own server of a folder, which knows no ranges."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


def test_a_server_that_gives_whole_files_alone_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(range(200)))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever).start()
        try:
            with pytest.raises(UnreadableShard, match=r"comes as a whole where 5 of its bytes are asked for.*--shards"):
                read_spans([(f"http://127.0.0.1:{server.server_port}/a.tar", 100, 5)])
        finally:
            server.shutdown()
