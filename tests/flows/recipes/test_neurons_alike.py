"""Directions and sites are neurons like all others: measured, evaluated, reported and shown, with known answers.

The identity's directions are the channels themselves, and the site of a map of one site is its channel.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from flows.jobs import EvaluateJob, Running
from flows.pages.again import commands
from flows.pages.atlas import write_gallery
from flows.pages.layer import LayerSource
from flows.recipes.atlas import build_atlas
from flows.recipes.comparison import compare_methods
from flows.recipes.evaluation import evaluate_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.reports.plan import ReportJob
from stores import open_atlas, open_statistics
from stores.arrays.opening import open_store
from stores.arrays.schema import array_at, group_at
from stores.dataset.directions import read_matrix
from tests.flows import tiny
from tests.flows.conftest import LAYER, MODEL, Made, atlas_job, references_job, targets_job
from tests.flows.pages.test_pages import data
from tests.flows.recipes.test_pipeline import oracle_activations
from vital.judging.metrics import softened

pytestmark = pytest.mark.slow

POOLED, WIDTH = "3", 8
AXES, SITE, LONE = f"{LAYER}~axes", f"{LAYER}@1,6", f"{POOLED}@0,0"


@pytest.fixture(scope="module")
def alike(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The usual store and atlas with directions that are the channels, and a site; evaluated. Directions have the
    pictures of their channels."""
    here = Made(tmp_path_factory.mktemp("alike"))
    shutil.copytree(made.store, here.store)
    shutil.copytree(made.atlas, here.atlas)
    here.shards = made.shards
    np.save(here.store.parent / "axes.npy", np.eye(tiny.CHANNELS, dtype=np.float32))
    files = (str(here.store.parent / "axes.npy"),)
    select_references(references_job(made.shards, here.store, layers=(AXES, SITE, POOLED, LONE), directions=files))
    for layer in (AXES, SITE):
        measure_targets(targets_job(here.store, layer))
        build_atlas(atlas_job(here.store, here.atlas, layer))
    group = open_store(str(here.atlas), "atlas", "r+")
    for name, array in group_at(group, LAYER).members(max_depth=None):
        if name.startswith(("pixels", "reached/")) and isinstance(array, zarr.Array):
            array_at(group, f"{AXES}/{name}")[...] = array[...]
    evaluate_atlas(EvaluateJob(atlas=str(here.atlas), layers=(LAYER, AXES, SITE), running=Running(threads=1)))
    return here


@pytest.mark.parametrize(("layer", "same"), [(AXES, LAYER), (LONE, POOLED)])
def test_statistics_are_those_of_the_channels(alike: Made, layer: str, same: str) -> None:
    statistics = open_statistics(str(alike.store))
    mine, theirs = statistics.layer(layer), statistics.layer(same)
    assert {path.rpartition("/")[2] for path in set(theirs) - set(mine)} == {"quantiles", "level"}  # they are no nodes
    # A sum is kept in two parts, of which the lesser alone says nothing.
    for name in sorted(path for path in mine if not path.startswith("rests/")):
        rest = name.replace("sums/", "rests/", 1) if name.startswith("sums/") else ""
        found, expected = (part[name] + part.get(rest, 0) for part in (mine, theirs))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert list(statistics.dataset(layer)["peak_mean"].dims) == ["channel"]


def test_statistics_of_a_site_are_those_of_its_activations(alike: Made) -> None:
    """Nearly: Pillow's resize is not torch's."""
    statistics, seen = open_statistics(str(alike.store)), oracle_activations()[:, :, WIDTH + 6]
    np.testing.assert_allclose(statistics.statistic(SITE, "peak_mean"), seen.mean(0), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(statistics.statistic(SITE, "mean"), seen.mean(0), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(statistics.statistic(SITE, "peak_deviation"), seen.std(0), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(statistics.statistic(SITE, "active"), (seen > 0).mean(0), atol=0.051)


def test_metrics_of_directions_are_those_of_the_channels(alike: Made) -> None:
    atlas = open_atlas(str(alike.atlas))
    mine, theirs = (atlas.layer(name) for name in (AXES, LAYER))
    assert mine.made().sum() > 30
    np.testing.assert_array_equal(mine.made(), theirs.made())
    found, expected = mine.metrics(), theirs.metrics()
    assert {"peak", "peak_ratio", "references_reached", "rank", "most_activated", "nearest_reference"} < found.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4, err_msg=name)
    for name, entry in theirs.layer_metrics().items():
        assert mine.layer_metrics()[name]["value"] == pytest.approx(entry["value"], rel=1e-3)


def test_a_site_is_evaluated_where_it_is_read(alike: Made) -> None:
    """Peaks are the activations of the softened pictures at the site in the same position: row 1 of 8 is 1 of 6, column
    6 of 8 is 4."""
    part = open_atlas(str(alike.atlas)).layer(SITE)
    live = np.flatnonzero(part.made())
    assert len(live) > 20
    pixels = softened(torch.from_numpy(part.pixels(live.tolist())).permute(0, 3, 1, 2))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        maps = tiny.network().eval()[:3]((pixels / 255 - mean) / std)  # type: ignore[index]
    assert maps.shape[-2:] == (6, 6)
    peaks = np.array([maps[row, neuron, 1, 4] for row, neuron in enumerate(live)])
    metrics = part.metrics()
    np.testing.assert_allclose(metrics["peak"][live], peaks, rtol=1e-4, atol=1e-5)
    assert np.isfinite(metrics["rank"][live]).all()
    assert np.isnan(np.delete(metrics["peak"], live)).all()


def test_pages_show_how_often_and_how_strongly_they_are_active(alike: Made, tmp_path: Path) -> None:
    atlas, statistics = open_atlas(str(alike.atlas)), open_statistics(str(alike.store))
    shown = {
        layer: {
            column.name: column.values
            for column in LayerSource(atlas, atlas.layer(layer), "", statistics).page().columns
        }
        for layer in (LAYER, AXES, SITE)
    }
    for name in ("activation frequency", "mean peak", "rank"):
        np.testing.assert_allclose(shown[AXES][name], shown[LAYER][name], rtol=1e-5)
        assert name in shown[SITE]
    write_gallery(str(alike.atlas), tmp_path / "pages")
    site = data(tmp_path / "pages" / "vital-site" / "site.js")
    listed = {layer["name"]: layer["folder"] for layer in site["atlases"][0]["layers"]}
    assert set(listed) == {"classes", LAYER, AXES, SITE}
    for layer in (AXES, SITE):
        said = data(tmp_path / "pages" / "vital-site" / listed[layer] / "layer.js")
        assert {"activation frequency", "mean peak"} <= {column["name"] for column in said["columns"]}


def test_the_commands_on_a_page_find_the_directions_in_the_store(alike: Made, tmp_path: Path) -> None:
    statistics, pictures = open_statistics(str(alike.store)), open_atlas(str(alike.atlas)).layer(AXES)
    first = shlex.split(commands(str(alike.atlas), pictures, str(alike.store), statistics)[0])
    assert first[first.index("--layer") + 1] == AXES
    name, matrix = read_matrix(first[first.index("--directions") + 1])
    assert name == "axes"
    np.testing.assert_array_equal(matrix, np.eye(tiny.CHANNELS))


def test_a_store_made_before_gets_what_is_missing_by_the_same_command(alike: Made, made: Made, tmp_path: Path) -> None:
    """Earlier versions kept no statistics of such layers."""
    store = tmp_path / "stats.zarr"
    shutil.copytree(alike.store, store)
    statistics = open_statistics(str(store), "r+")
    statistics.unmark([AXES], [])
    shutil.rmtree(store / "layers" / AXES)
    file = str(alike.store.parent / "axes.npy")
    select_references(references_job(made.shards, store, layers=(AXES,), directions=(file,)))
    again, before = (open_statistics(str(url)).layer(AXES) for url in (store, alike.store))
    assert again.keys() == before.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(again[name], values)


def test_a_report_has_directions_and_sites(made: Made, alike: Made, tmp_path: Path) -> None:
    job = ReportJob(
        out=str(tmp_path / "report"), shards=(str(made.shards),), models=(MODEL,), layers=(AXES, SITE),
        directions=(str(alike.store.parent / "axes.npy"),), neurons="0:32", seeds=1, steps=2, side=24, references=3,
        methods=("vital",), judges=(), no_ablation=True, running=Running(threads=1),
    )  # fmt: skip
    page = Path(compare_methods(job))
    found = json.loads((page.parent / "report.json").read_text())
    for layer in (AXES, SITE):
        assert found["vital"][f"{layer}/peak"]["mean"] is not None
        for picture in ("metrics", "pictures"):
            with Image.open(page.parent / f"{layer}-{picture}.png") as image:
                assert image.width > 10
    assert f"neurons of {AXES}" in page.read_text()
