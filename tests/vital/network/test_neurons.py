import numpy as np
import pytest
import torch

from tests.reference import formulas
from vital.errors import UnknownNeuron
from vital.network.neurons import Readout, check_neurons, importance, parse_neuron, relevance_map
from vital.network.probe import CLASSES

CHANNELS = Readout("layer4")

SEEDS = range(3)


def some(seed: int, images: int = 3) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(images, 5, 6, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_relevance_map_is_the_formula(seed: int) -> None:
    relevance = some(seed)
    expected = np.stack([formulas.relevance_map(one.numpy()) for one in relevance])
    np.testing.assert_allclose(relevance_map(relevance).numpy(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("seed", SEEDS)
def test_importance_is_the_formula_once_references_average_it(seed: int) -> None:
    relevance = some(seed, images=4)
    expected = formulas.importance([one.numpy() for one in relevance])
    np.testing.assert_allclose(importance(relevance).mean(0).numpy(), expected, rtol=1e-12)


def test_relevance_without_any_spread_gives_zeros_not_nan() -> None:
    flat = torch.full((1, 2, 3), 7.0)
    assert not relevance_map(flat).any()
    assert not importance(flat).any()


def test_every_picture_has_its_own_neuron() -> None:
    activations = some(0)
    neurons = torch.tensor([4, 0, 4])
    own = CHANNELS.own(activations, neurons)
    for picture, neuron in enumerate([4, 0, 4]):
        assert torch.equal(own[picture], activations[picture, neuron])


@pytest.mark.parametrize("kind", ["lrp", "gradient-x-activation"])
def test_relevance_starts_as_the_own_map_and_zero_elsewhere(kind: str) -> None:
    activations = some(1).requires_grad_()
    start = CHANNELS.start(activations, torch.tensor([2, 0, 1]), kind)  # type: ignore[arg-type]
    assert not start.requires_grad
    for picture, neuron in enumerate([2, 0, 1]):
        expected = torch.zeros_like(activations[picture])
        expected[neuron] = activations[picture, neuron].detach()
        assert torch.equal(start[picture], expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_restricted_relevance_starts_with_a_one_at_the_best_aligned_site(seed: int) -> None:
    activations = some(seed)
    start = CHANNELS.start(activations, torch.tensor([2, 0, 1]), "lrp-restricted")
    for picture, neuron in enumerate([2, 0, 1]):
        site = formulas.restricted_site(activations[picture].numpy(), neuron)
        assert start[picture].nonzero().tolist() == [[neuron, site]]
        assert start[picture, neuron, site] == 1


def test_alignment_is_not_the_greatest_activation() -> None:
    activations = torch.tensor([[[9.0, 1.0], [90.0, 0.1]]])  # channel 0 is greatest at site 0, but stands out at site 1
    assert CHANNELS.start(activations, torch.tensor([0]), "lrp-restricted").nonzero().tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("bad", [-1, 12, 100])
def test_a_neuron_out_of_range_is_refused_with_the_range(bad: int) -> None:
    check_neurons("layer4", 12, range(12))
    with pytest.raises(UnknownNeuron, match=rf"neuron {bad} is not in layer 'layer4'.* 0 to 11"):
        check_neurons("layer4", 12, [3, bad])


NAMES = ("tench, Tinca tinca", "great white shark, white shark", "crane", "crane", "a:b")


@pytest.mark.parametrize(
    ("text", "layer", "number"),
    [
        ("layer4.2:7", "layer4.2", 7),
        ("layer4.2@3,3:0", "layer4.2@3,3", 0),
        ("layer4~concepts:12", "layer4~concepts", 12),
        ("odd:name:3", "odd:name", 3),
        ("classes:4", CLASSES, 4),
        ("classes:tench", CLASSES, 0),
        ("classes:Tinca_Tinca", CLASSES, 0),
        ("classes:tench, tinca tinca", CLASSES, 0),
        ("classes:WHITE SHARK", CLASSES, 1),
        ("classes:a:b", CLASSES, 4),
    ],
)
def test_a_neuron_is_read_as_it_is_written(text: str, layer: str, number: int) -> None:
    neuron = parse_neuron(text, NAMES)
    assert (neuron.layer, neuron.number) == (layer, number)
    assert parse_neuron(str(neuron)) == neuron


@pytest.mark.parametrize("text", ["layer4.2", "layer4.2:", ":7", "layer4.2:seven", "layer4.2:-1", "layer4.2:²", ""])
def test_what_is_no_neuron_is_told_how_one_is_written(text: str) -> None:
    with pytest.raises(UnknownNeuron, match=r"is no neuron: write LAYER:NUMBER, such as layer4\.2:7, or classes"):
        parse_neuron(text, NAMES)


def test_class_names_that_are_unknown_or_shared_are_refused() -> None:
    with pytest.raises(UnknownNeuron, match="no class is called 'tenhc'; the nearest are tench"):
        parse_neuron("classes:tenhc", NAMES)
    with pytest.raises(UnknownNeuron, match="2 classes are called 'crane': write classes:2 or classes:3"):
        parse_neuron("classes:crane", NAMES)
    with pytest.raises(UnknownNeuron, match=r"the network's classes have no names.*write classes:NUMBER"):
        parse_neuron("classes:tench")
