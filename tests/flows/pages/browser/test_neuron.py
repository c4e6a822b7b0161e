"""A neuron's page: its picture, photographs, sources and how far it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flows.pages.atlas import write_gallery
from flows.recipes.atlas import build_atlas
from stores import open_atlas
from tests.flows.conftest import Made, atlas_job
from tests.flows.walkable import EARLIER, LATER, WALL, Walkable
from vital.settings import PictureSettings

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("neuron", "marks", "said"),
    [
        (f"{LATER}/4", ["holds"] * 3, "Trust: 3 of 3 hold. Reaches its references (1.10 of their mean peak), readable"),
        (f"{LATER}/5", ["fails", "holds", "fails"], "not treated like photographs (gap 0.90)"),
        (f"{LATER}/8", ["holds", "", "holds"], "readability not measured"),
        (f"{EARLIER}/3", ["", "", ""], "was not measured yet"),
    ],
)
def test_a_neuron_s_page_says_how_far_it_can_be_trusted(
    page: Page, index: str, neuron: str, marks: list[str], said: str
) -> None:
    page.goto(f"{index}#/0/{neuron}")
    page.wait_for_selector(".trust")
    assert said in (page.text_content(".trust p") or "")
    assert page.eval_on_selector_all(".trust i", "found => found.map((mark) => mark.className)") == marks
    measuring = page.locator(".trust details")
    assert measuring.count() == (1 if "" in marks else 0)
    if "" in marks:
        measuring.locator("summary").click()
        assert measuring.inner_text().replace("\n", " ").count("vital evaluate ") == 1
    assert not page.locator(".measures", has_text="Trust").count()


OF_TREND = (
    "The photographs that excite it most; where it is most active is outlined. "
    "The picture matches what goes with its activation in these and in weaker ones."
)


def test_a_page_says_what_its_picture_has_to_do_with_the_references(
    page: Page, index: str, walked: Walkable, made: Made, tmp_path: Path
) -> None:
    """Of patches, of a class, of a channel whose target has a trend; of another channel without emphasis, and of one
    that was activated alone."""
    said = [(f"{index}#/0/{LATER}/3", "The photographs that excite it most; the patch that counts is outlined.")]
    of_class = int(np.flatnonzero(open_atlas(str(walked.atlas)).layer("classes").made())[0])
    said.append((f"{index}#/0/classes/{of_class}", "The photographs whose activations the picture matches, whole."))
    changes: list[tuple[dict[str, Any], str]] = [
        ({}, OF_TREND),
        ({"emphasis": 0.0}, "The photographs whose activations the picture matches, whole; where it is most active is"),
        ({"method": "fourier"}, "The photographs that excite it most; where it is most active is outlined."),
    ]
    for number, (change, text) in enumerate(changes):
        atlas, picture = tmp_path / f"{number}.zarr", PictureSettings(side=24, steps=2, **change)
        build_atlas(atlas_job(made.store, atlas, neurons="0:32", picture=picture))
        write_gallery(str(atlas), tmp_path / f"{number}")
        neuron = int(np.flatnonzero(open_atlas(str(atlas)).layer(LATER).made())[0])
        said.append(((tmp_path / f"{number}" / "index.html").as_uri() + f"#/0/{LATER}/{neuron}", text))
    for address, text in said:
        page.goto("about:blank")  # else the page before is still there
        page.goto(address)
        page.wait_for_selector(".seen .lead")
        assert page.inner_text(".seen .lead >> nth=0").startswith(text)
        assert ("weaker ones" in page.inner_text(".seen .lead >> nth=0")) == (text == OF_TREND)


def test_a_neuron_and_the_walk_to_an_earlier_one(page: Page, index: str) -> None:
    page.goto(index + WALL + "/3")
    page.wait_for_selector(".strip a")
    assert page.inner_text("h1") == "Channel 3"
    assert page.evaluate("document.querySelector('.frame img').decode().then(() => true)")
    assert "Picture of channel 3" in (page.get_attribute(".frame img", "alt") or "")
    references = page.locator(".seen >> nth=0")
    assert references.locator("img").count() == references.locator(".patch").count() > 0
    assert page.locator(".curve svg .line").count() == 6
    assert page.locator(".loss svg .line").count() == 1
    recipe = page.text_content(".recipe") or ""
    assert "vital atlas /" in recipe  # and the store, without an option before it
    assert "--seed 0" in recipe
    link = page.locator(".strip a").first
    href = link.get_attribute("href") or ""
    assert href.startswith(f"#/0/{EARLIER}/")
    link.click()
    page.wait_for_function("hash => location.hash === hash", arg=href)
    page.wait_for_function("layer => document.title.endsWith(layer)", arg=f"{EARLIER} – VITAL Atlas")
    # the first convolution's channels have no pictures: they are numbers
    page.wait_for_selector(".stones li")
    assert page.locator(".strip a").count() == 0


def test_photographs_show_where_the_neuron_is_active(page: Page, index: str) -> None:
    page.goto(index + WALL + "/3")
    page.wait_for_selector(".photos img")
    assert page.inner_text(".seen >> nth=1").startswith("Across the data set")
    # of 21 images the one nearest to nine tenths is above 18 and half of itself
    assert "above 88 %" in page.inner_text(".seen >> nth=1")
    assert page.locator(".map:visible").count() == 0
    page.click("text=Where it is active")
    drawn = "() => [...document.querySelectorAll('.map')].every((map) => !map.hidden && map.width === 8)"
    page.wait_for_function(drawn)
    assert page.locator(".map").count() == page.locator(".photos img").count()
    page.click("text=Where it is active")
    assert page.locator(".map:visible").count() == 0
    before = page.title()
    page.goto(index + "#/0/classes/1")
    page.wait_for_function("before => document.title !== before", arg=before)  # the photographs before are like its own
    page.wait_for_selector(".photos img")
    assert page.locator("text=Where it is active").count() == 0


def test_the_mask_hides_and_shows(page: Page, index: str) -> None:
    page.goto(index + WALL + "/3")
    drawn = "document.querySelector('.frame img').decode().then(() => true)"
    assert page.evaluate(drawn)
    whole = page.locator(".frame").screenshot()
    page.keyboard.press("m")
    page.wait_for_selector(".frame svg mask image", state="attached")
    page.wait_for_function("document.querySelector('[aria-pressed=true]').textContent === 'Mask'")
    assert page.locator(".frame").screenshot() != whole
    page.keyboard.press("m")
    page.wait_for_selector(".frame img")


def test_neurons_without_a_picture_say_why(page: Page, index: str) -> None:
    page.goto(index + WALL + "/35")
    page.wait_for_selector(".empty")
    assert "not made yet" in page.inner_text(".empty")
    for address, said in ((WALL + "/99", "0 to 39"), ("#/0/nowhere", "no layer"), (WALL + "/x", "no neuron's number")):
        page.goto(index + address)
        page.wait_for_function("said => document.querySelector('.empty')?.textContent.includes(said)", arg=said)
