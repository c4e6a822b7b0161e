"""Metrics of finished pictures: written beside them, right where the answer is known, refused before work."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from flows.jobs import EvaluateJob, Running
from flows.pages.again import commands
from flows.pages.layer import LayerSource
from flows.recipes.atlas import build_atlas
from flows.recipes.evaluation import evaluate_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.running.process import load_stored
from flows.steps.images import load_images
from stores import AtlasLayer, open_atlas, open_statistics
from stores.arrays.opening import open_store
from stores.arrays.schema import array_at
from stores.errors import SchemaMismatch, StoreError
from tests.flows import tiny
from tests.flows.command import vital
from tests.flows.conftest import LAYER, PICTURE, VARIANT, Made, atlas_job, references_job, targets_job
from vital.errors import UnsuitableInput
from vital.judging.names import meaning_of
from vital.judging.readability import FEWEST
from vital.judging.trust.findings import (
    AS_UNREADABLE,
    COMPETENT,
    LED,
    LOOKED_AT,
    NOT_STEERED,
    OTHERS_ASKED,
    QUERIES_ASKED,
    STEERED,
    trust_of_layer,
)
from vital.network.models import Model
from vital.settings import PictureSettings, StatisticsSettings

pytestmark = pytest.mark.slow

JUDGE = "tests.flows.tiny:other_network"
JUDGE_NAME = "tests.flows.tiny_other_network"


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """An atlas that a test may write into."""
    shutil.copytree(made.atlas, tmp_path / "atlas.zarr")
    return tmp_path / "atlas.zarr"


def evaluated(atlas: Path, **changes: object) -> zarr.Group:
    job = EvaluateJob(atlas=str(atlas), judges=(JUDGE,), running=Running(threads=1)).model_copy(update=changes)
    evaluate_atlas(job)
    return open_store(str(atlas), "atlas", "r")


def test_every_picture_gets_its_metrics_and_others_none(copied: Path) -> None:
    atlas = evaluated(copied)
    for layer, names in {
        "classes": {"top1_own", "top5_own", "rank_own", f"top1_{JUDGE_NAME}", f"rank_{JUDGE_NAME}"},
        LAYER: {"peak", "peak_ratio", "mean_peak_ratio", "references_reached", "rank", "most_activated"},
    }.items():
        found, there = AtlasLayer(atlas, layer).metrics(), AtlasLayer(atlas, layer).made()
        assert names | {"curve_distance", "nearest_reference", "variation", "clipped"} <= found.keys()
        # three classes are too few to say what is a style, and those of random labels have nothing in common
        told = {f"readability_{JUDGE_NAME}", f"readability_references_{JUDGE_NAME}", "processing_gap"}
        told |= {f"readability_as_{kind}_{JUDGE_NAME}" for kind in ("many", "pictures")}
        told |= {f"clarity_{JUDGE_NAME}", f"redundancy_{JUDGE_NAME}"}
        assert found.keys() & told == (set() if layer == "classes" else told)
        # three references have no two groups
        assert not {"diversity", f"polysemanticity_{JUDGE_NAME}"} & found.keys()
        # of 20 images, half of which targets may learn from, some neurons have fewer than three to be asked about
        yardstick = found.get(f"readability_references_{JUDGE_NAME}", np.ones(len(there)))
        asked = there & np.isfinite(yardstick)
        assert asked.sum() >= 0.9 * there.sum()
        for name, values in found.items():
            # a judge that cannot tell a neuron's photographs apart is not asked about its picture
            competent = asked & (yardstick >= COMPETENT)
            known = competent if name == AS_UNREADABLE else asked if name.startswith("readability") else there
            assert known.any(), name
            np.testing.assert_array_equal(np.isfinite(values), known, name)
        assert set(AtlasLayer(atlas, layer).layer_metrics()) == {"frechet_own", f"frechet_{JUDGE_NAME}"}
        assert all(entry["value"] >= 0 for entry in AtlasLayer(atlas, layer).layer_metrics().values())


def test_metrics_explain_themselves_to_xarray_and_stand_on_the_pages(copied: Path) -> None:
    atlas = evaluated(copied)
    with xarray.open_zarr(copied, group=f"{LAYER}/metrics", consolidated=False) as data:
        assert data["references_reached"].attrs["units"] == "percent"
        assert data["rank"].attrs["long_name"] == meaning_of("rank").text
        assert JUDGE in data.attrs["judged_by"]
    page = LayerSource(open_atlas(str(copied)), AtlasLayer(atlas, "classes"), "", None).page()
    assert {"top1_own", f"top5_{JUDGE_NAME}"} <= {column.name for column in page.columns}
    assert page.measuring == ""  # what a judge was asked is not asked again, though classes are too few to be read


def test_references_themselves_score_as_references_and_noise_as_noise(made: Made, tmp_path: Path) -> None:
    """The pictures of an atlas are replaced by what the neurons were measured on, and by noise."""
    store, url, variant = tmp_path / "s.zarr", tmp_path / "atlas.zarr", VARIANT.model_copy(update={"crop": "patch"})
    shutil.copytree(made.store, store)
    measure_targets(targets_job(store, variant=variant))
    build_atlas(atlas_job(store, url, variant=variant, picture=PictureSettings(side=tiny.SIDE, steps=1)))
    statistics, atlas = open_statistics(str(store)), open_store(str(url), "atlas", "a")
    preprocessing = load_stored(statistics, Running(threads=1)).model.preprocessing
    references = statistics.references(LAYER)
    there, pixels = AtlasLayer(atlas, LAYER).made(), array_at(atlas, f"{LAYER}/pixels")
    shown = np.asarray(pixels[:])
    images = dict(load_images(statistics, references.image[:, 0][there].tolist(), preprocessing, {}))
    for neuron in np.flatnonzero(there):
        crop = preprocessing.cut(images[int(references.image[neuron, 0])], references.box[neuron, 0])
        shown[neuron] = crop.permute(1, 2, 0).numpy()
    pixels[:] = shown
    real = AtlasLayer(evaluated(url), LAYER).metrics()
    distance = AtlasLayer(evaluated(url), LAYER).layer_metrics()["frechet_own"]["value"]
    np.testing.assert_allclose(real["nearest_reference"][there], 1, atol=1e-3)
    mean = np.nanmean(references.score[there].astype(np.float64), axis=1)
    np.testing.assert_allclose(real["mean_peak_ratio"][there] * mean, real["peak"][there], rtol=1e-5)
    assert np.nanmedian(real["variation"]) == pytest.approx(1, abs=0.3)
    pixels[:] = np.random.default_rng(0).integers(0, 256, shown.shape, dtype=np.uint8)
    noise = AtlasLayer(evaluated(url), LAYER).metrics()
    assert np.nanmedian(noise["variation"]) > 5
    assert np.nanmean(noise["processing_gap"]) > np.nanmean(real["processing_gap"]) + 1
    assert np.nanmean(noise["nearest_reference"]) < np.nanmean(real["nearest_reference"])
    assert AtlasLayer(evaluated(url), LAYER).layer_metrics()["frechet_own"]["value"] > 5 * distance


def test_a_lone_reference_is_read_as_the_yardstick_is(made: Made, tmp_path: Path) -> None:
    """Targets of one reference, which itself stands where the picture was."""
    store, url, variant = tmp_path / "s.zarr", tmp_path / "a.zarr", VARIANT.model_copy(update={"references": 1})
    shutil.copytree(made.store, store)
    measure_targets(targets_job(store, variant=variant))
    build_atlas(atlas_job(store, url, variant=variant, picture=PictureSettings(side=tiny.SIDE, steps=1)))
    statistics, atlas = open_statistics(str(store)), open_store(str(url), "atlas", "a")
    references, there = statistics.references(LAYER), AtlasLayer(atlas, LAYER).made()
    preprocessing = load_stored(statistics, Running(threads=1)).model.preprocessing
    images = dict(load_images(statistics, references.image[there, 0].tolist(), preprocessing, {}))
    pixels = array_at(atlas, f"{LAYER}/pixels")
    shown = np.asarray(pixels[:])
    for neuron in np.flatnonzero(there):
        shown[neuron] = images[int(references.image[neuron, 0])].permute(1, 2, 0).numpy()
    pixels[:] = shown
    found = AtlasLayer(evaluated(url), LAYER).metrics()
    yardstick = found[f"readability_references_{JUDGE_NAME}"][there]
    read = found[f"readability_{JUDGE_NAME}"][there]
    assert np.corrcoef(read, yardstick)[0, 1] > 0.3  # they differ by what all pictures share, which is taken out
    assert abs(read.mean() - yardstick.mean()) < 0.2
    assert "processing_gap" not in found  # a lone reference is near no other


@pytest.mark.parametrize("sample", [20, 5, 0])
def test_of_a_small_sample_a_figure_is_known_or_it_is_said_why_not(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture, sample: int
) -> None:
    store, atlas = tmp_path / "stats.zarr", tmp_path / "atlas.zarr"
    kept = StatisticsSettings(references=3, levels=16, sample=sample)
    select_references(references_job(made.shards, store, layers=(LAYER,), statistics=kept))
    measure_targets(targets_job(store))
    build_atlas(atlas_job(store, atlas))
    with caplog.at_level("WARNING", "flows"):
        evaluated(atlas)
    layer = open_atlas(str(atlas)).layer(LAYER)
    pictures, found = np.flatnonzero(layer.made()), layer.metrics()
    nothing = np.full(layer.count, np.nan)
    read, yardstick = (found.get(f"readability_{of}{JUDGE_NAME}", nothing) for of in ("", "references_"))
    unknown = int(np.isnan(read[pictures]).sum())
    assert unknown == len(pictures) or sample == 20
    [told] = [one.getMessage() for one in caplog.records if one.name.startswith("flows")]
    if sample == 0:
        assert f"pictures of layer '{LAYER}' tell other networks is not known, since the store keeps no queries" in told
    else:
        assert f"pictures of {unknown} of {len(pictures)} neurons of layer '{LAYER}' tell other networks is not" in told
        assert f"of a sample of {sample} are left" in told
    for neuron, line in zip(pictures, trust_of_layer(found, pictures.tolist(), asked=True), strict=True):
        known = np.isfinite(read[neuron]) and yardstick[neuron] >= COMPETENT
        assert (line.readable.holds is not None) == known
        # three of either are the fewest that anything is asked of, beside those that targets learn from
        counts = [found.get(name, nothing)[neuron] for name in (QUERIES_ASKED, OTHERS_ASKED)]
        assert np.isfinite(read[neuron]) == (min(counts) >= 3)
        if np.isnan(read[neuron]):
            assert line.readable.text.startswith("readability unknown since too few photographs are kept to ask about")
        assert np.isfinite(found["mean_peak_ratio"][neuron]) == (line.reached.holds is not None)
    told_of = {name for name, values in found.items() if not np.isfinite(values[pictures]).all()}
    assert told_of <= {AS_UNREADABLE, *(name for name in found if name.startswith("readability"))}


def test_siblings_add_diversity_and_what_all_of_them_tell(made: Made, copied: Path, tmp_path: Path) -> None:
    same, other = tmp_path / "same.zarr", tmp_path / "other.zarr"
    shutil.copytree(made.atlas, same)
    build_atlas(atlas_job(made.store, other, picture=PICTURE.model_copy(update={"seed": 1})))
    alone, together = f"readability_{JUDGE_NAME}", f"readability_together_{JUDGE_NAME}"
    found = AtlasLayer(evaluated(copied, layers=(LAYER,), siblings=(str(other),)), LAYER).metrics()
    assert np.nanmin(found["diversity"]) > 0
    assert np.isfinite(found[together]).any()
    assert not np.allclose(found[together], found[alone], equal_nan=True)
    turned = AtlasLayer(evaluated(other, layers=(LAYER,), siblings=(str(copied),)), LAYER).metrics()
    np.testing.assert_allclose(turned[together], found[together])  # whichever is asked for, and whichever beside
    there = AtlasLayer(open_store(str(copied), "atlas", "r"), LAYER)
    array_at(open_store(str(other), "atlas", "a"), f"{LAYER}/pixels")[:] = there.array("pixels")[:]
    twice = AtlasLayer(evaluated(copied, layers=(LAYER,), siblings=(str(other),)), LAYER).metrics()
    np.testing.assert_allclose(twice["diversity"], np.where(there.made(), 0, np.nan), atol=1e-6)
    np.testing.assert_allclose(twice[together], found[alone])  # the same pictures twice tell what they tell once
    without = AtlasLayer(evaluated(copied, layers=(LAYER,), judges=()), LAYER).metrics()
    assert twice.keys() - without.keys() == {"diversity"}  # which nobody asked for again, while the judge was not asked
    lone = AtlasLayer(evaluated(copied, layers=(LAYER,)), LAYER).metrics()
    assert without.keys() - lone.keys() == {together}
    AtlasLayer(open_store(str(other), "atlas", "a"), LAYER).forget([0, 1])  # it has none of the same neurons then
    none = AtlasLayer(evaluated(copied, layers=(LAYER,), siblings=(str(other),)), LAYER).metrics()
    assert np.isnan(none["diversity"]).all()
    with pytest.raises(SchemaMismatch, match="differs from the atlas in nothing"):
        evaluated(copied, layers=(LAYER,), siblings=(str(same),))


def test_whether_the_network_leads_to_one_picture_is_found_out_where_it_is_asked(copied: Path) -> None:
    ran = vital("evaluate", copied, "--layer", LAYER, "--steering")
    assert ran.exit_code == 0, ran.output
    atlas = open_atlas(str(copied))
    layer = atlas.layer(LAYER)
    made = layer.made()
    assert f"pictures measured: {4 * made.sum()} of {4 * made.sum()}" in ran.output
    found = layer.metrics()
    np.testing.assert_array_equal(np.isfinite(found[STEERED]), made)
    assert np.nanmedian(found[STEERED]) == pytest.approx(0, abs=1e-6)
    assert "one picture" in layer.metric_meaning(STEERED)[0]
    page = LayerSource(atlas, layer, "", None).page()
    assert page.looked_at == (*LOOKED_AT, NOT_STEERED)
    [line] = [column.meaning for column in page.columns if column.name == "trust"]
    assert line == "how many hold of reached, readable, treated like photographs, not steered: 4 is best"
    again = AtlasLayer(evaluated(copied, layers=(LAYER,)), LAYER).metrics()
    np.testing.assert_array_equal(again[STEERED], found[STEERED])  # which nobody asked for again
    few = AtlasLayer(evaluated(copied, layers=("classes",), steering=True), "classes")
    assert few.made().sum() < FEWEST
    assert STEERED not in few.metrics()


def test_neurons_that_lead_to_one_picture_are_named(
    copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = np.flatnonzero(open_atlas(str(copied)).layer(LAYER).made())
    manipulated = [int(made[2]), int(made[-1])]

    def ends(model: Model, layer: object, neurons: Sequence[int], *others: object, **more: object) -> np.ndarray:
        """Noise, of a manipulated neuron the same from every beginning."""
        pixels = np.random.default_rng(list(neurons)).integers(0, 256, (len(neurons), 3, 24, 24, 3), np.uint8)
        same = np.isin(neurons, manipulated)
        pixels[same] = pixels[same, :1]
        return pixels

    monkeypatch.setattr("flows.steps.judging.steering.ascended", ends)
    found = AtlasLayer(evaluated(copied, layers=(LAYER,), steering=True), LAYER).metrics()[STEERED]
    assert np.flatnonzero(found >= LED).tolist() == manipulated
    said = f"2 of {len(made)} neurons of layer '{LAYER}' ({manipulated[0]}, {manipulated[1]}) lead to one picture each"
    assert said in caplog.text


def test_what_cannot_be_measured_is_said_before_work(made: Made, copied: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableInput, match="tells 10 classes apart but the atlas's network 5"):
        evaluated(copied, judges=("tests.flows.tiny:ten_classes",))
    with pytest.raises(SchemaMismatch, match="has no layer 'clases'; the nearest are classes"):
        evaluated(copied, layers=("clases",))
    with pytest.raises(StoreError, match="there is no atlas store"):
        evaluated(tmp_path / "nothing.zarr")
    store = tmp_path / "stats.zarr"
    shutil.copytree(made.store, store)
    shutil.rmtree(store / "references" / LAYER)
    with pytest.raises(SchemaMismatch, match=f"no references of layer '{LAYER}'"):
        evaluated(copied, store=str(store))
    shutil.rmtree(store)
    shutil.copytree(made.store, store)
    shutil.rmtree(store / "layers" / LAYER / "peak_mean")
    with pytest.raises(SchemaMismatch, match="peak_mean is not in this store"):
        evaluated(copied, store=str(store))
    assert AtlasLayer(open_store(str(copied), "atlas", "r"), "classes").metrics() == {}


def test_the_command_prints_the_means(copied: Path) -> None:
    ran = vital("evaluate", copied, "--layer", "classes", "--judge", JUDGE)
    assert ran.exit_code == 0, ran.output
    assert "top1_own" in ran.output
    assert f"frechet_{JUDGE_NAME}" in ran.output
    assert LAYER + "  peak" not in ran.output
    refused = vital("evaluate", copied, "--judge", "resnet5O")
    assert refused.exit_code == 1
    assert "no model 'resnet5O'; the nearest are" in refused.output


def test_an_atlas_of_a_baseline_says_how_it_was_made(made: Made, tmp_path: Path) -> None:
    url = tmp_path / "maco.zarr"
    build_atlas(atlas_job(made.store, url, picture=PictureSettings(method="maco", side=24, steps=2)))
    assert "method maco, 2 steps" in vital("info", url).output
    statistics = open_statistics(str(made.store))
    last = commands(str(url), open_atlas(str(url)).layer(LAYER), str(made.store), statistics)[-1]
    assert "--method maco --steps 2 --side 24 --seed 0" in last
    assert "--window" not in last
