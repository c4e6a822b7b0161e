import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stores.arrays.opening import open_store
from stores.errors import UnsuitableFolder
from stores.pages.content import AtlasPage, Column, Curve, LayerPage, NeuronPage, Photo, Sources, TrustLine
from stores.pages.data.values import number, script
from stores.pages.folder import SITE_FOLDER
from stores.pages.sheets import PER_SHEET, TILES
from stores.pages.website import SCRIPTS, STYLES, Site, folder_name

Jpeg = Callable[..., bytes]
EVIL = '</script><img src=x onerror=alert(1)>&"\u2028\udcff'
LAYER = "layer4.2"


def neuron(place: int, colour: int = 40, **more: Any) -> NeuronPage:
    row = np.linspace(0, 1, 100, dtype=np.float32)
    made = NeuronPage(
        place,
        np.full((16, 16, 3), colour, np.uint8),
        np.full((16, 16), 128, np.uint8),
        np.array([3, 2, np.nan], np.float32),
        7,
        [Curve("conv1", row, row + 1)],
        [Sources("conv1", [3, 1], [1.0, 0.25])],
        [Photo("ab12", "a/key", 3.5, "bee", "Ada, CC0", (0.25, 0.5, 0.25, 0.25))],
    )
    return replace(made, **more)


def layer(status: Sequence[int] = (1, 1, 0), name: str = LAYER, **more: Any) -> LayerPage:
    codes = np.array(status, np.uint8)
    columns = [Column("loss", "the last loss", np.linspace(0, 1, len(codes)))]
    return replace(LayerPage(name, 16, codes, {0: "not made yet", 1: "made"}, columns=columns), **more)


def write(
    out: Path,
    pool: ThreadPoolExecutor,
    neurons: Sequence[NeuronPage],
    page: LayerPage,
    photos: Mapping[str, bytes],
    title: str = "Atlas",
) -> list[bool]:
    """One atlas of one layer; says which chunks were written."""
    site = Site(out, title, [AtlasPage("one", "one.zarr", {"model": "m"})], pool)
    chunks: dict[int, list[NeuronPage]] = {}
    for one in neurons:
        chunks.setdefault(one.neuron // PER_SHEET, []).append(one)
    written = [
        site.chunk(0, page.name, sheet, part, lambda names: {name: photos[name] for name in names})
        for sheet, part in chunks.items()
    ]
    site.layer(0, page)
    site.credits({"a/key": "Ada, CC0"} if photos else {})
    assert site.close() == out / "index.html"
    return written


def data(path: Path) -> Any:
    """What a data script hands to the page."""
    found = re.fullmatch(r"VITAL\.put\((\"[^\"]*\"),(.*)\);\n", path.read_text("ascii"), re.DOTALL)
    assert found
    return json.loads(found[2])


def unpacked(text: str, kind: str) -> list[Any]:
    return list(np.frombuffer(base64.b64decode(text), f"<{kind}").tolist())


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [value for name, value in found.items() if name in {"href", "src"} and value]
        self.inline += (tag == "script" and "src" not in found) or any(name.startswith("on") for name in found)


def test_the_folder_is_complete_and_names_no_other_place(tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg) -> None:
    write(tmp_path, pool, [neuron(0), neuron(1, 90)], layer(), {"ab12": jpeg(9)})
    page = Page((tmp_path / "index.html").read_text("utf-8"))
    files = [link for link in page.links if not link.startswith("#")]
    assert {f"{SITE_FOLDER}/page/{name}" for name in (*SCRIPTS, *STYLES)} | {f"{SITE_FOLDER}/site.js"} == set(files)
    assert all((tmp_path / link).is_file() for link in files)
    assert page.inline == 0
    for path in tmp_path.rglob("*"):
        if path.suffix in {".html", ".css", ".js"}:
            text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?:|//[a-z]+\.|fetch\(|import |innerHTML|type=\"module\"", text), path
    here = tmp_path / SITE_FOLDER / "0" / LAYER
    assert {path.relative_to(here).as_posix() for path in here.rglob("*.*")} == {
        "layer.js", "status.js", "column-0.js", "values-0.js", "neurons-0.js",
        "sheet-0-small.webp", "sheet-0-middle.webp",
        "0/0.webp", "0/0-mask.webp", "0/1.webp", "0/1-mask.webp",
    }  # fmt: skip
    assert (tmp_path / SITE_FOLDER / "photos/ab/ab12.jpg").read_bytes() == jpeg(9)
    assert not list(tmp_path.rglob("*unfinished"))


def test_what_the_scripts_say_of_a_layer_and_a_neuron(tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg) -> None:
    coordinates = np.array([[0, 1], [0.5, 0.25], [0, 0]])
    page = layer(coordinates=coordinates, names=["a", "b", "c"], looked_at=["reached"], measuring="vital evaluate")
    across = [Photo("cd34", "b", 1.5, above=0.9)]
    neurons = [neuron(0), neuron(1, trust=TrustLine([True, False, None], "Reached."), across=across)]
    write(tmp_path, pool, neurons, page, {"ab12": jpeg(), "cd34": jpeg()})
    folder = tmp_path / SITE_FOLDER / "0" / LAYER
    overview = data(folder / "layer.js")
    assert overview["count"] == 3
    assert unpacked(overview["made"], "u1") == [0b011]
    assert data(folder / "status.js") == "110"
    assert data(folder / "captions-0.js") == {"0": "a", "1": "b"}
    assert data(folder / "values-0.js") == {"0": [0], "1": [0.5]}
    assert [unpacked(row, "u2") for row in data(folder / "coordinates.js")] == [[0, 5000, 0], [9999, 2500, 0]]
    assert unpacked(data(folder / "name-order.js"), "u4") == [0, 1]
    assert overview["missing"] == [[0, 1]]
    assert overview["columns"] == [{"name": "loss", "meaning": "the last loss", "units": "", "ends": [0, 0.5]}]
    np.testing.assert_array_equal(unpacked(data(folder / "column-0.js"), "f4"), [0, 0.5, np.nan])
    assert (overview["lookedAt"], overview["measuring"]) == (["reached"], "vital evaluate")
    chunk = data(tmp_path / SITE_FOLDER / "0" / LAYER / "neurons-0.js")
    one = chunk["1"]
    assert one["loss"] == [3, 2, None]
    assert one["sources"] == [["conv1", [3, 1], [1, 0.25]]]
    assert one["trust"] == [[True, False, None], "Reached."]
    assert chunk["shared"] == [["cd34", "b", "", ""]]
    assert one["across"] == [[0, 1.5, None, 0.9]]
    assert (one["lowest"], one["maps"]) == ([], False)
    assert one["photos"] == [["ab12", "a/key", 3.5, "bee", "Ada, CC0", [0.25, 0.5, 0.25, 0.25]]]
    node, low, high, target, picture = one["curves"][0]
    assert (node, low, high) == ("conv1", 0, 2)
    assert (len(target), target[0], target[-1], picture[0], picture[-1]) == (36, 0, 500, 500, 999)
    assert data(tmp_path / SITE_FOLDER / "credits.js") == [["a/key", "Ada, CC0"]]


def test_nothing_can_leave_a_script_or_the_folder(tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg) -> None:
    photo = Photo("ab12", EVIL, 1.0, EVIL, EVIL)
    name = f"../../{EVIL}"
    page = layer((1,), name, names=[EVIL], facts={EVIL: EVIL}, commands=[EVIL])
    write(tmp_path / "out", pool, [neuron(0, photos=[photo])], page, {"ab12": jpeg()}, EVIL.replace("\udcff", ""))
    for path in (tmp_path / "out").rglob("*.js"):
        if path.parent.name != "page":
            assert not re.search(rb"[<>&\x80-\xff]", path.read_bytes()), path
    html = (tmp_path / "out/index.html").read_text("utf-8")
    assert "<img" not in html
    assert Page(html).inline == 0
    assert data(next(tmp_path.rglob("neurons-0.js")))["0"]["photos"][0][1] == EVIL
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["layer4.2", "classes"])
def test_a_safe_layer_keeps_its_name(name: str) -> None:
    assert folder_name(name) == name


def test_unsafe_layers_stay_apart() -> None:
    names = ["a/b", "a b", "..", "", "a" * 300, "a" * 301, EVIL]
    places = {folder_name(name) for name in names}
    assert len(places) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.~-]{1,100}", place) and not place.startswith(".") for place in places)


def test_pictures_lie_at_their_place_of_the_sheet(tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg) -> None:
    made = [neuron(PER_SHEET + 1, 10), neuron(PER_SHEET + 9, 240)]
    write(tmp_path, pool, made, layer([0] * 65 + [1] + [0] * 7 + [1]), {"ab12": jpeg()})
    for size, (side, _) in TILES.items():
        with Image.open(tmp_path / SITE_FOLDER / "0" / LAYER / f"sheet-1-{size}.webp") as sheet:
            pixels = np.asarray(sheet.convert("RGB")).astype(int)
        middle = side // 2
        assert abs(pixels[middle, side + middle] - 10).max() < 6
        assert abs(pixels[side + middle, side + middle] - 240).max() < 6
        assert abs(pixels[middle, middle] - 128).max() < 6


def test_an_opaque_picture_has_no_mask(tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg) -> None:
    write(tmp_path, pool, [neuron(0, alpha=None)], layer((1,)), {"ab12": jpeg()})
    assert not list(tmp_path.rglob("*-mask.webp"))
    assert data(next(tmp_path.rglob("neurons-0.js")))["0"]["mask"] is False


def test_maps_lie_side_by_side_and_are_made_when_their_chunk_is(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    tiles = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    asked: list[str] = []

    def maps() -> Mapping[int, np.ndarray]:
        asked.append("maps")
        return {5: tiles}

    def chunk(made_of: str) -> bool:
        site = Site(tmp_path, "Atlas", [AtlasPage("one", "one.zarr")], pool)
        page = neuron(5, photos=(), maps_of=made_of)
        written = site.chunk(0, LAYER, 0, [page], lambda names: {}, maps)
        site.close()
        return written

    file = tmp_path / SITE_FOLDER / "0" / LAYER / "0/5-maps.png"
    assert [chunk("a"), chunk("a")] == [True, False]
    assert asked == ["maps"]
    with Image.open(file) as image:
        np.testing.assert_array_equal(np.asarray(image), np.concatenate(list(tiles), axis=1))
    # another network's maps of the same photographs are others
    assert chunk("b")
    assert asked == ["maps", "maps"]


def test_a_second_run_touches_only_what_changed(tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg) -> None:
    neurons = [neuron(0), neuron(1), neuron(PER_SHEET)]
    page = layer([1, 1] + [0] * (PER_SHEET - 2) + [1])
    assert write(tmp_path, pool, neurons, page, {"ab12": jpeg()}) == [True, True]
    before = state(tmp_path)
    assert write(tmp_path, pool, neurons, page, {}) == [False, False]
    without_credits = state(tmp_path)
    assert {name for name in before if before[name] != without_credits.get(name)} == {
        f"{SITE_FOLDER}/credits.js", f"{SITE_FOLDER}/site.js"
    }  # fmt: skip
    neurons[1] = neuron(1, 200)
    assert write(tmp_path, pool, neurons, page, {}) == [True, False]
    after = state(tmp_path)
    assert {name for name in after if after[name] != without_credits[name]} == {
        f"{SITE_FOLDER}/0/{LAYER}/0/1.webp", f"{SITE_FOLDER}/parts/0-{LAYER}-0.json",
        f"{SITE_FOLDER}/0/{LAYER}/sheet-0-small.webp", f"{SITE_FOLDER}/0/{LAYER}/sheet-0-middle.webp",
    }  # fmt: skip


def test_a_run_that_was_killed_is_made_good(tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg) -> None:
    photos = {"ab12": jpeg()}
    write(tmp_path, pool, [neuron(0)], layer((1,)), photos)
    whole = {name: content for name, (content, _) in state(tmp_path).items()}

    def killed(names: Sequence[str]) -> Mapping[str, bytes]:
        raise KeyboardInterrupt

    site = Site(tmp_path, "Atlas", [AtlasPage("one", "one.zarr", {"model": "m"})], pool)
    with pytest.raises(KeyboardInterrupt):
        site.chunk(0, LAYER, 0, [neuron(0, 99)], killed)
    # the old data is not taken for written: its record went before the files
    assert write(tmp_path, pool, [neuron(0)], layer((1,)), photos) == [True]
    assert {name: content for name, (content, _) in state(tmp_path).items()} == whole
    (tmp_path / SITE_FOLDER / "0" / LAYER / "0/0.webp").unlink()
    assert write(tmp_path, pool, [neuron(0)], layer((1,)), photos) == [True]
    assert {name: content for name, (content, _) in state(tmp_path).items()} == whole


def test_what_is_left_over_goes_and_what_is_not_ours_stays(
    tmp_path: Path, pool: ThreadPoolExecutor, jpeg: Jpeg
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mine.jpg").write_bytes(b"mine")
    write(tmp_path, pool, [neuron(0), neuron(1)], layer(), {"ab12": jpeg()})
    write(tmp_path, pool, [neuron(0, photos=())], layer((1, 0, 0)), {})
    names = set(state(tmp_path))
    assert "photos/mine.jpg" in names
    assert not [name for name in names if name.endswith(".jpg") and name.startswith(SITE_FOLDER)]
    assert f"{SITE_FOLDER}/0/{LAYER}/0/1.webp" not in names
    assert not (tmp_path / SITE_FOLDER / "photos").exists()


def test_another_s_index_page_is_not_written_over(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UnsuitableFolder, match=r"index\.html that is not of an atlas's pages; give a new folder"):
        Site(tmp_path, "Atlas", [], pool)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


@pytest.mark.parametrize("folder", ["a.zarr", "a.zarr/pages"])
def test_pages_are_not_written_into_a_store(tmp_path: Path, pool: ThreadPoolExecutor, folder: str) -> None:
    open_store(str(tmp_path / "a.zarr"), "atlas", "a")
    with pytest.raises(UnsuitableFolder, match=r"lies in the store at .*a\.zarr, .*: give a folder outside"):
        Site(tmp_path / folder, "Atlas", [], pool)
    assert not list(tmp_path.rglob(SITE_FOLDER))


@pytest.mark.parametrize(("value", "short"), [(1 / 3, 0.3333), (1e-9, 1e-9), (np.inf, None), (np.nan, None), (5.0, 5)])
def test_numbers_are_short_and_legal(value: float, short: float | None) -> None:
    assert number(value) == short
    assert json.loads(script("k", [number(value)]).decode().partition(",")[2][:-3]) == [short]
