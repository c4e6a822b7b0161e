"""Names on pages: a neuron is found by its name, and its page says how sure that is and shows what speaks for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.pages.atlas import Showing, write_gallery
from stores import AtlasLayer, Naming, open_atlas, open_statistics
from stores.pages.folder import SITE_FOLDER
from tests.flows.browser import cells, launched, opened, wait_for_cells
from tests.flows.conftest import LAYER, Made

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=alert(1)>"


def data(path: Path) -> Any:
    return json.loads(path.read_text().partition(",")[2][:-3])


def naming(neurons: int, made: np.ndarray) -> Naming:
    """The first neuron with a picture is an owl, the second has markup for a name, the third nothing above its bound,
    and the others no word at all."""
    first, second, third = made[:3]
    word = np.full((neurons, 2), "", np.dtypes.StringDType())
    word[first], word[second], word[third, 0] = ("owl", "bird"), (EVIL, "bird"), "weak"
    score, rest = np.full((neurons, 2), np.nan, np.float32), np.full((neurons, 2), np.nan, np.float32)
    score[first], score[second], score[third, 0] = (0.8, 0.6), (0.7, 0.1), 0.2
    rest[word != ""] = 0.5
    return Naming(
        word, rest, score, rest, np.full(neurons, 0.4, np.float32), np.full(neurons, 0.1, np.float32),
        score[:, 0] > 0.4, np.tile(np.array([1, 5, 7]), (neurons, 1)),
        np.tile(np.array([3.5, 1, 0], np.float32), (neurons, 1)),
        {"source": "labels", "words": 9, "images_that_chose": 10, "images_that_scored": 8},
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """Pages of an atlas whose channels have names, and the neurons that have pictures."""
    folder = tmp_path_factory.mktemp("named")
    shutil.copytree(made.atlas, folder / "a.zarr")
    layer = AtlasLayer(open_atlas(str(folder / "a.zarr"), "r+").root, LAYER)
    there = np.flatnonzero(layer.made())
    layer.write_naming(naming(layer.count, there))
    write_gallery(str(folder / "a.zarr"), folder / "pages", Showing(store=str(made.store)))
    return folder / "pages", there.tolist()


def test_words_scores_and_photographs_are_written(made: Made, site: tuple[Path, list[int]]) -> None:
    folder, there = site
    said = data(folder / SITE_FOLDER / "0" / LAYER / "layer.js")
    assert data(folder / SITE_FOLDER / "0" / LAYER / "captions-0.js") == {str(there[0]): "owl", str(there[1]): EVIL}
    assert "2 of 40 neurons have a name, of 9 words by labels" in said["named"]
    place = [column["name"] for column in said["columns"]].index("name score")
    values = data(folder / SITE_FOLDER / "0" / LAYER / "values-0.js")
    assert [values[str(row)][place] for row in there[:4]] == [0.8, 0.7, None, None]
    neurons = data(folder / SITE_FOLDER / "0" / LAYER / "neurons-0.js")
    named, bound, rows, photos = neurons[str(there[0])]["words"]
    assert (named, bound) == (True, 0.4)
    assert rows == [["owl", 0.8, 0.5, 0.5], ["bird", 0.6, 0.5, 0.5]]
    assert [photo[1] for photo in photos] == open_statistics(str(made.store)).keys([1, 5, 7])
    assert [photo[2] for photo in photos] == [3.5, 1, 0]
    assert all((folder / SITE_FOLDER / "photos" / photo[0][:2] / f"{photo[0]}.jpg").is_file() for photo in photos)
    assert neurons[str(there[2])]["words"][0] is False
    assert neurons[str(there[3])]["words"][2] == []
    # a layer that nobody named says nothing of it
    assert data(folder / SITE_FOLDER / "0" / "classes" / "layer.js")["named"] == ""
    classes = data(folder / SITE_FOLDER / "0/classes/neurons-0.js")
    assert {one["words"] for number, one in classes.items() if number != "shared"} == {None}


def test_a_neuron_is_found_by_its_name_and_its_page_shows_the_evidence(site: tuple[Path, list[int]]) -> None:
    folder, there = site
    index = (folder / "index.html").as_uri()
    with launched() as browser, opened(browser) as page:
        page.goto(f"{index}#/0/{LAYER}")
        assert cells(page)[:3] == [f"{there[0]} owl", f"{there[1]} {EVIL}", str(there[2])]
        page.fill("#search", "OWL")
        assert wait_for_cells(page, 1) == [f"{there[0]} owl"]
        page.fill("#search", f"{there[2]}, owl")  # and not every channel whose number has such a digit
        assert wait_for_cells(page, 2) == [f"{there[0]} owl", str(there[2])]
        page.goto(f"{index}#/0/{LAYER}/{there[0]}")
        page.wait_for_selector(".naming")
        assert page.text_content("h1") == f"channel {there[0]}, owl"
        assert "“owl” scores 0.800 on images that had no part in the choice" in (page.text_content(".naming") or "")
        page.click(".naming summary")
        page.wait_for_function("() => document.querySelectorAll('.naming .photos img').length === 3")
        page.goto(f"{index}#/0/{LAYER}/{there[2]}")
        page.wait_for_function("() => document.querySelector('.naming').textContent.includes('No name: the best word')")
        assert page.text_content("h1") == f"channel {there[2]}"
