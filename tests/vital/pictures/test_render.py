"""A picture from a handful of photographs: what the parts give by hand, and what a notebook and a file show."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.reference.networks import SIDE
from tests.reference.trends import common_by_hand, trend_by_hand
from vital.errors import UnknownLayer, UnknownNeuron, UnsuitableInput
from vital.measuring.image_sums import ColourDistribution
from vital.measuring.targets import Attribution, Crop, Target, measure
from vital.network.layers import survey
from vital.network.models import Model
from vital.network.probe import CLASSES, INPUT, probe
from vital.pictures.optimise import Pictures, optimise
from vital.pictures.render import Picture, render
from vital.settings import PictureSettings

pytestmark = pytest.mark.slow

COUNT, NEURON = 11, 7
NODES = {"2": ("0.2", "0", "1.2", "1"), CLASSES: ("0.2", "0", "1.2", "2.2", "2")}
"""The default ones of the small network."""


@pytest.fixture
def photos() -> list[np.ndarray]:
    blocks = np.random.default_rng(2).integers(0, 256, (COUNT, 5, 5, 3), np.uint8)
    return list(blocks.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2))


def crops_of(model: Model, photos: list[np.ndarray]) -> Tensor:
    return torch.stack([model.preprocessing.crop(photo) for photo in photos])


def by_hand(model: Model, layer: str, crops: list[Tensor], photos: list[np.ndarray], **settings: Any) -> Pictures:
    """Measured and optimised with the parts, the colours' statistics computed pixel by pixel in NumPy."""
    layers = survey(model)
    target = measure(
        model,
        Attribution(layer, layouts=layers.layouts()),
        [NEURON],
        [Crop(one, (0,)) for one in crops],
        (INPUT, *NODES[layer]),
    )
    pixels = crops_of(model, photos).permute(0, 2, 3, 1).reshape(-1, 3).double().numpy() / 255
    logits = np.log(pixels.clip(0.02, 0.98) / (1 - pixels.clip(0.02, 0.98)))
    colours = ColourDistribution(logits.mean(0), np.cov(logits.T, bias=True))
    return optimise(model, target, PictureSettings(side=SIDE, **settings), layers.layouts(), colours=colours)


def assert_same(picture: Picture, expected: Pictures) -> None:
    np.testing.assert_allclose(picture.loss, expected.loss[0], rtol=1e-3)
    # float32 sums of the colours, in another order: a byte may be rounded to its neighbour
    assert np.abs(picture.pixels.values.astype(int) - expected.pixels[0]).max() <= 1
    assert np.abs(picture.alpha.values.astype(int) - expected.alpha[0]).max() <= 1


def test_a_picture_of_whole_photographs_is_what_measuring_and_optimising_give(
    tiny: Callable[..., Model], photos: list[np.ndarray]
) -> None:
    model = tiny()
    picture = render(model, f"2:{NEURON}", photos, crop="image", references=COUNT, steps=6, seed=3)
    expected = by_hand(model, "2", list(crops_of(model, photos)), photos, steps=6, seed=3)
    assert_same(picture, expected)
    assert picture.pixels.dims == ("row", "column", "colour")
    assert picture.pixels.dtype == picture.alpha.dtype == np.uint8
    assert picture.pixels.colour.values.tolist() == ["red", "green", "blue"]
    assert picture.loss.step.values.tolist() == [0, 1, 2, 3, 4, 5]
    assert picture.settings == PictureSettings(side=SIDE, steps=6, seed=3, precision="float32")  # what auto is on a CPU
    assert picture.neuron == "2:7"
    assert picture.finite


def test_patches_are_cut_around_the_site_of_the_best_photographs(
    tiny: Callable[..., Model], photos: list[np.ndarray]
) -> None:
    model = tiny()
    crops = crops_of(model, photos)
    with probe(model.network, ["2"]) as run:
        maps = run(model.preprocessing.normalise(crops))["2"][:, NEURON].numpy()
    best = np.argsort(-maps.max(1), kind="stable")[:4]
    patches = []
    for image in best:
        top, left, height, width = model.preprocessing.box(int(maps[image].argmax()), maps.shape[1])
        part = crops[image][None, :, top : top + height, left : left + width]
        patches.append(torch.nn.functional.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)[0])
    picture = render(model, f"2:{NEURON}", photos, crop="patch", references=4, steps=4)
    assert picture.references == tuple(map(str, best))
    assert_same(picture, by_hand(model, "2", patches, photos, steps=4))


@pytest.mark.parametrize("neuron", ["classes:7", "classes:Seven"])
def test_a_class_is_made_from_its_photographs_whole(
    tiny: Callable[..., Model], photos: list[np.ndarray], neuron: str
) -> None:
    bare = tiny()
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    model = Model(bare.name, bare.network, bare.preprocessing, names)
    picture = render(model, neuron, photos, references=3, steps=4)
    assert picture.neuron == "classes:7"
    assert picture.references == ("0", "1", "2")
    assert_same(picture, by_hand(model, CLASSES, list(crops_of(model, photos)[:3]), photos, steps=4))


def test_settings_are_the_picture_s_own_and_the_side_is_the_model_s(
    tiny: Callable[..., Model], photos: list[np.ndarray]
) -> None:
    done: list[int] = []
    picture = render(tiny(), "2:7", photos, preset="paper", steps=3, side=48, nodes=["1"], progress=done.append)
    assert picture.settings == PictureSettings(preset="paper", steps=3, side=48)
    assert picture.variant.nodes == ("1",)
    assert picture.pixels.shape == (48, 48, 3)
    assert done == [1, 2, 3]
    phases = render(tiny(), "2:7", photos, method="maco", steps=2)
    assert phases.settings.parametrisation == "phase"
    assert phases.pixels.shape == (SIDE, SIDE, 3)


def test_a_notebook_shows_the_pixels(tiny: Callable[..., Model], photos: list[np.ndarray]) -> None:
    picture = render(tiny(), "2:7", photos, steps=2)
    html = picture._repr_html_()
    match = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="picture of 2:7: 32 × 32 pixels, 2 steps', html)
    assert match
    for data in (base64.b64decode(match[1]), picture._repr_png_()):
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), picture.pixels.values)
    assert repr(picture).startswith("<picture of 2:7: 32 × 32 pixels, 2 steps, loss ")


@pytest.mark.parametrize("name", ["a.png", "a.WEBP", "a.jpg"])
def test_a_picture_is_saved_as_its_file_s_ending_says(
    tiny: Callable[..., Model], photos: list[np.ndarray], name: str, tmp_path: Path
) -> None:
    picture = render(tiny(), "2:7", photos, steps=2)
    file = picture.save(tmp_path / name)
    assert file == tmp_path / name
    with Image.open(file) as image:
        apart = np.abs(np.asarray(image).astype(int) - picture.pixels.values)
    assert apart.max() == 0 if name != "a.jpg" else apart.mean() < 10
    if name != "a.jpg":
        with Image.open(picture.save(str(file), masked=True)) as image:
            np.testing.assert_array_equal(np.asarray(image.getchannel("A")), picture.alpha.values)


def test_files_that_cannot_be_written_are_refused(
    tiny: Callable[..., Model], photos: list[np.ndarray], tmp_path: Path
) -> None:
    picture = render(tiny(), "2:7", photos, steps=1)
    with pytest.raises(UnsuitableInput, match=r"ends in no kind of picture: name it \.png, \.webp, \.jpg, \.jpeg"):
        picture.save(tmp_path / "a.txt")
    with pytest.raises(UnsuitableInput, match="cannot be transparent"):
        picture.save(tmp_path / "a.jpg", masked=True)
    with pytest.raises(UnsuitableInput, match=r"no folder '.*missing' to save a\.png in"):
        picture.save(tmp_path / "missing" / "a.png")
    assert not list(tmp_path.iterdir())


def shown_to(model: Model, **settings: Any) -> int:
    """How many photographs a picture of three steps runs through the network: all that does less survey and steps."""
    seen: list[int] = []
    model.network.get_submodule("0").register_forward_hook(lambda module, images, output: seen.append(len(output)))
    survey(model)
    surveyed = sum(seen)
    render(model, f"2:{NEURON}", many(), references=5, steps=3, **settings)
    return sum(seen) - 2 * surveyed - 3


def many() -> list[np.ndarray]:
    blocks = np.random.default_rng(3).integers(0, 256, (30, 4, 4, 3), np.uint8)
    return list(blocks.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2))


def learnt_by_hand(model: Model, crops: Tensor, best: np.ndarray) -> Target:
    """Of the best photographs, with what is usual of all and the line of least squares, by NumPy."""
    layers = survey(model)
    attribution = Attribution("2", layouts=layers.layouts())
    nodes = (INPUT, *NODES["2"])
    target = measure(model, attribution, [NEURON], [Crop(crops[one], (0,)) for one in best], nodes)
    with probe(model.network, [*nodes, "2"]) as run:
        given = {name: one.double().numpy() for name, one in run(model.preprocessing.normalise(crops)).items()}
    crowd = given["2"].max(2)
    peaks, others = crowd[:, NEURON], np.setdiff1d(np.arange(len(crops)), best)
    learnt = {}
    for name, node in target.nodes.items():
        have = (np.arange(given[name].shape[-1]) + 0.5) / given[name].shape[-1]
        rows = np.array([[np.interp(node.levels, have, np.sort(row)) for row in image] for image in given[name]])
        own, score = rows[best].mean(0), float(peaks[best].mean())
        trend = trend_by_hand(rows[others], peaks[others], own, score, len(best), common_by_hand(rows, crowd))
        usual, trend = rows.mean(0).astype(np.float32), trend[None].astype(np.float32)
        learnt[name] = replace(node, usual=usual, trend=trend)
    return replace(target, nodes=learnt)


@pytest.mark.parametrize("change", [{}, {"relevant_weight": 1.0}])
def test_a_channel_s_picture_follows_the_trend_of_all_photographs(
    tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """The target that a picture is made of is what NumPy makes of the network run by hand."""
    model, photos = tiny(), many()
    made_of: list[Target] = []

    def noted(model: Model, target: Target, *others: Any, **more: Any) -> Pictures:
        made_of.append(target)
        return optimise(model, target, *others, **more)

    monkeypatch.setattr("vital.pictures.render.optimise", noted)
    picture = render(model, f"2:{NEURON}", photos, references=5, steps=2, **change)
    crops = crops_of(model, photos)
    with probe(model.network, ["2"]) as run:
        peaks = run(model.preprocessing.normalise(crops))["2"][:, NEURON].amax(1).numpy()
    best = np.argsort(-peaks, kind="stable")[:5]
    assert picture.references == tuple(map(str, best))
    expected = learnt_by_hand(model, crops, best)
    assert list(made_of[0].nodes) == list(expected.nodes)
    for name, node in made_of[0].nodes.items():
        wanted = expected.nodes[name].caricature(expected.count, 1.0)
        np.testing.assert_allclose(node.caricature(made_of[0].count, 1.0), wanted, atol=1e-4 * np.ptp(wanted))
        assert (node.relevant is None) == (not change or name == INPUT)


def test_where_nobody_says_how_many_a_part_of_the_photographs_are_references(tiny: Callable[..., Model]) -> None:
    """So that the others tell what does not excite the neuron; of a class all are."""
    model, photos = tiny(), many()
    crops = crops_of(model, photos)
    with probe(model.network, ["2"]) as run:
        peaks = run(model.preprocessing.normalise(crops))["2"][:, NEURON].amax(1).numpy()
    order = tuple(map(str, np.argsort(-peaks, kind="stable")))
    crops_asked: tuple[Literal["image", "patch"], ...] = ("image", "patch")
    for crop in crops_asked:
        picture = render(model, f"2:{NEURON}", photos, crop=crop, steps=1)
        assert picture.references == order[:7]  # a fourth of 30
        assert picture.variant.references == 7
    assert render(model, f"2:{NEURON}", photos, references=len(photos), steps=1).references == order
    few = render(model, f"2:{NEURON}", photos[:7], steps=1)  # of which nothing could be learnt
    assert len(few.references) == 7
    of_class = render(model, f"{CLASSES}:{NEURON}", photos, steps=1)
    assert len(of_class.references) == len(photos)
    assert of_class.variant.references == 50


def test_photographs_run_through_the_network_once(tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are matched run again only where their relevance, or a patch of them, is, or where memory is short."""
    assert shown_to(tiny()) == 30
    assert shown_to(tiny(), relevant_weight=1.0) == 30 + 5
    assert shown_to(tiny(), crop="patch") == 30 + 5
    assert shown_to(tiny(), emphasis=0.0) == 30 + 5
    monkeypatch.setattr("vital.measuring.targets.trends.MOST_BYTES", 1)
    assert shown_to(tiny()) == 30 + 5


def dead(model: Model) -> Model:
    """Channel 7 of layer 2 is zero on every image."""
    norm = model.network.get_submodule("2.1")
    with torch.no_grad():
        norm.get_parameter("weight")[7] = 0
        norm.get_parameter("bias")[7] = -1
    return model


def test_what_cannot_be_rendered_is_refused_in_one_sentence(
    tiny: Callable[..., Model], photos: list[np.ndarray]
) -> None:
    model = tiny()
    refused: list[tuple[type[Exception], str, str, dict[str, Any]]] = [
        (UnknownNeuron, "neuron 12 is not in layer '2', which has 12: ask for 0 to 11", "2:12", {}),
        (UnknownNeuron, "'2' is no neuron: write LAYER:NUMBER", "2", {}),
        (UnknownLayer, "no layer 'layer4'", "layer4:1", {}),
        (UnknownLayer, "node '2' does not come before layer '1'", "1:0", {"nodes": ["2"]}),
        (UnsuitableInput, "there is no setting 'stpes'; the nearest are steps", "2:7", {"stpes": 3}),
        (UnsuitableInput, "there is no setting 'reference'; the nearest are references", "2:7", {"reference": 3}),
        (UnsuitableInput, "steps = 0: Input should be greater than or equal to 1", "2:7", {"steps": 0}),
        (UnsuitableInput, "references = 0: Input should be greater", "2:7", {"references": 0}),
        (UnsuitableInput, "leave out the preset for method maco", "2:7", {"preset": "paper", "method": "maco"}),
    ]
    for kind, message, neuron, others in refused:
        with pytest.raises(kind, match=message) as caught:
            render(model, neuron, photos, **others)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnsuitableInput, match="none of the 11 photographs activates 2:7: give others, or another"):
        render(dead(model), "2:7", photos)
