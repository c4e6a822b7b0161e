"""Other methods in the same optimiser: each raises its neuron, alone or in a batch, from its own defaults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vital
from tests.reference.networks import SIDE
from tests.vital.pictures.test_optimise import LAYER, LAYERS, NEURONS, double, target_of
from vital.errors import UnsuitableInput
from vital.measuring.image_sums import grey
from vital.network.models import Model
from vital.network.preprocessing import Preprocessing
from vital.network.probe import probe
from vital.network.sources import IMAGENET_MEAN, IMAGENET_STD
from vital.pictures.baselines import FIRST_NORM, ascent, check_method
from vital.pictures.optimise import Pictures, optimise
from vital.pictures.pixels import PhasePictures, resized
from vital.pictures.transforms import random_warps, warp
from vital.settings import PictureSettings

pytestmark = pytest.mark.slow

SPECTRUM = np.random.default_rng(3).uniform(0.5, 2, (3, SIDE, SIDE // 2 + 1))
METHODS = pytest.mark.parametrize("method", ["pixel", "fourier", "maco", "deepinversion"])


class Normed(nn.Sequential):
    """Two convolutions with batch norms that have seen data, and a classifier."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
            nn.Conv2d(12, 16, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 12),
        )


class FarReaching(Normed):
    """The same for inputs whose values reach 64 times as far."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images / 64)  # type: ignore[no-untyped-call, no-any-return]


@pytest.fixture
def normed(tiny: Callable[..., Model]) -> Model:
    return tiny(network=Normed())


def settings(method: str, steps: int = 8, **others: object) -> PictureSettings:
    return PictureSettings.model_validate({"method": method, "steps": steps, "side": SIDE, **others})


def made(model: Model, layer: str, neurons: tuple[int, ...], wanted: PictureSettings) -> Pictures:
    return optimise(model, target_of(model, layer, neurons), wanted, spectrum=SPECTRUM)


@pytest.mark.parametrize("method", ["pixel", "fourier", "maco", "deepinversion", "vital"])
def test_a_method_does_not_ask_in_which_units_a_network_takes_its_colours(method: str) -> None:
    """As networks do that were trained on values to 255, of which a published step is nothing that anybody sees."""
    more = {"preset": "paper"} if method == "vital" else {"total_variation": 1e-3, "norm": 1e-3}
    wanted = settings(method, 12, **more)
    torch.manual_seed(0)
    usual = Normed()
    far = FarReaching()
    far.load_state_dict(usual.state_dict())
    one = vital.wrap(usual, side=SIDE, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    other = vital.wrap(far, side=SIDE, mean=IMAGENET_MEAN, std=[part / 64 for part in IMAGENET_STD])
    target = target_of(one, "2", (1, 5))
    pictures, alike = (optimise(model, target, wanted, spectrum=SPECTRUM) for model in (one, other))
    np.testing.assert_allclose(alike.loss, pictures.loss, rtol=1e-4, atol=1e-5)
    for name in ("pixels", "alpha"):
        np.testing.assert_allclose(getattr(alike, name), getattr(pictures, name).astype(int), atol=2, err_msg=name)
    assert np.ptp(pictures.pixels.astype(int), axis=(1, 2, 3)).min() > 20  # they are seen


@METHODS
@LAYERS
def test_a_picture_does_not_depend_on_its_batch(
    normed: Model, method: str, layer: str, neurons: tuple[int, ...]
) -> None:
    """DeepInversion too, whose statistics are published as of the whole batch."""
    target = target_of(normed, layer, neurons)
    double(normed)
    together = optimise(normed, target, settings(method), spectrum=SPECTRUM)
    assert together.finite.all()
    for index in range(len(neurons)):
        alone = optimise(normed, target.take(slice(index, index + 1)), settings(method), spectrum=SPECTRUM)
        np.testing.assert_allclose(together.loss[index], alone.loss[0], rtol=1e-6, atol=1e-9)
        assert np.abs(together.pixels[index].astype(int) - alone.pixels[0]).max() <= 1


def test_deepinversion_of_a_layer_that_no_batch_norm_runs_before_is_refused(normed: Model) -> None:
    target = replace(target_of(normed, "1", (0,)), layer="0.0", nodes={})
    with pytest.raises(UnsuitableInput, match=r"none runs before layer '0\.0'"):
        optimise(normed, target, settings("deepinversion"), spectrum=SPECTRUM)


@METHODS
@LAYERS
def test_the_neuron_is_activated(normed: Model, method: str, layer: str, neurons: tuple[int, ...]) -> None:
    """On the stored bytes, against the same method's first step."""
    still = {"jitter": 0, "rotation": 0.0, "zoom": 0.0, "window": (1.0, 1.0), "noise": 0.0, "norm": 0.0}
    still |= {"total_variation": 0.0}
    first, last = (made(normed, layer, neurons, settings(method, steps, **still)) for steps in (1, 60))
    with torch.inference_mode(), probe(normed.network, [layer]) as run:
        before, after = (
            run(normed.preprocessing.normalise(torch.from_numpy(one.pixels).permute(0, 3, 1, 2)))[layer].mean(-1)
            for one in (first, last)
        )
    indices = torch.arange(len(neurons)), torch.tensor(neurons)
    assert (after[indices] > before[indices]).all()


@METHODS
def test_other_seeds_give_other_pictures_and_the_same_seed_the_same(normed: Model, method: str) -> None:
    one, same, other = (made(normed, LAYER, NEURONS, settings(method, 3, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.pixels, same.pixels)
    assert (one.pixels != other.pixels).mean() > 0.2


def test_norm_matching_is_the_distance_from_what_the_batch_norms_kept(normed: Model) -> None:
    """Against the formula written out, with the first norm weighing more."""
    images = torch.randn(2, 3, SIDE, SIDE)
    target = target_of(normed, LAYER, NEURONS[:2])
    wanted = settings("deepinversion", norm_matching=1.0)
    with ascent(normed, target, wanted) as objective, probe(normed.network, [LAYER]) as run:
        result = objective(run(images))
    blocks = list(normed.network.children())
    expected = -blocks[2](blocks[1](blocks[0](images)))[range(2), NEURONS[:2]].mean((1, 2))
    seen = images
    for block, weight in ((blocks[0], FIRST_NORM), (blocks[1], 1.0)):
        assert isinstance(block, nn.Sequential)
        convolved = block[0](seen)
        mean, variance = convolved.mean((2, 3)), convolved.var((2, 3), correction=0)
        norm = block[1]
        expected = expected + weight * (
            (mean - norm.running_mean).norm(dim=1) + (variance - norm.running_var).norm(dim=1)
        )
        seen = block(seen)
    torch.testing.assert_close(result, expected)


def test_no_hook_stays_behind(normed: Model) -> None:
    made(normed, LAYER, NEURONS, settings("deepinversion", 1))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in normed.network.modules())


def test_a_network_without_batch_norms_is_refused(tiny: Callable[..., Model]) -> None:
    model = tiny(network=nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)))
    with pytest.raises(UnsuitableInput, match="batch norms but tiny has none: choose another method"):
        check_method(model, settings("deepinversion"))
    for method in ("vital", "pixel", "fourier", "maco"):
        check_method(model, settings(method))


def test_phases_without_a_spectrum_are_refused(normed: Model) -> None:
    with pytest.raises(UnsuitableInput, match="the data set's spectrum, which was not given"):
        optimise(normed, target_of(normed, LAYER), settings("maco"))


def test_phase_pictures_keep_the_amplitudes_of_the_data(normed: Model) -> None:
    """Before the sigmoid: of grey colours, whatever the phases, the spectrum is the data's up to one factor."""
    preprocessing = Preprocessing(SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pictures = PhasePictures(torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64), preprocessing, grey(), SPECTRUM)
    with torch.no_grad():
        pictures.parameters += torch.randn_like(pictures.parameters)
        logits = torch.logit(pictures.pictures())
    assert logits.var((2, 3), correction=0).mean() == pytest.approx(1, rel=0.15)
    result = torch.fft.rfft2(logits, norm="ortho").abs()[..., 1:-1]
    ratio = result / torch.from_numpy(SPECTRUM.mean(0))[:, 1:-1]
    assert ratio.std() / ratio.mean() < 1e-6


def test_a_resized_spectrum_is_that_of_the_resized_waves() -> None:
    """A wave of k cycles an image has, at twice the side, twice the orthonormal amplitude at the same k."""

    def spectrum(side: int) -> np.ndarray:
        across = np.arange(side) / side
        image = np.cos(2 * np.pi * (3 * across[:, None] + 2 * across[None]))
        return np.abs(np.fft.rfft2(np.stack([image] * 3), norm="ortho"))

    np.testing.assert_allclose(resized(spectrum(32), 16), spectrum(16), atol=1e-9)
    np.testing.assert_allclose(resized(spectrum(16), 32)[:, :8, :8], spectrum(32)[:, :8, :8], atol=1e-9)
    np.testing.assert_allclose(resized(SPECTRUM, SIDE), SPECTRUM)
    assert np.isfinite(resized(SPECTRUM, 3 * SIDE)).all()


def test_a_view_turns_enlarges_and_crops() -> None:
    picture = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    turned = warp(picture, torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]]))
    torch.testing.assert_close(
        turned, picture.rot90(1, (2, 3)) if turned[0, 0, 0, 0] == 3 else picture.rot90(-1, (2, 3))
    )
    torch.testing.assert_close(warp(picture, torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])), picture)
    upper_left = warp(picture, torch.tensor([[[0.5, 0.0, -0.5], [0.0, 0.5, -0.5]]]))
    assert upper_left.max() <= picture[..., :3, :3].max()


def test_windows_stay_inside_the_picture() -> None:
    maps = random_warps(np.random.default_rng(0), 1000, 0.0, 0.0, (0.2, 0.9))
    share, centre = maps[:, 0, 0], maps[..., 2]
    assert share.min() >= 0.2
    assert share.max() <= 0.9
    assert (np.abs(centre) + share[:, None] <= 1 + 1e-12).all()


def test_methods_have_defaults_of_their_own_and_know_no_paper_preset() -> None:
    assert settings("maco").parametrisation == "phase"
    assert settings("fourier", learning_rate=0.2).learning_rate == 0.2
    with pytest.raises(ValueError, match="preset paper is of method vital"):
        settings("pixel", preset="paper")
    with pytest.raises(ValueError, match="least share of a window is above its greatest"):
        settings("maco", window=(0.9, 0.3))
