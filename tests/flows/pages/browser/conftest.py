"""The pages as people use them: opened from disk in headless Chromium, with no error in its console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.jobs import Running
from flows.pages.atlas import Showing, write_gallery
from tests.flows.browser import launched, opened
from tests.flows.once import made_once
from tests.flows.walkable import EVIL, Walkable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as chromium:
        yield chromium


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser, viewport={"width": 1280, "height": 800}) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def index(walked: Walkable, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the pages of two atlases, made once for all tests in a browser."""

    def make(folder: Path) -> None:
        showing = Showing(credits={EVIL: EVIL, "image0001": "Ada, CC0"}, maps=Running(threads=1))
        write_gallery([str(walked.atlas), str(walked.other)], folder / "pages", showing)

    return (made_once(tmp_path_factory, "browsed", make) / "pages" / "index.html").as_uri()
