"""The pages as people use them: opened from disk in headless Chromium, with no error in its console."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest

from flows.cli.export import served
from flows.cli.parsing import command_line
from flows.jobs import Running
from flows.pages.atlas import Showing, write_gallery
from stores import open_atlas, open_statistics
from tests.flows.browser import cells, launched, opened, sheets_are_drawn, wait_for_cells
from tests.flows.walkable import CLASS_NAMES, EARLIER, EVIL, LATER, Walkable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

WALL = f"#/0/{LATER}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def made(walked: Walkable) -> Walkable:
    return walked


@pytest.fixture(scope="module")
def index(made: Walkable, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the pages of two atlases."""
    credits_ = {EVIL: EVIL, "image0001": "Ada, CC0"}
    atlases = [str(made.atlas), str(made.other)]
    return write_gallery(
        atlases, tmp_path_factory.mktemp("browser") / "pages", Showing(credits=credits_, maps=Running(threads=1))
    ).as_uri()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser, viewport={"width": 1280, "height": 800}) as found:
        yield found


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


def test_nothing_but_the_folder_is_asked_for(page: Page, index: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(index + WALL + "/3")
    page.wait_for_selector(".photos img")
    folder = index.removesuffix("index.html")
    assert asked
    assert all(url.startswith(folder) for url in asked)


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
    page.wait_for_function("place => document.title.endsWith(place)", arg=f"{EARLIER} – VITAL Atlas")
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


def test_two_atlases_side_by_side(page: Page, index: str) -> None:
    page.goto(index + WALL + "/3")
    page.click("text=Compare with other")
    page.wait_for_selector(".sides .frame img >> nth=1")
    sources = page.eval_on_selector_all(".sides .frame img", "found => found.map((image) => image.getAttribute('src'))")
    assert [source.split("/")[1] for source in sources] == ["0", "1"]
    assert page.locator(".measured tbody tr").count() == 10
    page.click(".path > a")
    page.wait_for_selector(".pair")
    assert page.get_attribute(".place", "aria-setsize") == "31"
    page.locator(".cell").nth(2).click()
    page.wait_for_selector(".sides .frame img >> nth=1")


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


def test_a_photograph_leads_to_the_neurons_that_it_excites(page: Page, index: str, made: Walkable) -> None:
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
    assert line == f"vital look {made.atlas} PHOTO.jpg --layer {LATER} --out look --pages {folder}"
    _, asked, _ = command_line("look").parse_args(line.split()[1:])  # the command takes it
    assert asked.arguments["pages"] == str(folder)


@pytest.mark.parametrize(
    "asked", ["image:{}", "image:{}.JPEG", "{}.jpg", "photos/train/{}.png", r"C:\photos\{}.jpg", "IMAGE: {}"]
)
def test_a_photograph_is_asked_for_by_its_file_s_name(page: Page, index: str, asked: str) -> None:
    page.goto(f"{index}{WALL}?q=image:image00")
    page.wait_for_selector(".chosen li")
    key = page.locator(".chosen li a").first.inner_text()
    page.goto(f"{index}{WALL}?q={quote('image:' + key)}")
    page.wait_for_selector(".chosen > img")
    expected = cells(page)
    page.goto("about:blank")
    page.goto(f"{index}{WALL}?q={quote(asked.format(key))}")
    page.wait_for_selector(".chosen > img")
    assert cells(page) == expected
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


def test_a_word_of_a_label_finds_neurons_by_their_references(page: Page, index: str, made: Walkable) -> None:
    """Those of which a quarter of the references carry it, most first, as the store has them."""
    statistics = open_statistics(str(made.store))
    labels = statistics.image_labels()[statistics.references(LATER).image]
    there = np.flatnonzero(open_atlas(str(made.atlas)).layer(LATER).made()).tolist()
    for number, word in ((0, "cat"), (1, "label:dog &")):
        counts = {row: int((labels[row] == number).sum()) for row in there}
        expected = sorted((row for row, count in counts.items() if count >= 3), key=lambda row: (-counts[row], row))
        assert expected
        page.goto("about:blank")
        # the layer has no names, so that a word alone is of a label
        page.goto(f"{index}{WALL}?q={quote(word)}")
        assert [int(cell) for cell in cells(page)] == expected
