import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stores.pages import NeuronPage, Thumbnail, write_pages
from stores.sheets import contact_sheet, sheet_png

Jpeg = Callable[..., bytes]
EVIL = '<script>alert("1")</script>&'


def neuron(layer: str, number: int, thumbnails: list[Thumbnail] | None = None, **more: object) -> NeuronPage:
    pixels = np.full((16, 16, 3), 40 * number % 256, np.uint8)
    return NeuronPage(layer, number, str(more.get("name", f"neuron {number}")), pixels, thumbnails=thumbnails or [])


class Page(HTMLParser):
    """Links, sources, alternative texts and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.missing_alt = 0
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in found.items() if name in {"href", "src"} and value]
        self.missing_alt += tag == "img" and not found.get("alt")
        if tag not in {"img", "meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_folder_is_complete_and_needs_no_network(tmp_path: Path, jpeg: Jpeg) -> None:
    shared = Thumbnail(jpeg(9), "s/1", "Ada, CC0", "a bee")
    drawn = Thumbnail(np.full((8, 8, 3), 200, np.uint8), "../../2")
    neurons = [neuron("classes", 0, [shared, drawn]), neuron("classes", 7, [shared]), neuron("layer4.2", 0)]
    index = write_pages(tmp_path / "out", "Atlas", {"model": "resnet50"}, iter(neurons))
    assert index == tmp_path / "out/index.html"
    page = Page(index.read_text("utf-8"))
    assert page.open == []
    assert page.missing_alt == 0
    files = {link for link in page.links if not link.startswith("#")}
    assert files == {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*g")} | {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.webp")
    }
    assert len(list((tmp_path / "out/photos").iterdir())) == 2
    text = index.read_text("utf-8")
    assert not re.search(r"https?:|//|<script|url\(", text)
    assert "Ada, CC0" in text
    assert "prefers-color-scheme: dark" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert not (tmp_path / "out/.index.html").exists()


def test_everything_is_escaped(tmp_path: Path, jpeg: Jpeg) -> None:
    page = NeuronPage(
        f"../{EVIL}",
        1,
        EVIL,
        np.zeros((4, 4, 3), np.uint8),
        None,
        [Thumbnail(jpeg(), EVIL, EVIL, f'"{EVIL}')],
        {EVIL: EVIL},
    )
    text = write_pages(tmp_path / "out", EVIL, {EVIL: EVIL}, [page]).read_text("utf-8")
    assert "<script" not in text
    assert Page(text).open == []
    assert all(
        (tmp_path / "out").resolve() in path.resolve().parents for path in tmp_path.rglob("*.*") if path.is_file()
    )


def test_pictures_keep_their_opacity(tmp_path: Path) -> None:
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:8] = 255
    page = NeuronPage("layer4.2", 3, "n", np.full((16, 16, 3), 90, np.uint8), alpha)
    write_pages(tmp_path, "t", {}, [page, neuron("layer4.2", 4)])
    with Image.open(tmp_path / "pictures/layer4.2/00003.webp") as image:
        np.testing.assert_array_equal(np.asarray(image)[:, :, 3], alpha)
    with Image.open(tmp_path / "pictures/layer4.2/00004.webp") as image:
        assert image.mode == "RGB"


def test_neurons_are_streamed_and_nothing_is_an_atlas_too(tmp_path: Path) -> None:
    taken: list[int] = []

    def stream() -> Iterator[NeuronPage]:
        for number in range(4):
            # every earlier picture is on disk before the next neuron is asked for
            assert len(list(tmp_path.rglob("*.webp"))) == number
            taken.append(number)
            yield neuron("layer4.2", number)

    write_pages(tmp_path, "t", {}, stream())
    assert taken == [0, 1, 2, 3]
    empty = write_pages(tmp_path / "empty", "t", {}, [])
    assert "No pictures yet" in empty.read_text("utf-8")
    assert Page(empty.read_text("utf-8")).open == []


def test_writing_twice_gives_the_same_bytes(tmp_path: Path, jpeg: Jpeg) -> None:
    for name in ("a", "b", "b"):
        write_pages(tmp_path / name, "t", {"x": "y"}, [neuron("l", 1, [Thumbnail(jpeg(), "k", "c")])])
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_contact_sheet_shows_every_pair(jpeg: Jpeg, count: int) -> None:
    rows = [
        neuron("layer4.2", number + 1, [Thumbnail(jpeg(250), "k")], name="a name far too long for its cell " * 3)
        for number in range(count)
    ]
    sheet = contact_sheet(rows, "An atlas", columns=3, side=64, gap=20)
    pixels = np.asarray(sheet)
    assert sheet.width == (20 + min(max(count, 1), 3) * (2 * 64 + 2 + 20) if count else 20 + 64 + 20)
    if count:
        top = 20 + 4 * 11
        assert pixels[top + 30, 20 + 30].tolist() == [40, 40, 40]
        assert np.abs(pixels[top + 30, 20 + 64 + 2 + 30].astype(int) - 250).max() <= 2
    assert sheet_png(sheet) == sheet_png(sheet)
    assert sheet_png(sheet).startswith(b"\x89PNG")


def test_a_sheet_without_references_has_pictures_only() -> None:
    sheet = contact_sheet([neuron("l", 1), neuron("l", 2)], side=64, gap=20)
    assert sheet.width == 20 + 2 * (64 + 20)
