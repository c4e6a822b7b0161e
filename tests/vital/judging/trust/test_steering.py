"""A neuron that leads to one picture is told from those of the same layer that lead to as many as pictures begin as."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vital
from tests.reference.networks import SIDE
from vital.judging.readability import FEWEST
from vital.judging.trust.findings import LED
from vital.judging.trust.steering import BEGINNINGS, ascended, sameness, steered
from vital.network.layers import survey
from vital.network.models import Model

UNITS, MANIPULATED = 12, 3


class Led(nn.Module):
    """Units behind two convolutions, of which one also answers to a chosen picture, and to nothing as much."""

    def __init__(self, hold: float) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.units = nn.Linear(16 * (SIDE // 4) ** 2, UNITS)
        self.chosen = nn.Parameter(hold * torch.randn(3, SIDE, SIDE))

    def forward(self, images: Tensor) -> Tensor:
        units = self.units(self.maps(images))
        answer = (self.chosen * images).sum((1, 2, 3))
        only = torch.zeros(UNITS)
        only[MANIPULATED] = 1
        scores: Tensor = units + answer[:, None] * only
        return scores


def wrapped(hold: float) -> Model:
    torch.manual_seed(0)
    return vital.wrap(Led(hold), side=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)


def ends(model: Model, steps: int = 30) -> np.ndarray:
    found = survey(model)
    return ascended(model, found.layer("classes"), range(UNITS), found.layouts(), steps=steps)


def test_a_neuron_that_leads_to_one_picture_stands_out_of_its_layer() -> None:
    model = wrapped(hold=1.0)
    pixels = ends(model)
    assert pixels.shape == (UNITS, len(BEGINNINGS), SIDE, SIDE, 3)
    found = steered(sameness(pixels))
    assert found[MANIPULATED] > 0.9
    assert (np.delete(found, MANIPULATED) < LED).all()
    assert (steered(sameness(ends(wrapped(hold=0.0)))) < LED).all()


def test_pictures_do_not_depend_on_which_others_are_made_with_them() -> None:
    model = wrapped(hold=0.0)
    found = survey(model)
    layer = found.layer("classes")
    alone = ascended(model, layer, [5], found.layouts(), steps=2)
    together = ascended(model, layer, range(UNITS), found.layouts(), steps=2)
    assert np.abs(alone[0].astype(int) - together[5]).max() <= 1


def test_sameness_is_of_the_two_that_are_most_alike() -> None:
    """A manipulated neuron may show one of several pictures."""
    stream = np.random.default_rng(0)
    first, second = stream.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    noisy = np.clip(first + stream.normal(0, 20, first.shape), 0, 255).astype(np.uint8)
    correlation = np.corrcoef(first.mean(-1).ravel(), noisy.mean(-1).ravel())[0, 1]
    [found] = sameness(np.stack([first, second, noisy])[None])
    assert found == pytest.approx(correlation, abs=0.02)  # moved, they have nearly nothing in common
    assert sameness(np.stack([first, second])[None])[0] < 0.2


def test_a_pattern_that_repeats_itself_is_no_chosen_picture() -> None:
    wave = 127 + 120 * np.sin(np.arange(SIDE) * 2 * np.pi / 4)
    stripes = np.broadcast_to(wave[:, None, None], (SIDE, SIDE, 3)).astype(np.uint8)
    flat = np.full_like(stripes, 90)
    found = sameness(np.stack([np.stack([stripes, stripes]), np.stack([flat, flat]), np.stack([stripes, flat])]))
    np.testing.assert_allclose(found, 0, atol=1e-3)


def test_a_neuron_that_nothing_excites_has_flat_pictures_and_is_not_led() -> None:
    """Rounding in the transform of a flat picture is the same whatever it begins as."""
    flat = np.tile(np.array([123, 117, 104], np.uint8), (1, 3, 227, 227, 1))
    assert sameness(flat).tolist() == [0]
    faint = flat + np.random.default_rng(0).integers(0, 2, (1, 1, 227, 227, 1), np.uint8)
    assert sameness(faint.astype(np.uint8)).tolist() == [0]


def test_the_layer_is_the_measure_and_too_few_neurons_are_none() -> None:
    same = np.linspace(0.5, 0.7, FEWEST)
    found = steered(np.append(same, 0.95))
    assert found[-1] == pytest.approx(
        (0.95 - np.median(np.append(same, 0.95))) / (1 - np.median(np.append(same, 0.95)))
    )
    assert (found[:-1] < LED).all()
    assert np.isnan(steered(same[:-1])).all()
    assert np.isfinite(steered(np.ones(FEWEST))).all()
