"""Networks that take images otherwise: their luminance, rows first, from 0 to 1 or to 255."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.reference.networks import Tiny, randomise
from vital.errors import UnsuitableInput
from vital.measuring.maps import relevance
from vital.network.layers import survey
from vital.network.models import Model, load_model, wrap
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES, probe
from vital.pictures.render import render

SIDE = 32
IMAGE = np.random.default_rng(0).integers(0, 256, (37, 37, 3), np.uint8)
USUAL: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def seen(model: Model, image: np.ndarray = IMAGE) -> Tensor:
    """The logits of an image as the project shows it."""
    with torch.inference_mode(), probe(model.network, [CLASSES], survey(model).layouts()) as run:
        return run(model.preprocessing.normalise(model.preprocessing.crop(image)[None]))[CLASSES][..., 0]


def cropped() -> np.ndarray:
    return IMAGE[2:34, 2:34]


def grey(classes: int = 4) -> nn.Module:
    return randomise(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, classes),
        ),
        3,
    ).eval()


@pytest.mark.parametrize("given", [{"channels": 1}, {}])
def test_a_network_of_one_channel_is_shown_the_luminance(given: dict[str, Any]) -> None:
    """As Pillow's mode L, up to its rounding to whole numbers."""
    network = grey()
    numbers = {"mean": (0.4,), "std": (0.3,)} if given else {"mean": (0.4,) * 3, "std": (0.3,) * 3}
    model = wrap(network, side=SIDE, **numbers, **given)
    luminance = torch.from_numpy(np.asarray(Image.fromarray(cropped()).convert("L"), np.float32) / 255)
    expected = network((luminance[None, None] - 0.4) / 0.3).detach()
    torch.testing.assert_close(seen(model), expected, rtol=0.02, atol=0.02)
    assert model.preprocessing.channels == 1
    assert model.notes == (
        "Sequential takes one channel: it is shown the luminance of images, less 0.400 and over 0.300",
    )
    assert model.identity["channels"] == 1


def test_pictures_and_relevance_of_a_network_of_one_channel_are_made() -> None:
    model = wrap(grey(), side=SIDE, mean=0.4, std=0.3, channels=1)
    photos = list(np.random.default_rng(1).integers(0, 256, (5, 40, 40, 3), np.uint8))
    picture = render(model, "1:2", photos, steps=3)
    assert picture.pixels.shape == (SIDE, SIDE, 3)
    found = relevance(model, "1:2", photos, node="0")
    assert found.shape == (5, 16, 16)
    assert np.isfinite(found).all()


class Convention(nn.Module):
    """Takes images in its own way, then does as the inner network."""

    def __init__(self, inner: nn.Module, scale: float, rows_first: bool) -> None:
        super().__init__()
        self.inner, self.scale, self.rows_first = inner, scale, rows_first

    def forward(self, images: Tensor) -> Tensor:
        if self.rows_first:
            assert images.shape[1:] == (SIDE, SIDE, 3)
            images = images.permute(0, 3, 1, 2)
        result: Tensor = self.inner((images * self.scale - 0.5) / 0.25)
        return result


@pytest.mark.parametrize("values", ["0..1", "0..255"])
@pytest.mark.parametrize("rows_first", [True, False])
def test_conventions_give_what_the_same_network_gives_in_the_usual_one(values: Any, rows_first: bool) -> None:
    inner = randomise(Tiny(), 2).eval()
    network = Convention(inner, 1.0 if values == "0..1" else 1 / 255, rows_first)
    axes: Any = "row column channel" if rows_first else "channel row column"
    model = wrap(network, side=SIDE, values=values, axes=axes)
    torch.testing.assert_close(seen(model), seen(wrap(inner, side=SIDE, **USUAL)), rtol=1e-4, atol=1e-5)
    assert survey(model).layer("inner.2").channels == 12


def test_conventions_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UnsuitableInput, match=r"values = '0..1' with a mean or a deviation"):
        wrap(Tiny(), side=SIDE, values="0..1", **USUAL)
    with pytest.raises(UnsuitableInput, match=r"mean = None is not three numbers"):
        wrap(Tiny(), side=SIDE)


def test_a_network_that_takes_rows_first_is_told_how_to_be_wrapped() -> None:
    with pytest.raises(
        UnsuitableInput, match=r"takes images as \(row, column, channel\) and is .*vital\.wrap\(module, axes="
    ):
        survey(wrap(Convention(randomise(Tiny(), 2).eval(), 1.0, True), side=SIDE, values="0..1"))


class OfMany(nn.Module):
    """Of satellites: as many bands as the first convolution takes; a mean of each is subtracted first, or not."""

    def __init__(self, bands: int, means: bool, unshuffled: int = 1) -> None:
        super().__init__()
        self.means = torch.zeros(bands, 1, 1) if means else torch.zeros(())
        self.first = nn.Conv2d(bands, 6, 3, padding=1)
        self.unshuffled, self.rest = unshuffled, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))

    def forward(self, images: Tensor) -> Tensor:
        if self.unshuffled > 1:
            images = nn.functional.pixel_unshuffle(images, self.unshuffled)
        result: Tensor = self.rest(self.first(images - self.means).relu())
        return result


@pytest.mark.parametrize("bands", [2, 4, 13])
@pytest.mark.parametrize("means", [True, False])
def test_a_network_of_other_channels_is_shown_as_many(bands: int, means: bool) -> None:
    """With a mean of each band torch would copy the luminance to all of them."""
    network = OfMany(bands, means).eval()
    model = wrap(network, side=SIDE, mean=0.5, std=[0.25] * bands)
    assert (model.preprocessing.channels, model.preprocessing.colours) == (bands, bands)
    image = np.random.default_rng(bands).integers(0, 256, (SIDE, SIDE, bands), np.uint8)
    whole = replace(model, preprocessing=replace(model.preprocessing, resize=SIDE))
    expected = network((torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25).detach()
    torch.testing.assert_close(seen(whole, image), expected, rtol=1e-4, atol=1e-5)
    assert model.identity["channels"] == bands


def test_other_channels_want_numbers_of_their_own() -> None:
    with pytest.raises(UnsuitableInput, match=r"mean = \(0\.5, 0\.5, 0\.5\) is not 4 numbers, one of each channel"):
        wrap(OfMany(4, False), side=SIDE, **USUAL)
    with pytest.raises(UnsuitableInput, match=r"^OfMany takes images of 4 channels, and 5 were asked for: leave"):
        wrap(OfMany(4, False), side=SIDE, mean=0.5, std=0.5, channels=5)
    with pytest.raises(UnsuitableInput, match=r"shown = \(1, 2, 4\) are not one or three of the 4 channels"):
        wrap(OfMany(4, False), side=SIDE, mean=0.5, std=0.5, shown=(1, 2, 4))
    with pytest.raises(UnsuitableInput, match="black and white are both"):
        wrap(OfMany(4, False), side=SIDE, mean=0.5, std=0.5, black=3, white=3)
    zero = wrap(OfMany(4, False), side=SIDE, values="0..1", resize=SIDE, black=0, white=[1, 2, 3, 4]).preprocessing
    assert (zero.mean, zero.std, zero.black, zero.white) == ((0.0,) * 4, (1.0,) * 4, (0.0,) * 4, (1.0, 2.0, 3.0, 4.0))
    assert Preprocessing.of(zero.identity()) == zero


def test_pictures_of_other_channels_are_made_of_arrays_and_shown() -> None:
    model = wrap(OfMany(4, False), side=SIDE, mean=0.5, std=0.5, shown=(3,))
    photos = list(np.random.default_rng(1).integers(0, 256, (4, 40, 40, 4), np.uint8))
    picture = render(model, "classes:1", photos, steps=3)
    assert picture.pixels.shape == (SIDE, SIDE, 4)
    with Image.open(io.BytesIO(picture.png())) as image:
        np.testing.assert_array_equal(np.asarray(image), np.repeat(picture.pixels.values[..., 3:], 3, 2))
    with pytest.raises(UnsuitableInput, match=r"uint8 of \(row, column, 4\) was expected"):
        render(model, "classes:1", [IMAGE], steps=3)
    with pytest.raises(UnsuitableInput, match="photograph 0 has 3 channels and the network takes 4"):
        render(model, "classes:1", [Image.fromarray(IMAGE)], steps=3)


def test_a_network_that_makes_its_channels_itself_is_taken() -> None:
    assert wrap(OfMany(12, False, 2), side=SIDE, **USUAL).preprocessing.channels == 3
    assert wrap(OfMany(4, False, 2), side=SIDE, **USUAL).preprocessing.channels == 1
    assert wrap(OfMany(13, True), side=SIDE, channels=1, mean=0.5, std=0.5).preprocessing.channels == 1


def test_a_factory_may_wrap_its_network_so_that_tasks_elsewhere_know_its_conventions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebody_wraps.py").write_text(
        "import vital\nfrom tests.vital.network.test_conventions import Convention, grey\n"
        "def made():\n    return vital.wrap(Convention(grey(), 1 / 255, False), side=32, values='0..255',"
        " class_names=['a', 'b', 'c', 'd'], resize=32)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = load_model("somebody_wraps:made")
    sys.modules.pop("somebody_wraps")
    assert model.class_names == ("a", "b", "c", "d")
    assert (model.preprocessing.side, model.preprocessing.shorter, model.preprocessing.channels) == (32, 32, 1)
    direct = wrap(Convention(grey(), 1 / 255, False), side=32, values="0..255", resize=32)
    torch.testing.assert_close(seen(model), seen(direct))
    assert len(model.notes) == 1
