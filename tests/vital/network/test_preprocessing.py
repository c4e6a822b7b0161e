from dataclasses import replace
from importlib import import_module
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vital.network.preprocessing import Interpolation, Preprocessing
from vital.network.sources import torchvision_models

PLAIN = Preprocessing(64, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def photo(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise."""
    stream = np.random.default_rng(seed)
    coarse = Image.fromarray(stream.integers(0, 256, (9, 9, 3), np.uint8))
    smooth = np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC), np.int64)
    pixels: np.ndarray = np.clip(smooth + stream.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
    return pixels


SIZES = [(120, 200), (200, 121), (90, 90), (73, 73), (40, 300), (500, 301)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("resize", "side"), [(73, 64), (64, 64), (70, 67), (60, 64)])
def test_a_crop_is_what_torchvision_makes_of_pillow_s_image(
    size: tuple[int, int], interpolation: Interpolation, resize: int, side: int
) -> None:
    """Its own transforms, which resize with Pillow; what the image does not reach is black."""
    torchvision_models()
    transforms = import_module("torchvision.transforms")
    image = photo(*size)
    usual = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(side),
            transforms.PILToTensor(),
        ]
    )
    result = Preprocessing(side, (0.0,) * 3, (1.0,) * 3, resize, interpolation).crop(image)
    expected = usual(Image.fromarray(image))
    assert result.shape == expected.shape
    assert result.dtype == torch.uint8
    assert (result.int() - expected.int()).abs().max() <= 2


def test_a_squashed_image_loses_its_proportions_alone() -> None:
    image = photo(90, 150)
    expected = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR), np.int64)
    result = Preprocessing(64, (0.0,) * 3, (1.0,) * 3, 64, squash=True).crop(image)
    assert np.abs(result.permute(1, 2, 0).numpy().astype(np.int64) - expected).max() <= 2


def test_without_antialiasing_a_shrunk_image_has_single_pixels_of_the_large_one() -> None:
    image = photo(192, 192)  # every third pixel, exactly between whose neighbours nothing lies
    result = Preprocessing(64, (0.0,) * 3, (1.0,) * 3, 64, antialias=False).crop(image)
    assert np.array_equal(result.permute(1, 2, 0).numpy(), image[1::3, 1::3])


def test_another_side_sees_as_much_of_an_image_and_every_part_tells_in_the_identity() -> None:
    usual = Preprocessing(224, (0.5,) * 3, (0.2,) * 3, 232, "bicubic")
    assert (usual.at(112).side, usual.at(112).shorter) == (112, 116)
    assert Preprocessing(224, (0.5,) * 3, (0.2,) * 3).at(112).shorter == 128
    others = [
        replace(usual, **change)
        for change in (
            {"side": 225}, {"mean": (0.4,) * 3}, {"std": (0.3,) * 3}, {"resize": 256}, {"interpolation": "bilinear"},
            {"antialias": False}, {"squash": True},
        )
    ]  # fmt: skip
    assert all(other.identity() != usual.identity() for other in others)
    assert Preprocessing(224, (0.5,) * 3, (0.2,) * 3).identity()["resize"] == 256
    for one in (usual, *others):
        again = Preprocessing.of({**one.identity(), "levels": 16})
        assert again.identity() == one.identity()


def test_an_image_of_the_right_size_is_only_cropped() -> None:
    image = photo(73, 100)  # round(64 · 256/224) = 73
    assert np.array_equal(PLAIN.crop(image).permute(1, 2, 0).numpy(), image[4:68, 18:82])


def test_an_image_that_may_not_be_written_to_is_taken() -> None:
    image = photo(80, 80)
    image.flags.writeable = False
    assert PLAIN.crop(image).shape == (3, 64, 64)


def test_normalisation_is_the_formula() -> None:
    pixels = torch.from_numpy(photo(6, 5)).permute(2, 0, 1)[None]
    result = PLAIN.normalise(pixels)
    expected = (pixels.double().numpy() / 255 - np.reshape(PLAIN.mean, (3, 1, 1))) / np.reshape(PLAIN.std, (3, 1, 1))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-6)


@given(st.integers(16, 600), st.integers(1, 30), st.data())
def test_a_box_stays_inside_and_holds_the_winning_site(side: int, across: int, data: st.DataObject) -> None:
    preprocessing = Preprocessing(side, (0.0,) * 3, (1.0,) * 3)
    site = data.draw(st.integers(0, across * across - 1))
    top, left, height, width = preprocessing.box(site, across * across)
    assert height == width == round(side * 64 / 224)
    assert 0 <= top <= side - height
    assert 0 <= left <= side - width
    for corner, index in ((top, site // across), (left, site % across)):
        centre = (index + 0.5) * side / across
        assert corner <= centre <= corner + height
        if 0 < corner < side - height:  # not shifted: the site is in the middle
            assert abs(corner + height / 2 - centre) <= 1


def test_boxes_at_the_corners_are_shifted_inside() -> None:
    preprocessing = Preprocessing(224, (0.0,) * 3, (1.0,) * 3)
    assert preprocessing.box(0, 49) == (0, 0, 64, 64)
    assert preprocessing.box(48, 49) == (160, 160, 64, 64)
    assert preprocessing.box(6, 49) == (0, 160, 64, 64)
    assert preprocessing.box(0, 1) == (80, 80, 64, 64)


def test_a_map_has_a_patch_for_each_site_and_what_is_no_map_the_whole_input() -> None:
    preprocessing, whole = Preprocessing(224, (0.0,) * 3, (1.0,) * 3), [0, 0, 224, 224]
    assert preprocessing.boxes(49).tolist() == [list(preprocessing.box(site, 49)) for site in range(49)]
    assert preprocessing.boxes(1).tolist() == [whole]  # sees all of the image, not its middle
    assert preprocessing.boxes(50).tolist() == [whole] * 50


def test_a_patch_is_cut_from_its_box_and_resized_to_the_input() -> None:
    image = torch.from_numpy(photo(64, 64)).permute(2, 0, 1)
    result = PLAIN.cut(image, (10, 20, 18, 18))
    part = Image.fromarray(image.permute(1, 2, 0).numpy()[10:28, 20:38])
    expected = np.asarray(part.resize((64, 64), Image.Resampling.BILINEAR), np.int64)
    assert np.abs(result.permute(1, 2, 0).numpy().astype(np.int64) - expected).max() <= 2


def test_a_box_of_the_whole_image_leaves_it_as_it_is() -> None:
    image = torch.from_numpy(photo(64, 64)).permute(2, 0, 1)
    assert torch.equal(PLAIN.cut(image, np.array([0, 0, 64, 64])), image)


def test_an_image_resized_as_a_gpu_does_it_differs_by_a_step_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = Preprocessing(32, (0.5,) * 3, (0.25,) * 3)
    image = torch.randint(0, 256, (3, 97, 61), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    usual = preprocessing.crop_decoded(image)
    assert torch.equal(usual, preprocessing.crop(image.permute(1, 2, 0).numpy()))
    monkeypatch.setattr(Preprocessing, "_resized", Preprocessing._smooth)
    found = preprocessing.crop_decoded(image)
    assert found.shape == usual.shape
    assert (found.int() - usual.int()).abs().max() <= 1


def test_colours_go_to_a_device_once_and_may_then_need_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy for each batch would make the host wait for the batch before. The first may be of a pass without
    gradients."""
    usual = Preprocessing(8, (0.11, 0.12, 0.13), (0.21, 0.22, 0.23))  # which no other test has
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    copies = Mock(side_effect=torch.tensor)
    monkeypatch.setattr(torch, "tensor", copies)
    with torch.inference_mode():
        usual.normalise(pixels)
    assert copies.call_count == 2
    shown = pixels.float().requires_grad_()
    usual.normalise(shown).sum().backward()
    assert copies.call_count == 2
    assert shown.grad is not None
    np.testing.assert_allclose(shown.grad[0, :, 0, 0], 1 / 255 / np.array(usual.std), rtol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_what_is_finer_than_bytes_is_resized_without_rounding(interpolation: Interpolation) -> None:
    """As Pillow does with single precision; of bytes it would be another step."""
    image = np.random.default_rng(5).uniform(0, 255, (90, 120, 3)).astype(np.float32)
    found = Preprocessing(64, (0.0,) * 3, (1.0,) * 3, 64, interpolation).crop(image)
    bands = [
        Image.fromarray(band).resize((85, 64), Image.Resampling[interpolation.upper()])
        for band in image.transpose(2, 0, 1)
    ]
    expected = np.stack([np.asarray(band) for band in bands])[..., 10:74].clip(0, 255)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    assert np.abs(expected - expected.round()).max() > 0.4


@pytest.mark.parametrize(
    ("std", "unit"),
    [
        ((0.229, 0.224, 0.225), 1.0),
        ((0.5,) * 3, 1.0),
        ((1.0,) * 3, 1.0),
        ((0.02,) * 3, 1.0),  # of narrow images, which it normalises
        ((0.004,) * 5, 1.0),  # of other channels than colours nobody says what is usual
        ((1 / 255,) * 3, 57.6),
    ],
)
def test_published_methods_count_in_units_of_their_own_where_colours_reach_to_255(
    std: tuple[float, ...], unit: float
) -> None:
    prepared = Preprocessing(8, (0.4,) * len(std), std, channels=len(std))
    assert prepared.published_unit == pytest.approx((unit,) * len(std), rel=0.02)
    images = torch.rand(2, len(std), 8, 8, generator=torch.Generator().manual_seed(0))
    assert prepared.counts_as_published == (prepared.to_published(images) is images) == (unit == 1)
    torch.testing.assert_close(prepared.from_published(prepared.to_published(images)), images)
