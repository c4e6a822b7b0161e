"""Dictionaries: features of a sparse autoencoder as neurons, against an encoder written out and one more layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.reference.networks import SIDE
from vital.errors import UnknownLayer
from vital.measuring.gathering import Batch, Plan, gather
from vital.measuring.targets import Attribution, Crop, measure
from vital.network.layers import Layer, Survey, survey
from vital.network.models import Model
from vital.network.neurons import Dictionary, Readout
from vital.network.neurons.dictionaries import Decoder, Normalisation
from vital.network.neurons.fit import fit
from vital.network.probe import probe
from vital.settings import RelevanceKind

LAYER, CHANNELS, FEATURES, SITES = "2", 12, 40, 6
KINDS = pytest.mark.parametrize("kind", ["lrp", "lrp-restricted", "gradient-x-activation"])


def some(k: int | None = None, threshold: float = 0.0, normalisation: Normalisation = "none") -> Dictionary:
    stream = np.random.default_rng(3)
    weight = stream.standard_normal((FEATURES, CHANNELS)).astype(np.float32)
    bias = stream.standard_normal(FEATURES).astype(np.float32) / 4
    return Dictionary(weight, bias, np.full(FEATURES, threshold, np.float32), k, normalisation)


def activations(images: int = 5) -> torch.Tensor:
    return torch.randn(images, CHANNELS, SITES, generator=torch.Generator().manual_seed(0))


def encoded(dictionary: Dictionary, seen: np.ndarray) -> np.ndarray:
    """Every site by itself, in double precision, as the papers have it."""
    result = np.zeros((len(seen), len(dictionary), seen.shape[2]))
    for image, site in np.ndindex(len(seen), seen.shape[2]):
        x = seen[image, :, site].astype(np.float64)
        if dictionary.normalisation == "norm":
            x = x * np.sqrt(len(x)) / np.linalg.norm(x)
        if dictionary.normalisation == "layer":
            x = (x - x.mean()) / (x.std(ddof=1) + 1e-5)
        before = dictionary.weight.astype(np.float64) @ x + dictionary.bias
        last = np.sort(before)[-dictionary.k] if dictionary.k else -np.inf
        result[image, :, site] = np.where((before > dictionary.threshold) & (before >= last), before, 0)
    return result


ENCODERS = pytest.mark.parametrize(
    "dictionary",
    [some(), some(threshold=1.5), some(k=3), some(k=3, threshold=-np.inf), some(normalisation="norm"),
     some(k=5, normalisation="layer")],
    ids=["ReLU", "JumpReLU", "TopK", "TopK unrectified", "norm", "layer norm"],
)  # fmt: skip


@ENCODERS
def test_maps_are_those_of_the_encoder_written_out(dictionary: Dictionary) -> None:
    seen = activations()
    expected = encoded(dictionary, seen.numpy())
    assert 0 < (expected != 0).mean() < 0.6
    np.testing.assert_allclose(Readout(LAYER, dictionary=dictionary).maps(seen), expected, atol=1e-4)


@ENCODERS
def test_some_features_are_read_as_all_are(dictionary: Dictionary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the k greatest of a site, rivals that are not asked for take part; they are looked at in parts."""
    monkeypatch.setattr("vital.network.neurons.dictionaries.AT_ONCE", 7)
    whole, seen, asked = Readout(LAYER, dictionary=dictionary), activations(4), [31, 4, 31, 17]
    part = whole.of(asked)
    assert part.dictionary is not None
    assert len(part.dictionary) == 3
    again = part.of([17, 31, 4])
    for read in (whole, part, again):
        own = read.own(seen, torch.tensor(asked))
        np.testing.assert_allclose(own, whole.maps(seen)[range(4), asked], atol=1e-5)
    np.testing.assert_allclose(part.maps(seen), whole.maps(seen)[:, [4, 17, 31]], atol=1e-5)


def test_rivals_go_to_a_device_only_where_they_count() -> None:
    assert some().of(np.array([3])).rivals is None
    rivals = some(k=2)
    assert rivals.of(np.array([3])).rivals is rivals
    assert rivals.of(np.array([3, 9])).of(np.array([1])).rivals is rivals


def test_a_feature_that_is_zero_still_hands_on_a_gradient() -> None:
    dictionary = some(k=1)
    seen = activations(1).requires_grad_()
    own = Readout(LAYER, dictionary=dictionary).own(seen, torch.tensor([5]))
    zero = int((own[0] == 0).nonzero()[0])
    (back,) = torch.autograd.grad(own[0, zero], seen)
    np.testing.assert_allclose(back[0, :, zero], dictionary.weight[5])


@pytest.fixture
def model(tiny: Callable[..., Model]) -> Model:
    return tiny()


def pixels(count: int = 6) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def with_layers_for(model: Model, dictionary: Dictionary) -> Model:
    """The network up to `LAYER`, then the encoder as a convolution of one site and a rectifier."""
    reading = nn.Conv2d(CHANNELS, len(dictionary), 1)
    reading.weight.data = torch.from_numpy(dictionary.weight)[..., None, None]
    reading.bias = nn.Parameter(torch.from_numpy(dictionary.bias))
    children = list(model.network.children())[:3]
    encoder = nn.Sequential(reading.requires_grad_(False), nn.ReLU())
    return replace(model, network=nn.Sequential(*children, encoder).eval())


# The site of lrp-restricted is chosen by the feature vector that is read, which one more layer would replace.
@pytest.mark.parametrize("kind", ["lrp", "gradient-x-activation"])
def test_a_feature_is_a_channel_of_one_more_layer_and_rectifier(model: Model, kind: RelevanceKind) -> None:
    dictionary, neurons = some(), (3, 7, 11)
    crops = [Crop(image, (row % 3,)) for row, image in enumerate(pixels())]
    read = Readout(LAYER, dictionary=dictionary)
    target = measure(model, Attribution(f"{LAYER}~some", kind, readout=read), neurons, crops, ("0", "1"))
    other = measure(with_layers_for(model, dictionary), Attribution("3", kind), neurons, crops, ("0", "1"))
    assert target.own.any()
    np.testing.assert_allclose(target.own, other.own, rtol=1e-4, atol=1e-5)
    for name, node in target.nodes.items():
        relevant, importance = other.nodes[name].relevant, other.nodes[name].importance
        assert node.relevant is not None
        assert relevant is not None
        scale = np.abs(relevant).max()
        np.testing.assert_allclose(node.relevant / scale, relevant / scale, atol=1e-4)
        assert node.importance is not None
        assert importance is not None
        np.testing.assert_allclose(node.importance, importance, atol=1e-4)


@KINDS
@pytest.mark.parametrize("normalisation", ["none", "norm", "layer"])
def test_relevance_begins_where_the_feature_is_active(kind: RelevanceKind, normalisation: Normalisation) -> None:
    read, seen = Readout(LAYER, dictionary=some(k=4, normalisation=normalisation)), activations(3)
    neurons = torch.tensor([5, 5, 21])
    own, start = read.own(seen, neurons), read.start(seen, neurons, kind)
    assert own.any()
    assert not start.isnan().any()
    if kind == "lrp":
        torch.testing.assert_close(start.sum(1), own, rtol=1e-3, atol=1e-3)  # none is lost but by ε
    if kind == "gradient-x-activation":
        channels = seen.clone().requires_grad_()
        (back,) = torch.autograd.grad(read.maps(channels)[range(3), neurons].square().sum() / 2, channels)
        torch.testing.assert_close(start, back, rtol=1e-4, atol=1e-4)


def test_a_planted_feature_is_ranked_as_the_channel_that_it_reads(model: Model) -> None:
    """Channel 7 above 0.1: what is active there is ranked as the channel is, and no other image is a reference."""
    weight, bias = np.zeros((3, CHANNELS), np.float32), np.zeros(3, np.float32)
    weight[1, 7], bias[2] = 1, -1  # the others are dead
    planted = Dictionary(weight, bias, np.array([0.1, 0.1, 0], np.float32))
    layers, images = replace(survey(model), directions={"planted": planted}), pixels(8)
    plan = Plan((f"{LAYER}~planted", LAYER), (), 8, 16)
    found = gather(
        model, layers, plan, Batch(images, np.arange(8), np.full(8, -1), [str(row) for row in range(8)])
    ).rankings
    planted_, channel = found[f"{LAYER}~planted"], found[LAYER]
    live = channel.scores[7] > 0.1
    assert live.any()
    np.testing.assert_array_equal(planted_.images[1][live], channel.images[7][live])
    np.testing.assert_array_equal(planted_.sites[1][live], channel.sites[7][live])
    np.testing.assert_allclose(planted_.scores[1][live], channel.scores[7][live], rtol=1e-6)
    np.testing.assert_array_equal(planted_.taken, [0, live.sum(), 0])


def test_a_dictionary_of_another_layer_is_refused_with_both_widths(model: Model) -> None:
    layers = replace(survey(model), directions={"sae": replace(some(), source="saev")})
    assert layers.layer("2~sae").channels == FEATURES
    wide = replace(some(), weight=np.zeros((FEATURES, 99), np.float32))
    layers = replace(layers, directions={"sae": replace(wide, source="saev")})
    with pytest.raises(UnknownLayer, match=r"dictionary 'sae' \(saev, 40 features\) is of 99 channels but '2' has 12"):
        layers.layer("2~sae")


def test_a_readout_of_a_dictionary_reads_one_site_too(model: Model) -> None:
    with torch.no_grad(), probe(model.network, [LAYER]) as run:
        seen = run(model.preprocessing.normalise(pixels(2)))[LAYER]
    whole = Readout(LAYER, dictionary=some(k=4)).maps(seen)
    torch.testing.assert_close(Readout(LAYER, 6, dictionary=some(k=4)).maps(seen)[..., 0], whole[..., 6])


def test_what_a_dictionary_gives_back_is_known_of_principal_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two features for each of the first principal directions, its two signs, give back their share of the variance."""
    monkeypatch.setattr("vital.network.neurons.fit.AT_ONCE", 70)
    seen = torch.randn(300, CHANNELS, generator=torch.Generator().manual_seed(4)) * torch.arange(1, CHANNELS + 1) + 5
    mean = seen.numpy().mean(0)
    _, values, rows = np.linalg.svd(seen.numpy() - mean, full_matrices=False)
    atoms = np.concatenate([rows[:4], -rows[:4]])
    zeros, silent = np.zeros(9, np.float32), np.zeros((1, CHANNELS))
    weight = np.concatenate([atoms, silent]).astype(np.float32)
    bias = np.append(-atoms @ mean, -1).astype(np.float32)
    known = Dictionary(weight, bias, zeros, decoder=Decoder(weight, mean))
    found = fit(known, seen)
    assert found.explained == pytest.approx((values[:4] ** 2).sum() / (values**2).sum(), rel=1e-4)
    assert found.active == pytest.approx(4)
    assert found.silent == pytest.approx(1 / 9)
    # of another layer it gives back less than the mean would
    assert (fit(known, seen.flip(1) * 3).explained or 0) < 0
    assert fit(replace(known, decoder=None), seen) == replace(found, explained=None)
    assert fit(known, seen[:1].expand(3, -1)).explained is None
    assert known.of(np.array([1, 2])).decoder is None


@pytest.mark.parametrize(
    ("named", "meant"),
    [("2", "2"), ("blocks.1", "blocks.1"), ("model.blocks.1", "blocks.1"), ("visual.blocks.11", None), ("1", "1"),
     ("blocks.1.hook_out", None), ("norm", "norm"), ("vision.norm", None), ("", None), ("linear", None)],
)  # fmt: skip
def test_a_layer_is_found_by_another_program_s_name(named: str, meant: str | None) -> None:
    layer = Layer("0", 4, 9, "channels-first", True, 0, 1)
    names = ("1", "2", "blocks.1", "norm", "blocks.0.linear")
    assert Survey({name: replace(layer, name=name) for name in names}).called(named) == meant
