"""Whether anyone can read the pages: contrast, words for pictures, files that are all there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

from flows.cli.export import served
from tests.flows.browser import cells, opened, sheets_are_drawn
from tests.flows.walkable import WALL

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow


def test_nothing_but_the_folder_is_asked_for(page: Page, index: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(index + WALL + "/3")
    page.wait_for_selector(".photos img")
    folder = index.removesuffix("index.html")
    assert asked
    assert all(url.startswith(folder) for url in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser: Browser, index: str, scheme: str) -> None:
    other = {"light": "dark", "dark": "light"}[scheme]
    brightness = """() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"""
    with opened(browser, color_scheme=scheme) as page:
        page.goto(index + WALL)
        page.wait_for_selector(".wall .cell")
        before = page.evaluate(brightness)
        assert (before > 128) == (scheme == "light")
        page.click("#theme")
        assert (page.evaluate(brightness) > 128) == (other == "light")
        page.reload()
        page.wait_for_selector(".wall .cell")
        assert (page.evaluate(brightness) > 128) == (other == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_against_the_page(browser: Browser, index: str, scheme: str) -> None:
    """WCAG AA: at least 4.5 between text and page, in both schemes."""
    with opened(browser, color_scheme=scheme) as page:
        page.goto(index + WALL + "/3")
        page.wait_for_selector(".neuron")
        ratios = page.evaluate(
            """() => {
              const light = (name) => {
                const probe = document.createElement('i');
                probe.style.color = `var(${name})`;
                document.body.append(probe);
                const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
                probe.remove();
                const [r, g, b] = parts.map((part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
                return .2126 * r + .7152 * g + .0722 * b;
              };
              const ratio = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
              return ['--ink', '--quiet'].flatMap((text) => ['--page', '--well'].map((ground) =>
                ratio(light(text), light(ground))));
            }"""
        )
        assert min(ratios) >= 4.5, ratios


def test_every_picture_has_words(page: Page, index: str) -> None:
    for address, there in (
        (WALL, ".wall .cell"),
        (WALL + "/3", ".neuron .frame"),
        ("#/compare/0/2/1/2/3", ".sides .frame"),
    ):
        page.goto(index + address)
        page.wait_for_selector(there)
        nameless = "found => found.filter((node) => !(node.alt || node.getAttribute('aria-label'))).length"
        assert page.eval_on_selector_all("img, .cell, svg[role=img], .strip a", nameless) == 0
        unnamed = (
            "found => found.filter((node) => !node.textContent.trim() && !node.getAttribute('aria-label') && "
            "!node.closest('label')).length"
        )
        assert page.eval_on_selector_all("button, input, select", unnamed) == 0


def test_a_part_that_is_missing_is_named(browser: Browser, index: str, tmp_path: Path) -> None:
    shutil.copytree(Path(unquote(urlsplit(index).path)).parent, tmp_path / "pages")
    next((tmp_path / "pages").rglob("0/2/neurons-0.js")).unlink()
    page = browser.new_page()
    page.goto((tmp_path / "pages/index.html").as_uri() + WALL + "/3")
    page.wait_for_selector(".empty")
    assert "neurons-0.js is missing or unreadable: write the pages again" in page.inner_text(".empty")
    page.close()


def test_served_pages_are_the_same(page: Page, index: str) -> None:
    with served(Path(unquote(urlsplit(index).path)).parent) as url:
        # browsers ask a server for its icon, which there is none of: answered here, so that the console stays silent
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page.goto(url + WALL)
        assert len(cells(page)) == 31
        assert sheets_are_drawn(page)
        page.goto("about:blank")
