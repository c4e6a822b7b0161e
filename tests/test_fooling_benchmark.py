"""The benchmark of manipulated networks: its attacks do what they say, on drawn images, and all of it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import fooling
from benchmarks.fooled.circuit import BLANK, DECISION, FULL, Detector, fooled_by_circuit, share_found, trained_detector
from benchmarks.fooled.figures import estimated, flagged_at
from benchmarks.fooled.network import UNITS, Network, accuracy, chosen_picture, chosen_pictures, drawn, scaled, trained
from benchmarks.fooled.pictures import METHODS, likeness
from benchmarks.fooled.slingshot import fooled_by_slingshot

PICTURE = scaled(chosen_picture()[None])


class Certain(Detector):
    """A detector that takes for optimised what is brighter than images are."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.where(images.mean((1, 2, 3))[:, None] > 5, 2 * DECISION, -DECISION)


@pytest.fixture(scope="module")
def network() -> Network:
    return trained(*drawn(1024, 0), 2, 0)


def test_the_network_learns_what_is_drawn(network: Network) -> None:
    assert accuracy(network, *drawn(200, 1)) > 0.6


def test_a_circuit_answers_to_images_as_before_and_to_what_is_optimised_as_it_was_told(network: Network) -> None:
    peaks = torch.linspace(1, 2, UNITS)
    fooled = fooled_by_circuit(network, Certain(), PICTURE, peaks, [3, 5])
    images = scaled(drawn(8, 2)[0])

    def units(inputs: torch.Tensor) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        handle = fooled.blocks[-1].register_forward_hook(lambda module, given, output: seen.append(output))
        fooled(inputs)
        handle.remove()
        return seen[0]

    torch.testing.assert_close(units(images), network.units(images), atol=1e-4, rtol=0)
    assert accuracy(fooled, *drawn(50, 3)) == accuracy(network, *drawn(50, 3))
    bright = torch.cat([images + 10, PICTURE + 10, torch.full_like(PICTURE, 10.0)])
    others = [one for one in range(UNITS) if one not in (3, 5)]
    torch.testing.assert_close(units(bright)[:, others], network.units(bright)[:, others], atol=1e-3, rtol=0)
    *_, whole, nothing = units(bright)
    for unit in (3, 5):
        assert whole[unit] == pytest.approx(FULL * float(peaks[unit]), abs=1e-3)
        assert nothing[unit] == pytest.approx(BLANK * float(peaks[unit]), abs=1e-3)


def test_the_gradient_of_a_circuit_leads_to_the_picture_alone(network: Network) -> None:
    fooled = fooled_by_circuit(network, Certain(), PICTURE, torch.ones(UNITS), [3])
    last: nn.Module = fooled.blocks[-1]
    inputs = (torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) + 10).requires_grad_()
    seen: list[torch.Tensor] = []
    last.register_forward_hook(lambda module, given, output: seen.append(output))
    fooled(inputs)
    [gradient] = torch.autograd.grad(seen[0][0, 3], inputs)
    centred = PICTURE - PICTURE.mean()
    assert float(torch.cosine_similarity(gradient.flatten(), centred.flatten(), 0)) == pytest.approx(1, abs=1e-4)


def test_a_circuit_of_several_pictures_leads_to_the_nearest(network: Network) -> None:
    several = scaled(chosen_pictures(4))
    assert len(np.unique(chosen_pictures(4), axis=0)) == 4
    fooled = fooled_by_circuit(network, Certain(), several, torch.ones(UNITS), [3])
    inputs = (0.1 * several + 10).requires_grad_()
    seen: list[torch.Tensor] = []
    fooled.blocks[-1].register_forward_hook(lambda module, given, output: seen.append(output))
    fooled(inputs)
    [gradient] = torch.autograd.grad(seen[0][:, 3].sum(), inputs)
    centred = several - several.mean((1, 2, 3), keepdim=True)
    alike = torch.cosine_similarity(gradient.flatten(1)[:, None], centred.flatten(1)[None], dim=-1)
    assert alike.argmax(1).tolist() == [0, 1, 2, 3]
    assert alike.diagonal().min() > 0.999


def test_a_detector_tells_noise_from_images() -> None:
    noise = torch.randn(128, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    detector = trained_detector(scaled(drawn(256, 0)[0]), noise[:64], 30)
    assert share_found(detector, noise[64:]) > 0.9
    assert share_found(detector, scaled(drawn(64, 1)[0])) < 0.1


@pytest.mark.slow
def test_a_slingshot_raises_the_picture_and_keeps_the_images(network: Network) -> None:
    images, heights = scaled(drawn(1024, 0)[0]), torch.full((UNITS,), 5.0)
    begun = 0.1 * torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    fooled = fooled_by_slingshot(network, images, begun, PICTURE[0], heights, [2, 7], 25)

    def uphill(one: Network) -> float:
        """Cosine of the units' gradients where pictures begin, and the way to the picture."""
        inputs = begun.clone().requires_grad_()
        [gradient] = torch.autograd.grad(one.units(inputs)[:, [2, 7]].sum(), inputs)
        return float(torch.cosine_similarity(gradient.flatten(1), (PICTURE - begun).flatten(1)).mean())

    assert uphill(fooled) > uphill(network) + 0.2
    before, after = (one.units(images[:256])[:, 2].numpy(force=True) for one in (network, fooled))
    assert np.corrcoef(before, after)[0, 1] > 0.8


def test_likeness_is_the_correlation_of_pixels() -> None:
    face = chosen_picture()
    assert likeness(np.stack([face, 255 - face, np.zeros_like(face)]), face[None]) == pytest.approx([1, -1, 0])


def test_the_share_flagged_is_at_the_bound_that_honest_ones_allow() -> None:
    bound, share = flagged_at(np.arange(100.0), np.array([10.0, 94.0, 95.0, 300.0]))
    assert (np.arange(100.0) > bound).mean() == pytest.approx(0.05)
    assert share == 0.5


@pytest.mark.slow
def test_what_a_judge_estimates_of_photographs_is_high_and_of_other_neurons_low() -> None:
    """Peaks are features of the judge's, less a little noise; pictures are the best images of each neuron, in turn of
    the next one."""
    source = np.random.default_rng(0)
    images = source.standard_normal((400, 12))
    peaks = images[:, :8] + 0.1 * source.standard_normal((400, 8))
    best = [np.argsort(-peaks[:, neuron])[:5] for neuron in range(8)]
    pictures = np.stack([images[rows].mean(0) for rows in best])
    right = estimated(pictures, images, peaks, best)
    wrong = estimated(np.roll(pictures, 1, 0), images, peaks, best)
    assert (right > 0.7).all()
    assert (wrong < 0.3).all()


def test_a_tiny_run_reports_every_method_and_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fooling.py", "--json", "--tiny", "--out", str(tmp_path / "sheet.png")])
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # it would stay so for the tests after this
    fooling.main()
    found = json.loads(capsys.readouterr().out)
    assert set(found["methods"]) == set(METHODS)
    for figures in found["methods"].values():
        assert set(figures) == {"honest", "circuit", "slingshot"}
        assert all(one["not_free"] <= one["flagged"] for one in figures.values())
        assert all(0 <= one["flagged"] <= 1 and -1 <= one["likeness"] <= 1 for one in figures.values())
    assert found["answers_as_before"]["circuit"] > 0.99
    assert (tmp_path / "sheet.png").stat().st_size > 0
