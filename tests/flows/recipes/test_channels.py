"""A network of five channels over images of five bands, from shards to pages: a neuron's picture is bright in the band
that it means, and people are shown the channels that were asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flows.jobs import AtlasJob, EvaluateJob, ReferencesJob, TargetsJob
from flows.pages.atlas import Showing, write_gallery
from flows.pages.looking.look import look_at
from flows.recipes.atlas import build_atlas
from flows.recipes.evaluation import evaluate_atlas
from flows.recipes.references import select_references
from flows.recipes.targets import measure_targets
from flows.steps.targets.measuring import TaskReferences
from stores import Atlas, Statistics, open_atlas, open_statistics
from stores.errors import UnreadableShard
from tests.flows import banded
from tests.flows.banded import BANDS, EACH, LAYER, SIDE
from tests.flows.command import vital
from vital.errors import UnsuitableInput
from vital.judging.judges import Judge, JudgeOutput
from vital.network.preprocessing import Preprocessing
from vital.settings import ModelSettings, PictureSettings, StatisticsSettings, VariantSettings

MODEL = ModelSettings(
    name="tests.flows.banded:network",
    input_size=SIDE,
    mean=(0.5,),
    std=(0.25,),
    black=(0,),
    white=(4095,),
    shown=(4, 2, 0),
)
VARIANT = VariantSettings(crop="image")


def job(folder: Path, store: Path, model: ModelSettings = MODEL) -> ReferencesJob:
    return ReferencesJob(
        shards=(str(folder),), store=str(store), model=model, layers=(LAYER,),
        statistics=StatisticsSettings(references=4, queries=0, levels=16),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return banded.shards(tmp_path_factory.mktemp("banded"))


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Statistics, Atlas]:
    made = tmp_path_factory.mktemp("made")
    store, out = made / "stats.zarr", made / "atlas.zarr"
    select_references(job(folder, store))
    measure_targets(TargetsJob(store=str(store), layer=LAYER, variant=VARIANT))
    picture = PictureSettings(side=SIDE, steps=40, own_boost=1.0)
    build_atlas(AtlasJob(store=str(store), layer=LAYER, out=str(out), variant=VARIANT, picture=picture))
    return open_statistics(str(store)), open_atlas(str(out))


def test_every_kind_of_file_is_read_and_its_bright_band_found(finished: tuple[Statistics, Atlas]) -> None:
    statistics, _ = finished
    assert (statistics.image_status() == 0).all()
    assert len(statistics.image_status()) == BANDS * EACH
    images = statistics.references(LAYER).image
    assert (images % BANDS == np.arange(BANDS)[:, None]).all()
    assert statistics.base["channels"] == BANDS
    assert (statistics.base["black"], statistics.base["white"]) == ([0.0] * BANDS, [4095.0] * BANDS)
    mean, covariance = statistics.colours()
    assert (mean.shape, covariance.shape, len(statistics.spectrum())) == ((BANDS,), (BANDS, BANDS), BANDS)


def test_colours_of_the_data_are_those_of_its_values(finished: tuple[Statistics, Atlas]) -> None:
    """As by hand: the middle of every image, in bytes, sorted."""
    shown = np.stack([banded.bands(number) for number in range(BANDS * EACH)]) / 4095 * 255
    rows = finished[0].colour_rows()
    assert rows.shape[0] == BANDS
    np.testing.assert_allclose(rows.mean(1), shown.mean((0, 2, 3)), atol=2.5)


def test_memory_is_measured_on_an_image_of_as_many_channels(
    finished: tuple[Statistics, Atlas], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU does before it measures references."""
    measured: list[object] = []

    def batch(self: TaskReferences, what: str, alone: Callable[[], object]) -> int:
        measured.append(alone())
        return 2

    monkeypatch.setattr(TaskReferences, "_batch", batch)
    two = VARIANT.model_copy(update={"references": 2})
    measure_targets(TargetsJob(store=finished[0].url, layer=LAYER, variant=two))
    assert measured


def test_a_picture_is_bright_in_the_band_that_its_neuron_means(finished: tuple[Statistics, Atlas]) -> None:
    pixels = finished[1].layer(LAYER).pixels(range(BANDS))
    assert pixels.shape == (BANDS, SIDE, SIDE, BANDS)
    brightness = pixels.mean((1, 2))
    assert (brightness.argmax(1) == np.arange(BANDS)).all()
    others = (brightness.sum(1) - brightness.diagonal()) / (BANDS - 1)
    assert (brightness.diagonal() > others + 40).all()


def test_differences_finer_than_a_byte_reach_the_network(tmp_path: Path) -> None:
    """Images of 16 bits that are all one byte: which band is brighter, by a sixth of its step, decides the ranking."""
    (tmp_path / "fine").mkdir()
    for number in range(2 * BANDS):
        pixels = np.full((BANDS, SIDE, SIDE), 5940, np.uint16)
        pixels[number % BANDS] += 40
        np.save(tmp_path / "fine" / f"{number:02d}.npy", pixels)
    fine = MODEL.model_copy(update={"black": None, "white": None})
    plan = job(tmp_path / "fine", tmp_path / "fine.zarr", fine)
    two = plan.statistics.model_copy(update={"references": 2})
    statistics = open_statistics(select_references(plan.model_copy(update={"statistics": two})))
    images = statistics.references(LAYER).image
    assert (images % BANDS == np.arange(BANDS)[:, None]).all()


def site_data(pages: Path, name: str) -> dict[str, Any]:
    text = next(pages.rglob(name)).read_text("utf-8")
    return dict(json.loads(text[text.index(",") + 1 : text.rindex(")")]))


def test_pages_and_files_show_the_channels_that_were_asked_for(
    finished: tuple[Statistics, Atlas], tmp_path: Path
) -> None:
    """4, 2, 0 as the network's settings say: the picture of neuron 4 is red, of neuron 0 blue."""
    _, atlas = finished
    write_gallery(atlas.url, tmp_path / "pages")
    assert site_data(tmp_path / "pages", "layer.js")["shown"] == "channels 4, 2, 0 of 5 as red, green, blue"
    for neuron, colour in ((4, 0), (2, 1), (0, 2)):
        with Image.open(next((tmp_path / "pages").rglob(f"{LAYER}/0/{neuron}.webp"))) as image:
            assert np.asarray(image.convert("RGB")).mean((0, 1)).argmax() == colour
    photos = [np.asarray(Image.open(file).convert("RGB")) for file in (tmp_path / "pages").rglob("photos/**/*.jpg")]
    assert {int(photo.mean((0, 1)).argmax()) for photo in photos} == {0, 1, 2}
    write_gallery(atlas.url, tmp_path / "pages", Showing(channels="3"))
    assert site_data(tmp_path / "pages", "layer.js")["shown"] == "channel 3 of 5 as grey"
    file = tmp_path / "one.png"
    assert vital("show", atlas.url, LAYER, "4", "--out", str(file), "--shown", "4").exit_code == 0
    grey = np.asarray(Image.open(file))
    np.testing.assert_array_equal(grey, np.repeat(atlas.layer(LAYER).pixels([4])[0][..., 4:], 3, 2))
    wrong = vital("show", atlas.url, LAYER, "4", "--out", str(file), "--shown", "4,5,0")
    assert wrong.exit_code == 1
    assert "--shown 4,5,0 (shown=) are not one or three of the 5 channels" in wrong.output
    folder = tmp_path / "exported"
    assert vital("export", atlas.url, "--layer", LAYER, "--out", str(folder), "--shown", "4,5,0").exit_code == 1
    assert not folder.exists()  # it is refused before anything is written


def test_neurons_look_at_files_of_bands(finished: tuple[Statistics, Atlas], tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(banded.npy(banded.bands(103)))
    (tmp_path / "b.tif").write_bytes(banded.tiff(banded.bands(101), photometric="minisblack"))
    seen = look_at(finished[1], str(tmp_path), top=1)
    assert [one.sights[0].neuron for one in seen] == [3, 1]
    assert seen[0].pixels.shape == (SIDE, SIDE, 3)
    np.save(tmp_path / "c.npy", np.zeros((2, 9, 9), np.uint8))
    with pytest.raises(UnsuitableInput, match=r"cannot be decoded \(an array of shape \(2, 9, 9\) is no image of 5"):
        look_at(finished[1], str(tmp_path / "c.npy"))


def test_its_own_network_measures_pictures_in_all_channels(finished: tuple[Statistics, Atlas]) -> None:
    evaluate_atlas(EvaluateJob(atlas=finished[1].url))
    ratio = open_atlas(finished[1].url).layer(LAYER).metrics()["peak_ratio"]
    assert (ratio > 0.5).all()


def test_a_judge_of_colours_is_shown_the_channels_that_people_are() -> None:
    def means(images: Tensor) -> JudgeOutput:
        return JudgeOutput(images.mean((2, 3)), images.mean((2, 3)))

    judge = Judge("means", Preprocessing(8, (0.0,) * 3, (1.0,) * 3), (), 1, means, shown_channels=(4, 2, 0))
    pixels = torch.randint(0, 256, (2, BANDS, 8, 8), dtype=torch.uint8)
    expected = pixels.float().mean((2, 3)).numpy() / 255
    np.testing.assert_allclose(judge.features(pixels), expected[:, [4, 2, 0]], rtol=1e-5)
    np.testing.assert_allclose(replace(judge, shown_channels=(3,)).features(pixels), expected[:, [3, 3, 3]], rtol=1e-5)


def test_images_of_other_channels_are_counted_and_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        np.save(tmp_path / "photos" / f"{number}.npy", np.zeros((4, 20, 20), np.uint16))
    with pytest.raises(
        UnreadableShard, match="0 of 3 images could be used: 3 with other channels than the network takes"
    ):
        select_references(job(tmp_path / "photos", tmp_path / "stats.zarr"))
    with pytest.raises(UnsuitableInput, match=r"banded:network takes images of 5 channels, and 4 were asked for"):
        select_references(job(tmp_path / "photos", tmp_path / "b.zarr", MODEL.model_copy(update={"channels": 4})))
    with pytest.raises(
        UnsuitableInput, match="takes 5 channels, and nothing says how they were normalised: give --mean"
    ):
        select_references(
            job(tmp_path / "photos", tmp_path / "c.zarr", ModelSettings(name=MODEL.name, input_size=SIDE))
        )
    assert not (tmp_path / "b.zarr").exists()
