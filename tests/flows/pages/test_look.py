"""Photographs seen by an atlas's neurons: a reference of the data set comes out where its neuron has it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

import flows
from flows.cli.export import served
from flows.pages.atlas import Showing, write_gallery
from flows.pages.looking.page import LOOK_FOLDER, page_links, write_look
from flows.pages.looking.sights import Look, overlaid
from stores import Atlas, Statistics, open_atlas, open_statistics
from stores.errors import SchemaMismatch, UnsuitableFolder
from stores.pages.folder import SITE_FOLDER
from stores.shards.reading import read_images
from tests.flows import tiny
from tests.flows.command import vital
from tests.flows.conftest import LAYER, Made
from vital.errors import UnsuitableInput


@dataclass(frozen=True)
class Reference:
    """The strongest image of a neuron, as a file."""

    image: int
    neuron: int
    file: Path


def saved(statistics: Statistics, image: int, folder: Path) -> Path:
    places = statistics.places([image])
    [data] = read_images(str(statistics.shards().url[places.shard[0]]), [(int(places.offset[0]), int(places.size[0]))])
    file = folder / f"{statistics.keys([image])[0]}.jpg"
    file.write_bytes(data)
    return file


@pytest.fixture(scope="module")
def statistics(made: Made) -> Statistics:
    return open_statistics(str(made.store))


@pytest.fixture(scope="module")
def reference(statistics: Statistics, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    neuron = int(np.flatnonzero(statistics.references(LAYER).live())[0])
    image = int(statistics.references(LAYER).image[neuron, 0])
    return Reference(image, neuron, saved(statistics, image, tmp_path_factory.mktemp("photographs")))


@pytest.fixture(scope="module")
def look(made: Made, reference: Reference) -> Look:
    return flows.look(str(made.atlas), reference.file, layers=[LAYER], top=40)


def test_the_neurons_that_have_it_as_their_strongest_come_first(
    look: Look, statistics: Statistics, reference: Reference
) -> None:
    references = statistics.references(LAYER)
    first = set(np.flatnonzero(references.image[:, 0] == reference.image).tolist())
    assert reference.neuron in first
    assert {sight.neuron for sight in look[0].sights[: len(first)]} == first
    count = statistics.image_count()
    assert {sight.share for sight in look[0].sights[: len(first)]} == {(count - 1) / count}


def test_peak_patch_and_map_are_those_of_the_reference(
    look: Look, statistics: Statistics, reference: Reference
) -> None:
    references = statistics.references(LAYER)
    ranked = {sight.neuron: sight for sight in look[0].sights}
    for neuron, images in enumerate(references.image):
        for rank in np.flatnonzero(images == reference.image):
            sight = ranked[neuron]
            assert sight.activation == pytest.approx(float(references.score[neuron, rank]), rel=1e-5)
            assert sight.box == tuple(references.box[neuron, rank].tolist())
            assert sight.map is not None
            assert sight.map.max() == np.float32(sight.activation)
            assert int(sight.map.argmax()) == references.site[neuron, rank]
            # the middle of the strongest site lies in the patch
            assert sight.site is not None
            centres = [(index + 0.5) * len(look[0].pixels) / len(sight.map) for index in sight.site]
            top, left, height, width = sight.box
            assert top <= centres[0] <= top + height
            assert left <= centres[1] <= left + width


def test_share_and_deviations_are_counted_from_the_sample(look: Look, statistics: Statistics) -> None:
    sample = statistics.sample(LAYER)
    assert look.sampled == {LAYER: len(sample.image)}
    order = []
    for sight in look[0].sights:
        peaks = sample.peak[:, sight.neuron].astype(np.float64)
        # the photograph itself is among the sample, and is not below itself
        below = sum(peak < sight.activation and not np.isclose(peak, sight.activation) for peak in peaks.tolist())
        assert sight.share == pytest.approx(below / len(peaks), abs=1e-9)
        assert sight.deviations == pytest.approx((sight.activation - peaks.mean()) / peaks.std(), rel=1e-4)
        order.append((-sight.share, -sight.deviations))
    assert order == sorted(order)


def test_layers_look_together_and_classes_have_maps_of_relevance(made: Made, reference: Reference) -> None:
    both = flows.look(str(made.atlas), [reference.file, reference.file.parent], top=60)
    assert [seen.name for seen in both] == [str(reference.file)] * 2
    assert set(both.sampled) == {LAYER, "classes"}
    each = flows.look(str(made.atlas), reference.file, layers=[LAYER, "classes"], top=2, each=True)
    asked = [[sight.title for sight in both[0].sights if sight.layer == one][:2] for one in (LAYER, "classes")]
    assert [sight.title for sight in each[0].sights] == [*asked[0], *asked[1]]
    classes = [sight for sight in both[0].sights if sight.layer == "classes"]
    assert classes
    for sight in classes:
        assert sight.of.startswith("relevance at ")
        assert sight.map is not None
        assert sight.box == (0, 0, *both[0].pixels.shape[:2])
        assert sight.picture is not None


def test_it_prints_shows_itself_and_is_json(look: Look) -> None:
    lines = repr(look).splitlines()
    assert lines[1].split()[:3] == ["neuron", "name", "higher"]
    assert lines[2].split()[0] == f"{LAYER}:{look[0].sights[0].neuron}"
    html = look._repr_html_()
    assert html.count("<img") == 1 + 2 * 6
    told = json.loads(json.dumps(look.as_json(), allow_nan=False))
    first = told["photographs"][0]["neurons"][0]
    assert first["percentile"] == pytest.approx(100 * look[0].sights[0].share, abs=0.01)
    assert np.shape(first["map"]) == look[0].sights[0].map.shape  # type: ignore[union-attr]


def test_the_columns_stand_below_each_other_whatever_the_names_are(look: Look) -> None:
    """As a terminal shows them: 層 takes two columns, and a newline would begin another line."""
    names = ("cat", "layer\n1", "層", "e\u0301")
    sights = [replace(one, name=name) for one, name in zip(look[0].sights, names, strict=False)]
    table = repr(replace(look, photographs=(replace(look[0], sights=tuple(sights)),))).splitlines()
    assert len(table) == 2 + len(sights) + 1
    begins = [cell_len(line[: line.index("%")]) for line in table[2:-1]]
    assert len(sights) == len(names)
    assert len(set(begins)) == 1


def test_a_map_of_relevance_is_not_taken_for_the_layer_s_own(look: Look) -> None:
    own = replace(look[0].sights[0], map=np.eye(4, dtype=np.float32)[2:])
    assert own.cells()[-1] == "row 0, column 2 of 2 × 4"
    assert replace(own, of="relevance at 1").cells()[-1] == "row 0, column 2 of 2 × 4 by relevance at 1"


def test_an_overlay_is_bright_at_the_strongest_site_and_dark_where_there_is_nothing() -> None:
    pixels = np.full((32, 32, 3), 200, np.uint8)
    shown = overlaid(pixels, np.array([[-1.0, 0.0], [0.0, 4.0]], np.float32))
    assert shown[-1, -1, 0] == 200
    assert shown[0, 0, 0] == 40
    assert overlaid(pixels, np.full((2, 2), np.nan, np.float32)).max() == 40


@pytest.mark.slow
def test_the_page_has_everything_beside_it_and_links_into_the_pages(
    made: Made, look: Look, reference: Reference, tmp_path: Path
) -> None:
    pages = tmp_path / "p ages"
    write_gallery(str(made.atlas), pages)
    # pictures match whole images here, and the pages outline where the neuron is most active all the same
    layer, told = (
        json.loads((pages / SITE_FOLDER / "0" / LAYER / f"{part}.js").read_text("ascii").partition(",")[2][:-3])
        for part in ("layer", "neurons-0")
    )
    assert layer["whole"] is True
    boxes = open_statistics(str(made.store)).references(LAYER).box[3]
    np.testing.assert_allclose([photo[5] for photo in told["3"]["photos"]], boxes / tiny.SIDE, atol=1e-4)
    out = tmp_path / "look"
    links = page_links(pages, str(made.atlas), out)
    assert set(links) == {LAYER, "classes"}
    assert page_links(pages, f"elsewhere/{made.atlas.name}", out) == links
    with pytest.raises(UnsuitableFolder, match=r"and not of other\.zarr: write this atlas's"):
        page_links(pages, "other.zarr", out)
    index = write_look([look], out, [links])
    text = index.read_text("utf-8")
    assert f'href="../p%20ages/index.html#/0/{LAYER}/{reference.neuron}"' in text
    files = {part.partition('"')[0] for part in text.split('src="')[1:]}
    assert all((tmp_path / "look" / file).is_file() for file in files)
    assert len(files) == 1 + 2 * len(look[0].sights)
    # a later look replaces it, and nothing of the first stays
    few = Look(look.atlas, look.sampled, ())
    write_look([few], tmp_path / "look")
    assert list((tmp_path / "look" / LOOK_FOLDER).iterdir()) == []


def test_pages_elsewhere_are_linked_at_the_address_that_a_browser_opens(made: Made, tmp_path: Path) -> None:
    write_gallery(str(made.atlas), tmp_path, Showing(photos=False))
    with served(tmp_path) as url:
        links = page_links(f"{url}index.html", str(made.atlas), tmp_path)
        assert links[LAYER] == f"{url}index.html#/0/{LAYER}"
        with pytest.raises(UnsuitableFolder, match="holds no atlas's pages"):
            page_links(f"{url}none", str(made.atlas), tmp_path)
    listed = tmp_path / SITE_FOLDER / "site.js"
    listed.write_text(listed.read_text().replace('"folder"', '"place"'))  # as pages of version 6 have it
    with pytest.raises(UnsuitableFolder, match="are of an earlier version: write them again with `vital pages`"):
        page_links(tmp_path, str(made.atlas), tmp_path)
    with pytest.raises(UnsuitableFolder, match="s3://bucket/pages is no address that a browser opens"):
        page_links("s3://bucket/pages", str(made.atlas), tmp_path)


def test_a_program_asks_several_atlases_and_has_the_page_written(
    made: Made, look: Look, reference: Reference, tmp_path: Path
) -> None:
    both: list[Atlas | str | Path] = [open_atlas(str(made.atlas)), made.atlas]
    looks = flows.look(both, reference.file, layers=[LAYER], top=2, out=tmp_path / "look")
    assert [one.as_json() for one in looks] == [
        flows.look(made.atlas, reference.file, layers=[LAYER], top=2).as_json()
    ] * 2
    assert [sight.neuron for sight in looks[0][0].sights] == [sight.neuron for sight in look[0].sights[:2]]
    assert repr(looks).count(f"{made.atlas}\n{reference.file}") == 2
    assert looks._repr_html_().count("<h3>") == 2
    assert (tmp_path / "look" / "index.html").read_text("utf-8").count('<h2 class="atlas">') == 2
    with pytest.raises(UnsuitableInput, match="no atlas was given"):
        flows.look([], reference.file)


def test_other_pages_are_neither_replaced_nor_linked(made: Made, look: Look, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UnsuitableFolder, match="not of an earlier look"):
        write_look([look], tmp_path)
    with pytest.raises(UnsuitableFolder, match="holds no atlas's pages"):
        page_links(tmp_path, str(made.atlas), tmp_path)


@pytest.mark.slow
def test_the_command_prints_the_table_the_json_and_the_page(made: Made, reference: Reference, tmp_path: Path) -> None:
    words = ("look", reference.file, "--atlas", made.atlas, "--layer", LAYER, "--top", 2)
    plain = vital("look", made.atlas, reference.file, "--layer", LAYER, "--top", 2, "--out", tmp_path / "look")
    assert plain.exit_code == 0, plain.output
    assert plain.output.count(f"{LAYER}:") == 2
    assert plain.output.splitlines()[-1] == str(tmp_path / "look" / "index.html")
    [line] = vital(*words, "--json").output.splitlines()
    one = json.loads(line)
    assert len(one["photographs"][0]["neurons"]) == 2
    # of several atlases each looks for itself, and has its links
    write_gallery([str(made.atlas), str(shutil.copytree(made.atlas, tmp_path / "b.zarr"))], tmp_path / "pages")
    both = (*words, "--atlas", tmp_path / "b.zarr", "--pages", tmp_path / "pages", "--out", tmp_path / "look")
    [line] = vital(*both, "--json").output.splitlines()
    found = json.loads(line)["atlases"]
    assert [atlas["atlas"] for atlas in found] == [str(made.atlas), str(tmp_path / "b.zarr")]
    text = (tmp_path / "look" / "index.html").read_text("utf-8")
    for number, atlas in enumerate(found):
        for neuron, same in zip(atlas["photographs"][0]["neurons"], one["photographs"][0]["neurons"], strict=True):
            page = neuron.pop("page")
            assert page == f"../pages/index.html#/{number}/{LAYER}/{neuron['neuron']}"
            assert f'href="{page}"' in text
            assert same["page"] is None
            assert neuron == {name: value for name, value in same.items() if name != "page"}


def test_a_photograph_that_is_none_is_refused_before_a_network_is_loaded(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("flows.pages.looking.look.load_stored", loaded)
    (tmp_path / "notes.txt").write_text("no photograph")
    (tmp_path / "empty").mkdir()
    for photograph, why in (("notes.txt", "cannot be decoded"), ("none.jpg", "is not there"), ("empty", "no photogr")):
        result = vital("look", tmp_path / photograph, "--atlas", made.atlas)
        assert (result.exit_code, "Traceback" in result.output) == (1, False)
        assert why in result.output
        assert len(result.output.splitlines()) == 1
    with pytest.raises(UnsuitableInput, match="no photographs were given"):
        flows.look(str(made.atlas), [])
    with pytest.raises(SchemaMismatch, match="no layer 'nine'"):
        flows.look(open_atlas(str(made.atlas)), [np.zeros((40, 40, 3), np.uint8)], layers=["nine"])
    result = vital("look", tmp_path / "notes.txt", "--atlas", made.atlas, "--pages", tmp_path)
    assert result.exit_code == 2
    assert "--out" in result.output
