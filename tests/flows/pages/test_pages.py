"""The commands around pages, on a real atlas of a tiny network."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.cli.export import served
from flows.jobs import Running
from flows.pages import again as recipes
from flows.pages.atlas import Showing, titles, write_gallery
from flows.steps.pictures import ALGORITHMS
from flows.steps.targets import variant_of
from stores import open_atlas, open_statistics
from stores.arrays.opening import open_store
from stores.arrays.schema import array_at
from stores.pages.folder import SITE_FOLDER
from stores.pages.sheets import PER_SHEET
from tests.flows import walkable
from tests.flows.command import Result, vital
from tests.flows.walkable import CLASS_NAMES, EARLIER, EVIL, LATER, Walkable
from vital.settings import VariantSettings

pytestmark = pytest.mark.slow

SHOWING = Showing(credits={"image0001": "Ada, CC0"}, maps=Running(threads=1))


@pytest.fixture(scope="module")
def site(walked: Walkable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "pages"
    write_gallery(str(walked.atlas), out, SHOWING)
    return out


def refused(said: Result, *parts: str) -> None:
    assert said.exit_code == 1, said.output
    assert len(said.output.strip().splitlines()) == 1, said.output
    assert all(part in said.output for part in parts), said.output


def data(path: Path) -> Any:
    return json.loads(path.read_text().partition(",")[2][:-3])


def chunk(path: Path) -> dict[str, Any]:
    """Neurons of a chunk, with what they share in its place."""
    found = data(path)
    shared = found.pop("shared")
    for page in found.values():
        for name in ("across", "lowest"):
            page[name] = [
                [shared[place][0], shared[place][1], score, *shared[place][2:], *more]
                for place, score, *more in page[name]
            ]
    return dict(found)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_layer_half_finished_says_so(site: Path) -> None:
    said = data(site / SITE_FOLDER / "0" / LATER / "layer.js")
    status = data(site / SITE_FOLDER / "0" / LATER / "status.js")
    assert said["count"] == len(status)
    assert status[32:] == "0" * 8
    assert status[:32].count("1") == 31
    # the second block is not made yet, and one neuron of the first is dead
    assert said["missing"] == [[0, 8], [2, 1]]
    assert "zero on every image" in said["meanings"]["2"]
    assert {column["name"] for column in said["columns"]} == {
        "trust", "loss", "distance", "activation frequency", "mean peak", "rise", *walkable.trusted()
    }  # fmt: skip
    assert [column["meaning"] for column in said["columns"] if column["name"] == "rise"] == ["from 0 to 1"]


def test_how_far_a_picture_can_be_trusted_is_said_in_a_line_and_a_column(walked: Walkable, site: Path) -> None:
    said = data(site / SITE_FOLDER / "0" / LATER / "layer.js")
    neurons = data(site / SITE_FOLDER / "0" / LATER / "neurons-0.js")
    place = [column["name"] for column in said["columns"]].index("trust")
    values = data(site / SITE_FOLDER / "0" / LATER / "values-0.js")
    levels = {int(row): some[place] for row, some in values.items()}
    assert len(levels) == 31
    assert levels == {row: (row % 2 == 0) + (row % 4 == 0) + (row < 8) for row in levels}
    findings, sentence = neurons["4"]["trust"]
    assert findings == [True, True, True]
    assert sentence == (
        "Reaches its references (1.10 of their mean peak), readable (0.70, all references 0.75), treated like "
        "photographs (gap 0.10)."
    )
    assert neurons["9"]["trust"][0] == [False, None, False]
    assert said["measuring"] == f"vital evaluate {walked.atlas} --layer {LATER} --judge squeezenet"
    # nothing was measured of the layer before
    before = data(site / SITE_FOLDER / "0" / EARLIER / "layer.js")
    assert "trust" not in {column["name"] for column in before["columns"]}
    assert data(site / SITE_FOLDER / "0" / EARLIER / "neurons-0.js")["3"]["trust"] is None


def test_what_few_photographs_tell_is_no_column_of_neurons(walked: Walkable, site: Path) -> None:
    """Of one neuron it is mostly chance; a report compares its mean."""
    assert "readability_four_eye" in open_atlas(str(walked.atlas)).layer(LATER).metrics()
    columns = [column["name"] for column in data(site / SITE_FOLDER / "0" / LATER / "layer.js")["columns"]]
    assert "readability_references_eye" in columns
    assert "readability_four_eye" not in columns


def test_class_names_come_from_the_shards_folder(site: Path) -> None:
    said = data(site / SITE_FOLDER / "0" / "classes" / "layer.js")
    assert said["names"] is True
    names = data(site / SITE_FOLDER / "0" / "classes" / "captions-0.js")
    assert names == {row: CLASS_NAMES[int(row)] for row in names}
    photos = data(site / SITE_FOLDER / "0" / "classes" / "neurons-0.js")["1"]["photos"]
    assert {photo[3] for photo in photos} == {CLASS_NAMES[1]}
    assert all(photo[5] is None for photo in photos)
    assert EVIL in {photo[1] for photo in photos}


def test_a_neuron_has_its_sources_photographs_and_curves(walked: Walkable, site: Path) -> None:
    one = data(site / SITE_FOLDER / "0" / LATER / "neurons-0.js")["3"]
    assert [node for node, _, _ in one["sources"]] == ["1", "0"]
    store = open_store(str(walked.store), "statistics", "r")
    row = np.asarray(array_at(store, f"targets/{LATER}/patch-lrp/{EARLIER}/importance")[3])
    _, channels, shares = one["sources"][0]
    assert channels == np.argsort(-row, kind="stable")[: len(channels)].tolist()
    np.testing.assert_allclose(shares, row[channels], rtol=1e-3)
    assert [curve[0] for curve in one["curves"]] == ["input", "0", "1"]
    assert len(one["loss"]) == 3
    assert 1 <= len(one["photos"]) <= 9
    top, left, height, width = one["photos"][0][5]
    assert (height, width) == (0.2812, 0.2812)
    box = np.asarray(array_at(store, f"references/{LATER}/box")[3, 0])
    np.testing.assert_allclose([top, left], box[:2] / 32, atol=1e-4)
    for photo in one["photos"]:
        with Image.open(site / SITE_FOLDER / "photos" / photo[0][:2] / f"{photo[0]}.jpg") as image:
            assert image.size == (160, 160)


def test_maps_are_brightest_where_the_store_has_the_peak(walked: Walkable, site: Path) -> None:
    statistics = open_statistics(str(walked.store))
    neurons = chunk(site / SITE_FOLDER / "0" / LATER / "neurons-0.js")
    sites = statistics.references(LATER).site
    for neuron, page in neurons.items():
        assert page["maps"]
        with Image.open(
            site / SITE_FOLDER / "0" / LATER / str(int(neuron) // PER_SHEET) / f"{neuron}-maps.png"
        ) as image:
            strip = np.asarray(image)
        tiles = strip.reshape(8, -1, 8).swapaxes(0, 1)
        assert len(tiles) == len(page["photos"]) + len(page["across"]) + len(page["lowest"])
        for tile, rank in zip(tiles, range(len(page["photos"])), strict=False):
            assert tile[divmod(int(sites[int(neuron), rank]), 8)] == tile.max()
        # the best reference is the end of the scale, and what excites the neuron less is darker
        assert tiles[0].max() == 255
        scores = [photo[2] for photo in (*page["photos"], *page["across"])]
        peaks = [int(tile.max()) for tile in tiles]
        for place in range(1, len(scores)):
            assert peaks[place] <= 255 * max(0, scores[place]) / scores[0] + 1
    # classes have no map, and say nothing of an activation that was not measured
    photos = chunk(site / SITE_FOLDER / "0" / "classes" / "neurons-0.js")["1"]
    assert not photos["maps"]
    assert {photo[2] for photo in photos["photos"]} == {None}


def test_photographs_across_the_data_set_have_the_levels_they_say(walked: Walkable, site: Path) -> None:
    statistics = open_statistics(str(walked.store))
    sample = statistics.sample(LATER)
    rows = {key: row for row, key in enumerate(statistics.keys(sample.image.tolist()))}
    for neuron, page in chunk(site / SITE_FOLDER / "0" / LATER / "neurons-0.js").items():
        peaks = sample.peak[:, int(neuron)]
        assert page["across"]
        for _, key, score, _, _, box, above in page["across"]:
            peak = peaks[rows[key]]
            assert box is None
            assert score == pytest.approx(peak, rel=1e-3)
            assert above == pytest.approx(((peaks < peak).mean() + (peaks <= peak).mean()) / 2, abs=1e-3)
        scores = [photo[2] for photo in page["across"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] == pytest.approx(peaks.min(), rel=1e-3)


def test_lowest_photographs_are_shown_where_the_store_keeps_them(walked: Walkable, site: Path) -> None:
    statistics = open_statistics(str(walked.store))
    lowest = statistics.references(f"{LATER}/lowest")
    page = chunk(site / SITE_FOLDER / "0" / LATER / "neurons-0.js")["3"]
    assert [photo[1] for photo in page["lowest"]] == statistics.keys(lowest.image[3, :4].tolist())
    assert [photo[2] for photo in page["lowest"]] == pytest.approx(lowest.score[3, :4], rel=1e-3)


def test_credits_are_of_the_photographs_shown(walked: Walkable, tmp_path: Path) -> None:
    (tmp_path / "credits.csv").write_text('key,author,licence\nimage0001,"<i>Ada</i>",CC0\nunknown,Bob,CC0\n')
    said = vital("pages", walked.atlas, "--out", tmp_path / "out", "--credits", tmp_path / "credits.csv")
    assert said.exit_code == 0, said.output
    assert data(tmp_path / "out" / SITE_FOLDER / "credits.js") == [["image0001", "<i>Ada</i>, CC0"]]


def test_the_same_atlas_gives_the_same_bytes_and_a_second_run_writes_nothing(
    walked: Walkable, site: Path, tmp_path: Path
) -> None:
    write_gallery(str(walked.atlas), tmp_path / "again", SHOWING)
    assert contents(tmp_path / "again") == contents(site)
    times = {path: path.stat().st_mtime_ns for path in site.rglob("*") if path.is_file()}
    write_gallery(str(walked.atlas), site, SHOWING)
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*") if path.is_file()} == times


def test_atlases_of_one_name_are_told_apart() -> None:
    assert titles(["a/x/one.zarr", "b/x/one.zarr/"]) == ["a/x/one", "b/x/one"]
    assert titles(["s3://me:secret@host/one.zarr", "two"]) == ["one", "two"]
    assert titles(["one.zarr", "one.zarr"]) == ["one (1)", "one (2)"]


def test_an_atlas_without_pictures_is_refused(tmp_path: Path) -> None:
    open_store(str(tmp_path / "a.zarr"), "atlas", "a")
    refused(vital("pages", tmp_path / "a.zarr", "--no-references", "--out", tmp_path / "out"), "no finished picture")
    refused(vital("pages", tmp_path / "no.zarr", "--out", tmp_path / "out"), "no.zarr")
    assert not (tmp_path / "out").exists()


def test_the_commands_on_a_page_lead_to_the_same_settings(walked: Walkable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line is taken by the command, and gives the settings that the stores have recorded."""
    jobs: dict[str, Any] = {}
    monkeypatch.setattr("flows.recipes.references.select_references", lambda job: jobs.update(references=job))
    monkeypatch.setattr("flows.recipes.targets.measure_targets", lambda job: jobs.update(targets=job) or "patch-lrp")
    monkeypatch.setattr("flows.recipes.atlas.build_atlas", lambda job: jobs.update(atlas=job))
    pictures, statistics = open_atlas(str(walked.atlas)).layer(LATER), open_statistics(str(walked.store))
    monkeypatch.setattr("flows.recipes.evaluation.evaluate_atlas", lambda job: jobs.update(evaluate=job) or job.atlas)
    measuring = recipes.measuring(str(walked.atlas), LATER, statistics)
    for line in (*recipes.commands(str(walked.atlas), pictures, str(walked.store), statistics), measuring):
        words = shlex.split(line.replace(recipes.NEURON, "3"))
        assert words[0] == "vital"
        said = vital(*words[1:])
        assert said.exit_code == 0, said.output
    assert (jobs["evaluate"].atlas, jobs["evaluate"].layers) == (str(walked.atlas), (LATER,))
    assert jobs["references"].shards == (str(walked.shards),)
    assert jobs["references"].statistics.references == 12
    assert jobs["references"].statistics.levels == 16
    assert jobs["references"].model.input_size == 32
    recorded = variant_of(statistics.targets(LATER, "patch-lrp"))
    assert jobs["targets"].variant.model_copy(update={"nodes": ()}) == recorded.model_copy(update={"nodes": ()})
    assert jobs["targets"].variant.nodes == ("0", "1")
    assert jobs["atlas"].variant.label(False) == "patch-lrp"
    settings = jobs["atlas"].picture.model_dump(mode="json")
    assert {"variant": "patch-lrp", "algorithm": ALGORITHMS["vital"], **settings} == pictures.settings


@pytest.mark.parametrize("kind", ["lrp", "lrp-restricted", "gradient-x-activation"])
@pytest.mark.parametrize("crop", ["patch", "image"])
@pytest.mark.parametrize("count", [None, 4])
@pytest.mark.parametrize(("facets", "split"), [(1, "tested"), ("auto", "tested"), (4, "always")])
def test_a_variant_is_named_by_its_label_alone(
    kind: Any, crop: Any, count: int | None, facets: Any, split: Any
) -> None:
    variant = VariantSettings(crop=crop, relevance=kind, references=count, facets=facets, split=split)
    said = recipes._variant_options(None, LATER, variant.label(False))
    pairs = dict(zip(said[::2], said[1::2], strict=True))
    more = (["--references", "4"] if count else []) + (["--facets", "4"] if facets != 1 else [])
    more += ["--split", "always"] if split == "always" else []
    assert pairs == {"--crop": crop, "--relevance": kind} | dict(zip(more[::2], more[1::2], strict=True))
    classes = recipes._variant_options(None, "classes", variant.label(True))
    assert classes == more


def test_pages_are_served_on_this_machine_only(site: Path) -> None:
    with served(site) as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == (site / "index.html").read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}{SITE_FOLDER}/")
        port = url.rstrip("/").rpartition(":")[2]
        refused(vital("view", site, "--no-browser", "--port", port), port, "--port")


def test_view_needs_pages(tmp_path: Path) -> None:
    refused(vital("view", tmp_path), "no pages", "vital pages")


def test_view_ends_when_it_is_asked_to(site: Path) -> None:
    command = [sys.executable, "-u", "-m", "flows.cli.main", "view", str(site), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
        # not SIGINT, which a test run in the background of a shell ignores, and what it starts does too
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
