"""Kind lrp-gamma: terms one by one, batch norms as one with what is before them, real networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tests.reference.networks import randomise
from vital.measuring.targets import node_relevance
from vital.network.layers import survey
from vital.network.models import load_model
from vital.network.neurons import EPSILON, Readout
from vital.network.probe import probe
from vital.propagation.conservation import conservation, liveliest, noise
from vital.propagation.gamma import GAMMA
from vital.propagation.mode import Relevance
from vital.settings import ModelSettings

OPTIONS: list[dict[str, Any]] = [
    {"stride": 1, "padding": 0, "groups": 1},
    {"stride": 2, "padding": 1, "groups": 2},
    {"stride": 1, "padding": 2, "dilation": 2, "groups": 4},
]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal(relevance: Tensor, inputs: Tensor, function: Callable[[Tensor], Tensor], bias: Tensor) -> np.ndarray:
    """Every term a w of every output, one after the other; ``function`` is linear, and one column of its matrix is what
    it gives of a one at one input."""
    ones = torch.eye(inputs[0].numel(), dtype=inputs.dtype).reshape(-1, *inputs.shape[1:])
    matrix = function(ones).flatten(1).numpy()
    biases = bias.expand(relevance[0].shape).flatten().numpy()
    result = np.zeros((len(inputs), len(matrix)))
    for image, a in enumerate(inputs.flatten(1).numpy()):
        for out, r in enumerate(relevance[image].flatten().numpy()):
            terms = [float(a[i] * matrix[i, out]) for i in range(len(a))]
            z = sum(terms) + float(biases[out])
            sign = 1 if z >= 0 else -1
            weighed = [term * (1 + GAMMA if term * sign > 0 else 1) for term in terms]
            rest = float(biases[out]) * (1 + GAMMA if biases[out] * sign > 0 else 1)
            for i, term in enumerate(weighed):
                result[image, i] += r * term / (sum(weighed) + rest + sign * EPSILON)
    return result.reshape(inputs.shape)


def relevance_of(network: Callable[[Tensor], Tensor], inputs: Tensor, start: Tensor) -> Tensor:
    return backward(Relevance("lrp-gamma"), network, inputs, start)


def backward(mode: Relevance, network: Callable[[Tensor], Tensor], inputs: Tensor, start: Tensor) -> Tensor:
    node = inputs.flatten(1)[..., None].requires_grad_()
    with mode:
        output = network(node.reshape(inputs.shape))
    [result] = mode.backward(output, start, [node])
    return result.reshape(inputs.shape)


@pytest.mark.parametrize("signed", [False, True], ids=["nonnegative", "signed"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_convolution_s_terms_share_and_its_bias_takes_its_part(options: dict[str, Any], signed: bool) -> None:
    inputs, weight, bias = draw(0, 2, 4, 5, 4), draw(1, 4, 4 // options["groups"], 3, 3), draw(2, 4)
    start = draw(3, *F.conv2d(inputs, weight, bias, **options).shape)
    expected = literal(
        start, inputs if signed else inputs.relu(), lambda x: F.conv2d(x, weight, **options), bias[:, None, None]
    )
    result = relevance_of(lambda x: F.conv2d(x if signed else x.relu(), weight, bias, **options), inputs, start)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("biased", [False, True])
def test_a_linear_map_s_too_also_of_tokens(biased: bool) -> None:
    inputs, weight, start = draw(0, 3, 6), draw(1, 4, 6), draw(2, 3, 4)
    bias = draw(3, 4) if biased else None
    expected = literal(start, inputs, lambda x: F.linear(x, weight), draw(3, 4) * biased)
    result = relevance_of(lambda x: F.linear(x, weight, bias), inputs, start)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-8, atol=1e-9)
    tokens = relevance_of(lambda x: F.linear(x, weight, bias), inputs[:, None], start[:, None])
    torch.testing.assert_close(tokens[:, 0], result)


def test_a_batch_norm_is_one_with_the_convolution_before_it() -> None:
    convolution, norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
    randomise(nn.Sequential(convolution, norm), 0).double().eval()
    norm.weight.data[0] *= -1  # turns raising terms into lowering ones
    joined = fuse_conv_bn_eval(convolution, norm)
    images, start = draw(0, 2, 3, 7, 7), draw(1, 2, 6, 5, 5)
    result = relevance_of(lambda x: norm(convolution(x)).relu(), images, start)
    torch.testing.assert_close(result, relevance_of(lambda x: joined(x).relu(), images, start))
    apart = relevance_of(lambda x: norm(convolution(x) * 1.0).relu(), images, start)  # then it is an identity
    assert not torch.allclose(apart, result)


def test_a_batch_norm_without_weights_after_a_linear_map_is_one_with_it_too() -> None:
    weight, mean, variance = draw(0, 4, 6), draw(1, 4), draw(2, 4).square()
    inputs, start = draw(3, 5, 6), draw(4, 5, 4)
    result = relevance_of(lambda x: F.batch_norm(F.linear(x, weight), mean, variance, eps=0.1), inputs, start)
    scale = (variance + 0.1).rsqrt()
    joined = relevance_of(lambda x: F.linear(x, weight * scale[:, None], -mean * scale), inputs, start)
    torch.testing.assert_close(result, joined)


def test_without_biases_and_lowering_terms_it_is_the_published_rule() -> None:
    weight, inputs, start = draw(0, 3, 5).abs(), draw(1, 2, 5).abs(), draw(2, 2, 3)
    published, mine = (
        backward(mode, lambda x: F.linear(x, weight), inputs, start) for mode in (Relevance(), Relevance("lrp-gamma"))
    )
    torch.testing.assert_close(mine, published, rtol=1e-4, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_lite0", "convnext_tiny"])
def test_networks_have_it_and_keep_their_gradient(name: str) -> None:
    side = 64
    model = load_model(
        ModelSettings(name=name, weights=None if name == "efficientnet_lite0" else "random", input_size=side)
    )
    randomise(model.network, 0)
    layers, images = survey(model), noise(model, 2)
    blocks = [block.name for block in layers.layers.values() if block.block and block.sites > 1]
    node, layer = blocks[0], blocks[-1]
    neurons = torch.tensor(liveliest(model, layers, layer, images))
    mode = Relevance("lrp-gamma")
    with probe(model.network, [node, layer], layers.layouts(), mode) as run:
        seen = run(images.requires_grad_())
    found = node_relevance(mode, seen, Readout(layer), [node], neurons, "lrp-gamma")[node]
    assert found.isfinite().all()
    assert found.flatten(1).any(1).all()
    (gradient,) = torch.autograd.grad(seen[layer].sum(), images)
    with probe(model.network, [layer], layers.layouts()) as run:
        (expected,) = torch.autograd.grad(run(images)[layer].sum(), images)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_an_exported_batch_norm_is_one_with_its_convolution_too() -> None:
    network = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 0).eval()
    images = torch.randn(2, 3, 8, 8)
    program = torch.export.unflatten(torch.export.export(network, (images,)))
    start = torch.rand(2, 4, 6, 6)
    torch.testing.assert_close(relevance_of(program, images, start), relevance_of(network, images, start))


def test_what_biases_take_is_told() -> None:
    model = load_model(ModelSettings(input_size=64))
    layers, images = survey(model), noise(model, 2)
    neurons = liveliest(model, layers, "_blocks.5", images)
    lost = {
        kind: conservation(model, layers, "_blocks.5", ["_blocks.2"], neurons, images, kind=kind).lost
        for kind in ("lrp", "lrp-gamma")
    }
    assert "batch_norm" not in lost["lrp"] or abs(lost["lrp"]["batch_norm"]) < 1e-6
    assert abs(lost["lrp-gamma"]["batch_norm"]) > 0.1
