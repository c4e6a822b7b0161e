"""Neurons that mean two things: their references are told apart, and each group has a target and a picture."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from flows.cli.export import export, save_picture
from flows.jobs import EvaluateJob, ReferencesJob, Running, TargetsJob
from flows.pages.atlas import Showing, write_gallery
from flows.pages.layer import LayerSource
from flows.pages.looking.facets import middles
from flows.pages.looking.look import look_at
from flows.recipes.atlas import build_atlas
from flows.recipes.evaluation import evaluate_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.steps.images import reference_crops
from flows.steps.targets import ROW_STEPS, measuring, origin_of
from stores import Targets, open_atlas, open_statistics
from stores.atlas.origin import Origin
from stores.errors import ForeignStore, PictureStatus, SchemaMismatch
from tests.flows import coloured
from tests.flows.coloured import BLUE, GREEN, RED
from tests.flows.conftest import atlas_job
from tests.flows.recipes.test_pipeline import digests
from vital.errors import UnsuitableInput
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

pytestmark = pytest.mark.slow

LAYER = f"{coloured.LAYER}~sums"
JUDGE = "tests.flows.tiny:other_network"
REFERENCES = 14
VARIANT = VariantSettings(crop="image", facets="auto")
PICTURE = PictureSettings(side=16, steps=40)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coloured")
    np.save(folder / "sums.npy", coloured.directions())
    model = ModelSettings(name="tests.flows.coloured:network", input_size=coloured.SIDE)
    select_references(
        ReferencesJob(
            shards=(str(coloured.shards(folder / "shards")),), store=str(folder / "s.zarr"), model=model,
            layers=(LAYER,), directions=(str(folder / "sums.npy"),),
            statistics=StatisticsSettings(references=REFERENCES, levels=16),
        )
    )  # fmt: skip
    measure_targets(TargetsJob(store=str(folder / "s.zarr"), layer=LAYER, variant=VARIANT))
    return folder / "s.zarr"


@pytest.fixture(scope="module")
def atlas(store: Path) -> Path:
    out = store.with_name("a.zarr")
    build_atlas(atlas_job(store, out, LAYER, variant=VARIANT, picture=PICTURE))
    return out


def targets_of(store: Path, variant: VariantSettings = VARIANT) -> Targets:
    return open_statistics(str(store)).targets(LAYER, variant.label(False))


@pytest.mark.parametrize(("neuron", "colours"), [(1, {RED, BLUE}), (33, {GREEN, BLUE})])
def test_a_sum_of_two_channels_splits_into_the_references_of_either(
    store: Path, neuron: int, colours: set[int]
) -> None:
    targets = targets_of(store)
    assert targets.facets([neuron]).tolist() == [2]
    [of] = targets.rows([neuron], ["reference_facet"])["reference_facet"]
    colour = open_statistics(str(store)).references(LAYER, neurons=[neuron]).image[0] % 3
    assert [set(colour[of == facet]) for facet in (0, 1)] in ([{one}, {other}] for one in colours for other in colours)
    assert set(colour) == colours
    [p] = targets.rows([neuron], ["p_value"])["p_value"]
    assert p <= 0.01


def test_one_channel_keeps_one_facet_and_others_are_recorded_without(store: Path) -> None:
    targets = targets_of(store)
    assert targets.facets([0, 2]).tolist() == [1, 1]
    assert targets.status([0, 1, 2]).tolist() == [PictureStatus.MADE, PictureStatus.MADE, PictureStatus.DEAD]
    rows = targets.reference_facets([0])
    assert rows is not None
    assert (rows == 0).all()
    assert targets.rows([2], ["p_value"])["p_value"].tolist() == [1]
    lines = open_statistics(str(store)).summary()
    assert any(line.endswith("32 dead, 2 with 2 facets") or "2 with 2 facets" in line for line in lines)


def test_patches_tell_references_apart_and_targets_are_of_whole_images(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def watched(*given: Any) -> Any:
        asked.append(given[-1])
        return reference_crops(*given)

    monkeypatch.setattr(measuring, "reference_crops", watched)
    variant = VARIANT.model_copy(update={"facets": 3})
    measure_targets(TargetsJob(store=str(store), layer=LAYER, variant=variant, neurons="0:2"))
    assert asked == [False, True]  # whole images?


def test_targets_whose_facets_were_found_otherwise_are_read_and_not_added_to(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "s.zarr")
    group = zarr.open_group(tmp_path / "s.zarr", path=targets_of(store).path, mode="a")
    record: Any = group.attrs["variant"]
    group.attrs["variant"] = {**record, "fields": {**record["fields"], "facet_rule": 1}}
    job = TargetsJob(store=str(tmp_path / "s.zarr"), layer=LAYER, variant=VARIANT)
    with pytest.raises(ForeignStore, match=r"an earlier version .* facet_rule is 1, and 2 .* another number of --ref"):
        measure_targets(job)
    assert targets_of(tmp_path / "s.zarr").facets([1]).tolist() == [2]


def test_a_facet_s_target_is_the_mean_over_its_own_references(store: Path) -> None:
    """The same as of a neuron whose references these alone are: the mean of two is what the others would be."""
    whole = VariantSettings(crop="image")
    measure_targets(TargetsJob(store=str(store), layer=LAYER, variant=whole, neurons="0:2"))
    plain, grouped = targets_of(store, whole), targets_of(store)
    counts = np.asarray(grouped.array("count")[:2])
    assert counts.sum(1).tolist() == [REFERENCES, REFERENCES]
    np.testing.assert_array_equal(grouped.rows([0], ["own"])["own"], plain.rows([0], ["own"])["own"])
    for name in ("own", "0/quantiles", "0/relevant", "0/importance"):
        parts = [grouped.rows([1], [name], [facet])[name][0].astype(np.float64) for facet in (0, 1)]
        mean = sum(count * part for count, part in zip(counts[1], parts, strict=False)) / REFERENCES
        expected = plain.rows([1], [name])[name][0].astype(np.float64)
        # each stored row is off by half a step at most, of which it has at least `ROW_STEPS`
        step = max(np.ptp(rows, -1).max() for rows in (*parts, expected)) / ROW_STEPS if expected.ndim > 1 else 0
        np.testing.assert_allclose(mean, expected, rtol=3e-3, atol=1e-4 + step)
        assert np.abs(parts[0] - parts[1]).max() > 0.02 or name == "own"
    assert "facet" not in str(plain.claimed)  # as before there were any


def test_each_facet_has_a_picture_of_its_own_colour(store: Path, atlas: Path) -> None:
    pictures, targets = open_atlas(str(atlas)), targets_of(store)
    layer = pictures.layer(LAYER)
    assert layer.facets([0, 1, 2, 33]).tolist() == [1, 2, 1, 2]
    image = open_statistics(str(store)).references(LAYER, neurons=[1]).image[0]
    of = targets.reference_facets([1])
    assert of is not None
    for facet in (0, 1):
        picture = pictures[LAYER, 1, facet]
        assert picture.status == PictureStatus.MADE
        assert picture.title.endswith(f", facet {facet}")
        [colour] = set(image[of[0] == facet] % 3)
        strength = picture.pixels.reshape(-1, 3).mean(0)
        assert strength[colour] - strength[[RED + BLUE - colour]] > 8
    assert pictures[LAYER, 0].title == f"{LAYER}:0 neuron 0"
    with pytest.raises(SchemaMismatch, match=r"facet 1 of neuron 0 .* has 1, counted from 0: ask for 0"):
        pictures[LAYER, 0, 1]
    data = pictures.dataset(LAYER)
    assert data["pixels"].dims == ("neuron", "facet", "row", "column", "colour")
    assert np.isfinite(data["loss"].values).all(2).sum(1)[[0, 1, 2, 33]].tolist() == [1, 2, 0, 2]
    assert any("2 with 2 facets" in line for line in pictures.summary())


def test_every_picture_of_a_neuron_is_measured_and_means_stand_for_the_neuron(atlas: Path, tmp_path: Path) -> None:
    url = shutil.copytree(atlas, tmp_path / "a.zarr")
    pixels = open_atlas(str(url), "r+").layer(LAYER).array("pixels")
    shown = np.asarray(pixels[:])
    shown[1, 1] = (0, 255, 0)  # green, which does not excite the sum of red and blue
    pixels[:] = shown
    evaluate_atlas(EvaluateJob(atlas=str(url), judges=(JUDGE,), running=Running(threads=1)))
    layer = open_atlas(str(url)).layer(LAYER)
    of_facets, of_neurons = layer.facet_metrics(), layer.metrics()
    assert {"mean_peak_ratio", "clipped", "variation", "processing_gap", "curve_distance"} <= of_facets.keys()
    for name, values in of_facets.items():
        assert values.shape == (layer.count, layer.most_facets)
        assert np.isfinite(values[[0, 1, 33]]).sum(1).tolist() == [1, 2, 2], name
        np.testing.assert_allclose(np.nanmean(values[[0, 1, 33]], 1), of_neurons[name][[0, 1, 33]], rtol=1e-5)
    [seen, green] = of_facets["mean_peak_ratio"][1, :2]
    assert seen > 0.5
    assert abs(green) < 0.05
    assert of_facets["clipped"][1, 1] > of_facets["clipped"][1, 0]
    [page] = LayerSource(open_atlas(str(url)), layer, "", None).neurons([1], {})
    lines = [page.trust_of_first, page.facets[0].trust]
    assert [line.findings[0] for line in lines if line] == [True, False]
    assert "oes not reach its references" in lines[1].text  # type: ignore[union-attr]
    data = open_atlas(str(url)).dataset(LAYER)
    assert data["mean_peak_ratio_by_facet"].dims == ("neuron", "facet")


def test_the_pages_show_a_neuron_s_facets_together_and_exports_hold_them(atlas: Path, tmp_path: Path) -> None:
    write_gallery(str(atlas), tmp_path / "pages", Showing(maps=Running(threads=1)))
    folder = next((tmp_path / "pages").rglob("layer.js")).parent
    told = (folder / "neurons-0.js").read_text()
    data = json.loads(told[told.index(",") + 1 : told.rindex(")")])
    assert "facets" not in data["0"]
    [[references, photos, trust]] = data["1"]["facets"]
    assert trust is None  # nothing was evaluated
    assert references + data["1"]["references"] == REFERENCES
    colours = [{int(photo[1].removeprefix("p")) % 3 for photo in shown} for shown in (data["1"]["photos"], photos)]
    assert colours in ([{RED}, {BLUE}], [{BLUE}, {RED}])
    with Image.open(folder / "0" / "1-maps.png") as image:  # its further facet's photographs have the last maps
        maps = np.split(np.asarray(image), image.width // image.height, axis=1)
    assert len(maps) == sum(len(data["1"][of]) for of in ("photos", "across", "lowest")) + len(photos)
    assert all(own.max() > 0 for own in maps[-len(photos) :])
    assert sorted(path.name for path in folder.rglob("*facet*")) == ["1-facet1.webp", "33-facet1.webp"]
    assert all(next((tmp_path / "pages").rglob(f"{photo[0]}.jpg")).is_file() for photo in photos)
    told = (folder / "layer.js").read_text()
    columns = [one["name"] for one in json.loads(told[told.index(",") + 1 : told.rindex(")")])["columns"]]
    told = (folder / "values-0.js").read_text()
    rows = json.loads(told[told.index(",") + 1 : told.rindex(")")]).values()
    assert [row[columns.index("facets")] for row in rows] == [1, 2, 2]

    assert export(str(atlas), LAYER, "0:2", tmp_path / "out") == 3
    table = (tmp_path / "out" / "neurons.csv").read_text().splitlines()
    assert [line.split(",")[2:4] for line in table] == [["neuron", "facet"], ["0", "0"], ["1", "0"], ["1", "1"]]
    file = save_picture(str(atlas), LAYER, 1, tmp_path / "one.png", facet=1)
    np.testing.assert_array_equal(np.asarray(Image.open(file)), open_atlas(str(atlas))[LAYER, 1, 1].pixels)
    with pytest.raises(SchemaMismatch, match=r"facet 2 of neuron 1 .* ask for 0 to 1"):
        save_picture(str(atlas), LAYER, 1, tmp_path / "two.png", facet=2)


def test_facets_of_targets_on_the_fly_are_known_beside_their_pictures(store: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(store, tmp_path / "s.zarr", ignore=shutil.ignore_patterns("targets"))
    one = PICTURE.model_copy(update={"steps": 1})
    out = tmp_path / "a.zarr"
    build_atlas(atlas_job(bare, out, LAYER, neurons="0:3", variant=VARIANT, picture=one, targets="fly"))
    targets, origin = targets_of(store), origin_of(open_statistics(str(bare)), open_atlas(str(out)).layer(LAYER))
    assert isinstance(origin, Origin)
    np.testing.assert_array_equal(origin.reference_facets([0, 1]), targets.reference_facets([0, 1]))
    node = targets.nodes[-1]
    np.testing.assert_array_equal(middles(origin, node, 1, 2), middles(targets, node, 1, 2))
    assert middles(origin, node, 1, 2).any(1).all()
    shutil.rmtree(out / LAYER / "origin" / "reference_facet")  # not taken for references that were not grouped
    with pytest.raises(SchemaMismatch, match=r"origin/reference_facet is not in this store"):
        Origin(open_atlas(str(out)).layer(LAYER)).reference_facets([0, 1])


def test_blocks_that_were_lost_are_made_again_with_the_same_bytes(store: Path, atlas: Path, tmp_path: Path) -> None:
    again, other = shutil.copytree(store, tmp_path / "s.zarr"), shutil.copytree(atlas, tmp_path / "a.zarr")
    before = digests(store), digests(atlas)
    open_statistics(str(again), "r+").targets(LAYER, VARIANT.label(False)).forget([0, 1])
    open_atlas(str(other), "r+").layer(LAYER).forget([1])
    measure_targets(TargetsJob(store=str(again), layer=LAYER, variant=VARIANT))
    build_atlas(atlas_job(store, other, LAYER, variant=VARIANT, picture=PICTURE))
    assert (digests(again), digests(other)) == before


def test_a_layer_that_nothing_comes_before_has_no_facets(store: Path) -> None:
    job = TargetsJob(store=str(store), layer="0", variant=VariantSettings(facets=2))
    with pytest.raises((UnsuitableInput, SchemaMismatch), match=r"no layer comes before|no references of layer"):
        measure_targets(job)


def test_always_split_references_that_are_too_few_for_the_test_have_pictures_of_their_own(
    store: Path, tmp_path: Path
) -> None:
    variant = VariantSettings(crop="image", facets=2, split="always", references=8)
    measure_targets(TargetsJob(store=str(store), layer=LAYER, variant=variant, neurons="0:3"))
    targets = targets_of(store, variant)
    assert targets.variant == "image-lrp-8-split2"
    assert targets.facets([0, 1, 2]).tolist() == [1, 2, 1]  # the references of 0 do not differ at all, and 2 is dead
    build_atlas(atlas_job(store, tmp_path / "a.zarr", LAYER, neurons="0:3", variant=variant, picture=PICTURE))
    assert open_atlas(str(tmp_path / "a.zarr")).layer(LAYER).facets([0, 1, 2]).tolist() == [1, 2, 1]


def test_a_photograph_of_a_facet_leads_to_it_and_to_its_picture(store: Path, atlas: Path) -> None:
    """Every reference of a neuron of two colours, and photographs of these colours that are no reference."""
    opened, targets = open_atlas(str(atlas)), targets_of(store)
    images = open_statistics(str(store)).references(LAYER, neurons=[1]).image[0]
    of = targets.reference_facets([1])
    assert of is not None
    facet_of = {int(image) % 3: int(facet) for image, facet in zip(images, of[0], strict=True)}
    numbers = [*images.tolist(), 300 + RED, 300 + BLUE]
    photos = [Image.open(io.BytesIO(coloured.photograph(number))).convert("RGB") for number in numbers]
    look = look_at(opened, photos, top=99)
    for seen, number in zip(look, numbers, strict=True):
        sights = {sight.neuron: sight for sight in seen.sights}
        assert (sights[1].facet, sights[1].facets) == (facet_of[number % 3], 2)
        assert sights[1].picture is not None
        np.testing.assert_array_equal(sights[1].picture, opened[LAYER, 1, facet_of[number % 3]].pixels)
        assert sights[0].facets == 1
        assert sights[1].as_json()["facet"] == facet_of[number % 3]
    assert f"{facet_of[numbers[0] % 3]} of 0 to 1" in repr(look)
    # nothing of a green photograph reaches the neuron
    [green] = look_at(opened, [Image.open(io.BytesIO(coloured.photograph(GREEN))).convert("RGB")], top=99)
    [sight] = [sight for sight in green.sights if sight.neuron == 1]
    assert (sight.facet, sight.of_facets) == (None, "none of 0 to 1")
    assert (sight.site, sight.cells()[-1]) == (None, "nowhere")
