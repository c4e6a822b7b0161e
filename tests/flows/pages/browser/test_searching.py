"""The search box: numbers and ranges, names, labels and photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest

from flows.cli.parsing import command_line
from stores import open_atlas, open_statistics
from tests.flows.browser import cells, wait_for_cells
from tests.flows.walkable import CLASS_NAMES, EVIL, LATER, WALL, Walkable

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


def test_searching_and_ranges(page: Page, index: str) -> None:
    page.goto(index + WALL)
    page.wait_for_selector(".wall .cell")
    page.keyboard.press("/")
    page.keyboard.type("3, 10:13")
    assert wait_for_cells(page, 4) == ["3", "10", "11", "12"]
    assert page.inner_text("#count") == "4 of 31"
    page.fill("#search", "99")
    page.wait_for_selector(".empty:not([hidden])")
    assert page.inner_text(".empty") == "No neuron with a picture has such a number."
    page.fill("#search", "")
    page.select_option("[aria-label='Show a range of']", label="Rise")
    page.fill("[aria-label='At least']", "0.5")
    page.fill("[aria-label='At most']", "0.65")
    assert wait_for_cells(page, 6) == ["20", "21", "22", "23", "24", "25"]
    # the command is written once its part opens, which the browser tells after the click
    page.click(".under summary >> text=Save these pictures")
    command = page.locator(".under details[open] code").text_content() or ""
    assert "--neurons 20:26 --out selection.zip" in command


def test_classes_are_found_by_name_and_their_markup_is_text(page: Page, index: str) -> None:
    page.goto(index)
    assert cells(page) == CLASS_NAMES[:3]
    page.fill("#search", "dog")
    assert wait_for_cells(page, 1) == ["dog & co"]
    page.goto(index + "#/0/classes/0")
    page.wait_for_selector(".neuron")
    assert page.inner_text("h1").startswith(CLASS_NAMES[0])
    page.goto(index + "#/0/classes/1")
    page.locator(".photos b", has_text=EVIL).first.wait_for()
    page.goto(index + "#/credits")
    page.wait_for_selector(".credits")
    assert EVIL in page.inner_text(".credits")
    assert page.locator("img[src='x']").count() == 0


def test_a_photograph_leads_to_the_neurons_that_it_excites(page: Page, index: str, walked: Walkable) -> None:
    """The pages' own script finds the part that Python wrote the photograph's key into."""
    page.goto(index + WALL + "/3")
    link = page.locator(".photos b a").first
    shown = page.locator(".photos a.photo").first
    assert shown.get_attribute("href") == link.get_attribute("href")
    key = link.inner_text()
    link.click()
    found = cells(page)
    assert page.input_value("#search") == f"image:{key}"
    assert key in page.inner_text(".chosen")
    assert page.evaluate("document.querySelector('.chosen img').decode().then(() => true)")
    text = (Path(unquote(urlsplit(index).path)).parent / "vital-site" / "0" / LATER / "neurons-0.js").read_text("ascii")
    neurons = json.loads(text.partition(",")[2].rpartition(")")[0])
    having = {
        number for number, one in neurons.items() if number.isdigit() and key in [row[1] for row in one["photos"]]
    }
    assert "3" in having
    assert having <= set(found)
    assert len(found) < 31
    page.goto(f"{index}{WALL}?q=image:toString")
    page.wait_for_selector(".empty:not([hidden])")
    assert page.locator(".wall .cell").count() == 0
    assert page.inner_text(".empty") == "No photograph that is shown here has a name that begins so."
    # the page has no network, and says what asks about a photograph of one's own
    asking = page.locator(".under details[open]")
    line = " ".join(asking.locator(".lines").inner_text().split())
    folder = Path(unquote(urlsplit(index).path)).parent
    assert line == f"vital look {walked.atlas} PHOTO.jpg --layer {LATER} --out look --pages {folder}"
    _, asked, _ = command_line("look").parse_args(line.split()[1:])  # the command takes it
    assert asked.arguments["pages"] == str(folder)


ASKED = ("image:{}", "image:{}.JPEG", "{}.jpg", "photos/train/{}.png", r"C:\photos\{}.jpg", "IMAGE: {}")


def test_a_photograph_is_asked_for_by_its_file_s_name(page: Page, index: str) -> None:
    page.goto(f"{index}{WALL}?q=image:image00")
    page.wait_for_selector(".chosen li")
    key = page.locator(".chosen li a").first.inner_text()
    page.goto(f"{index}{WALL}?q={quote('image:' + key)}")
    page.wait_for_selector(".chosen > img")
    expected = cells(page)
    for asked in ASKED:
        page.goto("about:blank")
        page.goto(f"{index}{WALL}?q={quote(asked.format(key))}")
        page.wait_for_selector(".chosen > img")
        assert cells(page) == expected, asked
        assert key in page.inner_text(".chosen")


def test_the_beginning_of_a_name_gives_photographs_to_choose_from(page: Page, index: str) -> None:
    page.goto(f"{index}{WALL}?q=image:IMAGE00")
    page.wait_for_selector(".chosen li")
    keys = page.locator(".chosen li a").all_inner_texts()
    assert keys == sorted(keys)
    assert len(keys) > 1
    assert all(key.startswith("image00") for key in keys)
    page.click(".chosen li >> nth=1")
    page.wait_for_selector(".chosen > img")
    assert page.input_value("#search") == f"image:{keys[1]}"


def test_a_word_that_is_misspelt_finds_those_that_begin_like_it(page: Page, index: str) -> None:
    page.goto(f"{index}{WALL}?q=cat")
    expected = cells(page)
    page.goto("about:blank")
    page.goto(f"{index}{WALL}?q=catz")
    assert cells(page) == expected
    assert page.inner_text(".empty") == "Nothing has “catz”; these have “cat”."


def test_a_word_of_a_label_finds_neurons_by_their_references(page: Page, index: str, walked: Walkable) -> None:
    """Those of which a quarter of the references carry it, most first, as the store has them."""
    statistics = open_statistics(str(walked.store))
    labels = statistics.image_labels()[statistics.references(LATER).image]
    there = np.flatnonzero(open_atlas(str(walked.atlas)).layer(LATER).made()).tolist()
    for number, word in ((0, "cat"), (1, "label:dog &")):
        counts = {row: int((labels[row] == number).sum()) for row in there}
        expected = sorted((row for row, count in counts.items() if count >= 3), key=lambda row: (-counts[row], row))
        assert expected
        page.goto("about:blank")
        # the layer has no names, so that a word alone is of a label
        page.goto(f"{index}{WALL}?q={quote(word)}")
        assert [int(cell) for cell in cells(page)] == expected
