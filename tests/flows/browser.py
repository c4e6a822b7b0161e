"""Headless Chromium for tests of the pages: the system's own, since a download is not a test's to make."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 180_000
"""Of a machine that does other things, too; what never comes ends at the test's own limit."""


def chromium() -> str:
    """The browser's path; without one the test is skipped, or fails where a browser is required."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    if os.environ.get("VITAL_BROWSER_REQUIRED"):
        pytest.fail("no Chromium was found, and VITAL_BROWSER_REQUIRED says that the pages must be tested in one")
    pytest.skip("no Chromium was found, so the pages are not tested in a browser: apt-get install chromium")


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser while the block lasts."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=WAIT_MS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, **more: Any) -> Iterator[Page]:
    """A fresh page; the block fails when the browser's console has an error, a file is missing or a script fails.
    A picture that a page was left before has no fault."""
    page = browser.new_page(**more)
    page.set_default_timeout(WAIT_MS)
    wrong: list[str] = []

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":
            wrong.append(f"{request.url} {request.failure}")

    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", failed)
    yield page
    page.close()
    assert wrong == []


def cells(page: Page) -> list[str]:
    """Captions of the wall's cells, in reading order, once it has all that it waited for."""
    page.wait_for_selector(".wall[aria-busy='false'] .cell")
    return list(
        page.eval_on_selector_all(
            ".wall .cell",
            "found => found.sort((a, b) => a.dataset.index - b.dataset.index).map((cell) => cell.textContent)",
        )
    )


def wait_for_cells(page: Page, count: int) -> list[str]:
    cells_there = "count => document.querySelectorAll(\".wall[aria-busy='false'] .cell\").length === count"
    page.wait_for_function(cells_there, arg=count)
    return cells(page)


def sheets_are_drawn(page: Page) -> bool:
    """Whether every picture of the wall is there: the files behind the tiles decode."""
    return bool(
        page.evaluate(
            """async () => {
              const files = [...document.querySelectorAll('.wall .tile')].flatMap((tile) =>
                [...tile.style.backgroundImage.matchAll(/url\\("([^"]+)"\\)/g)].map((found) => found[1]));
              const images = await Promise.all([...new Set(files)].map(async (file) => {
                const image = new Image();
                image.src = file;
                await image.decode();
                return image.naturalWidth;
              }));
              return images.length > 0 && images.every((width) => width > 0);
            }"""
        )
    )
