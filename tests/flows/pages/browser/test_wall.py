"""The wall of pictures: what it shows, how one zooms, orders and walks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.flows.browser import cells, opened, sheets_are_drawn, wait_for_cells
from tests.flows.walkable import LATER, WALL

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow


def test_the_wall_opens_from_disk_half_finished(page: Page, index: str) -> None:
    page.goto(index + WALL)
    shown = cells(page)
    assert shown == [str(row) for row in range(32) if str(row) in shown]
    assert len(shown) == 31
    assert sheets_are_drawn(page)
    said = page.inner_text(".title")
    assert "31 of 40 neurons have pictures" in said
    assert "8: not made yet" in said
    assert page.title() == f"{LATER} – VITAL Atlas"


def test_zooming_changes_size_and_file(page: Page, index: str) -> None:
    page.goto(index + WALL)
    tile = page.locator(".wall .tile").first
    background = "node => node.style.backgroundImage"
    before = tile.bounding_box()
    assert before is not None
    assert "-middle.webp" in tile.evaluate(background)
    page.keyboard.press("+")
    larger = page.locator(".wall .tile").first.bounding_box()
    assert larger is not None
    assert larger["width"] > before["width"]
    for _ in range(4):
        page.keyboard.press("+")
    assert "/0.webp" in page.locator(".wall .tile").first.evaluate(background)
    for _ in range(14):
        page.keyboard.press("-")
    assert "-small.webp" in page.locator(".wall .tile").first.evaluate(background)
    assert len(cells(page)) == 31
    assert sheets_are_drawn(page)
    assert "size=28" in page.evaluate("location.hash")


def test_pinching_and_the_wheel_zoom(browser: Browser, index: str) -> None:
    with opened(browser, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True) as page:
        page.goto(index + WALL)
        page.wait_for_selector(".wall .cell")
        size = "document.querySelector('.wall .tile').getBoundingClientRect().width"
        before = page.evaluate(size)
        page.evaluate(
            """() => {
              const wall = document.querySelector('.wall');
              const finger = (identifier, clientX) => new Touch({identifier, target: wall, clientX, clientY: 300});
              const send = (kind, apart) => wall.dispatchEvent(new TouchEvent(kind, {bubbles: true, cancelable: true,
                touches: [finger(0, 150 - apart), finger(1, 150 + apart)]}));
              send('touchstart', 40); send('touchmove', 40); send('touchmove', 80);
              wall.dispatchEvent(new TouchEvent('touchend', {bubbles: true}));
            }"""
        )
        pinched = page.evaluate(size)
        assert pinched > before
        page.evaluate(
            """() => document.querySelector('.wall').dispatchEvent(
              new WheelEvent('wheel', {ctrlKey: true, deltaY: 400, bubbles: true, cancelable: true}))"""
        )
        assert page.evaluate(size) < pinched
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_wall_is_sorted_and_filtered_by_trust(page: Page, index: str) -> None:
    page.goto(index + WALL)
    shown = cells(page)
    page.select_option("[aria-label='Order by']", label="Trust")
    # those of the highest level first, and of one level by number
    level = {row: (int(row) % 2 == 0) + (int(row) % 4 == 0) + (int(row) < 8) for row in shown}
    assert cells(page) == sorted(shown, key=lambda row: (-level[row], int(row)))
    page.select_option("[aria-label='Show a range of']", label="Trust")
    page.fill("[aria-label='At least']", "3")
    assert wait_for_cells(page, 2) == ["0", "4"]


def test_orders(page: Page, index: str) -> None:
    page.goto(index + WALL)
    numbers = cells(page)
    page.select_option("[aria-label='Order by']", label="Rise")
    assert cells(page) == numbers[::-1]
    page.click("[aria-label='Descending']")
    assert cells(page) == numbers
    for label in ("Similarity", "Activation frequency", "Loss"):
        page.select_option("[aria-label='Order by']", label=label)
        assert sorted(cells(page), key=int) == numbers
        assert cells(page) != numbers
    address = page.evaluate("location.href")
    by_loss = cells(page)
    page.goto("about:blank")
    page.goto(address)
    assert cells(page) == by_loss


def test_the_keyboard_alone(page: Page, index: str) -> None:
    page.goto(index + WALL)
    page.wait_for_selector(".wall .cell")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the pictures"
    page.keyboard.press("Enter")
    third, fourth = cells(page)[2:4]
    page.wait_for_function("document.activeElement.closest('.wall') !== null")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    wait_for_focus(page, third)
    assert page.locator(".wall [tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    page.wait_for_selector(".neuron h1")
    page.keyboard.press("ArrowRight")
    # the address changes at once, the page a moment later
    page.wait_for_selector(f".neuron h1:text-is('channel {fourth}')")
    page.keyboard.press("Escape")
    page.wait_for_selector(".wall .cell")
    # back where one was
    wait_for_focus(page, fourth)


def wait_for_focus(page: Page, neuron: object) -> None:
    """Until the link to a neuron has the focus: a busy machine takes its time."""
    href = f"#/0/{LATER}/{neuron}"
    page.wait_for_function("href => document.activeElement.getAttribute('href') === href", arg=href)


def test_two_atlases_side_by_side(page: Page, index: str) -> None:
    page.goto(index + WALL + "/3")
    page.click("text=Compare with other")
    page.wait_for_selector(".sides .frame img >> nth=1")
    sources = page.eval_on_selector_all(".sides .frame img", "found => found.map((image) => image.getAttribute('src'))")
    assert [source.split("/")[1] for source in sources] == ["0", "1"]
    assert page.locator(".measured tbody tr").count() == 10
    page.click(".path > a")
    page.wait_for_selector(".pair")
    assert page.get_attribute(".item", "aria-setsize") == "31"
    page.locator(".cell").nth(2).click()
    page.wait_for_selector(".sides .frame img >> nth=1")
