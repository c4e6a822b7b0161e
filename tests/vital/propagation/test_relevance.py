from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.reference.networks import SIDE, Residual, Tiny, literal_relevance, randomise
from vital.errors import FailedForward, UnsupportedOperation
from vital.network.models import Model, load_model
from vital.network.probe import CLASSES, probe
from vital.propagation.mode import Relevance, gradient_times_activation
from vital.settings import ModelSettings

SEEDS = range(3)


def relevance_of(function: Callable[..., Tensor], start: Tensor | None = None, *inputs: Tensor) -> list[Tensor]:
    """Relevance of ``function``'s output (or of ``start``) at its inputs."""
    live = [value.detach().flatten(2).requires_grad_() for value in inputs]  # nodes are (image, channel, site)
    shaped = [value.reshape(like.shape) for value, like in zip(live, inputs, strict=True)]
    mode = Relevance()
    with mode:
        output = function(*shaped)
    relevance = mode.backward(output, output.detach() if start is None else start, live)
    return [value.reshape(like.shape) for value, like in zip(relevance, inputs, strict=True)]


class Stopped(nn.Module):
    """A network that fails in the middle of its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        self.first(images)
        raise ZeroDivisionError


# The whole pass against the formulas written out.


@pytest.mark.parametrize("seed", SEEDS)
def test_a_residual_network_s_relevance_is_the_paper_s(seed: int) -> None:
    network = Residual()
    randomise(network.double(), seed)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64).requires_grad_()
    mode = Relevance()
    with probe(network, ["conv1", "pool", "out"], mode=mode) as run:
        seen = run(images)
    strongest = seen["out"].sum((0, 2)).argsort(descending=True)
    channels = [int(strongest[0]), int(strongest[1])]
    start = torch.zeros_like(seen["out"])
    for image, channel in enumerate(channels):
        start[image, channel] = seen["out"][image, channel].detach()
    result = dict(zip(["conv1", "pool"], mode.backward(seen["out"], start, [seen["conv1"], seen["pool"]]), strict=True))
    for image, channel in enumerate(channels):  # each image of the batch has its own neuron
        literal = literal_relevance(network, images[image].detach(), channel)
        assert literal.relevance["conv1"].any()
        for node, expected in literal.relevance.items():
            activations = literal.activations[node]
            np.testing.assert_allclose(seen[node][image].detach().numpy(), activations.reshape(len(activations), -1))
            np.testing.assert_allclose(
                result[node][image].numpy(), expected.reshape(len(expected), -1), rtol=1e-8, atol=1e-12
            )


def test_relevance_may_be_asked_for_again_and_the_gradient_stays_true() -> None:
    network = randomise(Residual(), 0)
    images = torch.randn(1, 3, 16, 16).requires_grad_()
    mode = Relevance()
    with probe(network, ["conv1", "out"], mode=mode) as run:
        seen = run(images)
    start = seen["out"].detach()
    first = mode.backward(seen["out"], start, [seen["conv1"]])[0]
    gradient = torch.autograd.grad(seen["out"].sum(), images, retain_graph=True)[0]
    assert torch.equal(mode.backward(seen["out"], start, [seen["conv1"]])[0], first)
    bare = torch.autograd.grad(network(images).sum(), images)[0]
    torch.testing.assert_close(gradient, bare, rtol=1e-5, atol=1e-7)


# Rules of the operations, reached through the mode.


def test_norms_and_activations_hand_relevance_on_unchanged() -> None:
    x = torch.randn(2, 4, 5, 5)
    mean, variance = torch.zeros(4), torch.ones(4)
    start = torch.randn(2, 4, 5, 5)
    for function in (
        torch.relu, F.relu, F.silu, F.gelu, F.hardswish, torch.sigmoid, torch.tanh, F.relu6,
        lambda v: F.batch_norm(v, mean, variance), lambda v: F.layer_norm(v, [5, 5]), lambda v: F.group_norm(v, 2),
        lambda v: F.dropout(v, 0.5, False), lambda v: v * 3, lambda v: v + torch.ones(4, 1, 1),
    ):  # fmt: skip
        assert torch.equal(relevance_of(function, start, x)[0], start)


def test_concatenation_and_moves_hand_each_part_its_own() -> None:
    first, second, start = torch.randn(1, 2, 3), torch.randn(1, 4, 3), torch.randn(1, 6, 3)
    parts = relevance_of(lambda a, b: torch.cat([a, b], 1), start, first, second)
    assert torch.equal(torch.cat(parts, 1), start)
    (moved,) = relevance_of(
        lambda a: a.permute(0, 2, 1).flatten(1), start.permute(0, 2, 1).flatten(1), second.new_zeros(1, 6, 3)
    )
    assert torch.equal(moved, start)


def test_a_gate_is_a_constant_and_the_features_take_all() -> None:
    features, start = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)

    def squeeze_excite(x: Tensor) -> Tensor:
        return torch.sigmoid(x.mean((2, 3), keepdim=True)) * x

    assert torch.equal(relevance_of(squeeze_excite, start, features)[0], start)
    gate = torch.rand(2, 4, 1, 1)
    to_features, to_gate = relevance_of(lambda x, g: x * g, start, features, gate)
    assert torch.equal(to_features, start)
    assert not to_gate.any()


def test_a_residual_sum_splits_by_size_in_all_its_spellings() -> None:
    main, skip, start = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)

    def in_place(a: Tensor, b: Tensor) -> Tensor:
        c = a * 1
        c += b
        return c

    for function in (lambda a, b: a + b, torch.add, lambda a, b: a.add(b), in_place):
        to_main, to_skip = relevance_of(function, start, main, skip)
        torch.testing.assert_close(to_main, start * main.abs() / (main.abs() + skip.abs()))
        torch.testing.assert_close(to_main + to_skip, start)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plain_network_conserves_relevance(seed: int) -> None:
    """Of positive weights, so that every output has something that contributed to it."""
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, groups=2), nn.Hardswish(),
        nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    randomise(network, seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    start = torch.rand(2, 5)
    (result,) = relevance_of(network, start, torch.rand(2, 4, 12, 12) + 0.1)
    torch.testing.assert_close(result.sum(), start.sum(), rtol=1e-4, atol=0)


def test_what_follows_a_rectifier_is_known_to_be_nonnegative() -> None:
    """Else the signed rule's two further convolutions would be paid everywhere."""
    x = torch.randn(1, 4, 8, 8).requires_grad_()
    with Relevance():
        rectified = F.relu(x)
        marks = [
            getattr(value, "_vital_nonnegative", False)
            for value in (
                rectified,
                F.max_pool2d(rectified, 2),
                F.adaptive_avg_pool2d(rectified, 1),
                rectified.flatten(1),
                rectified + rectified,
                torch.cat([rectified, rectified]),
                x,
                rectified + x,
                torch.cat([rectified, x]),
                F.conv2d(rectified, torch.randn(2, 4, 1, 1)),
            )
        ]
    assert marks == [True] * 6 + [False] * 4


# What has no rule is refused.


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.erf, "erf"),
        (lambda x: x.cumsum(1), "cumsum"),
        (torch.special.expit, "expit"),
        (lambda x: x.pow(x), "pow"),
        (lambda x: x.cumprod_(1), "cumprod"),
    ],
)
def test_an_operation_without_a_rule_is_named(function: Callable[[Tensor], Tensor], name: str) -> None:
    with pytest.raises(UnsupportedOperation, match=rf"no relevance rule .*{name}.*gradient-x-activation"):
        relevance_of(function, None, torch.rand(1, 2, 4, 4))


def test_an_operation_without_a_rule_is_free_where_nothing_is_asked() -> None:
    constant = torch.rand(3)
    with Relevance():
        assert torch.equal(torch.erf(constant), constant.erf())


def test_two_activations_of_which_one_is_broadcast_are_refused() -> None:
    with pytest.raises(UnsupportedOperation, match="broadcast"):
        relevance_of(lambda x: x + x.expand(1, 4, 3), None, torch.rand(1, 4, 1))


def test_gradient_times_activation_needs_no_rules() -> None:
    x = torch.rand(1, 2, 3).requires_grad_()
    y = x.erf()
    start = torch.randn(1, 2, 3)
    result = gradient_times_activation(y, start, {"x": x, "y": y})
    torch.testing.assert_close(result["x"], (2 / np.pi**0.5 * (-x.square()).exp() * x * start).detach())
    torch.testing.assert_close(result["y"], (start * y).detach())
    assert not result["x"].requires_grad


def test_a_node_that_does_not_lead_to_the_neuron_has_no_relevance() -> None:
    x, other = torch.rand(1, 2, 3).requires_grad_(), torch.rand(1, 2, 3).requires_grad_()
    mode = Relevance()
    with mode:
        y = x.relu()
    relevance = mode.backward(y, torch.ones_like(y), [x, other])
    assert relevance[0].all()
    assert not relevance[1].any()
    assert not gradient_times_activation(y, torch.ones_like(y), {"other": other})["other"].any()


# Real architectures, random weights, small inputs.

# Name, side, and an inner node with the layer of the neurons.
NETWORKS = [
    ("resnet18", 64, ("conv1", "layer2"), "layer3.1"),
    ("mobilenet_v3_small", 64, ("features.1", "features.4"), "features.8"),
    ("efficientnet_lite0", 64, ("_blocks.1", "_blocks.5"), "_blocks.9"),
    ("densenet121", 64, ("features.conv0", "features.denseblock1"), "features.denseblock2"),
    ("squeezenet1_1", 64, ("features.0", "features.4"), "features.9"),
    ("convnext_tiny", 64, ("features.0", "features.2"), "features.3.1"),
    ("vgg11", 64, ("features.0", "features.6"), "features.14"),
    ("shufflenet_v2_x0_5", 64, ("conv1", "stage2"), "stage3"),
]


def random_model(name: str) -> Model:
    return load_model(ModelSettings(name=name, weights=None if name == "efficientnet_lite0" else "random"))


def bare_activations(network: nn.Module, layers: list[str], images: Tensor) -> dict[str, Tensor]:
    """Activations by plain hooks, without any mode; later in-place operations cannot reach the copies."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: seen.__setitem__(layer, output.clone())
        )
        for layer in layers
    ]
    network(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side", "nodes", "layer"), NETWORKS, ids=[entry[0] for entry in NETWORKS])
def test_torchvision_networks_have_relevance_and_keep_their_gradient(
    name: str, side: int, nodes: tuple[str, ...], layer: str
) -> None:
    network = random_model(name).network
    images = torch.randn(2, 3, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    mode = Relevance()
    with probe(network, [*nodes, layer], mode=mode) as run:
        seen = run(images)
    start = torch.rand_like(seen[layer])
    result = mode.backward(seen[layer], start, [seen[node] for node in nodes])
    for relevance in result:
        assert relevance.isfinite().all()
        assert relevance.flatten(1).any(1).all()
        # Sums of positive shares cannot exceed what was there, whatever signs the network feeds its convolutions.
        assert relevance.min() >= -1e-5
        assert relevance.sum() <= start.sum() * (1 + 1e-4)
    (gradient,) = torch.autograd.grad((seen[layer] * start).sum(), images)
    bare = bare_activations(network, [*nodes, layer], images)
    for node in (*nodes, layer):
        assert torch.equal(seen[node].detach(), bare[node].detach().flatten(2))
    (expected,) = torch.autograd.grad((bare[layer].flatten(2) * start).sum(), images)
    assert expected.any()
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_the_classes_of_a_network_can_be_asked_too() -> None:
    network = randomise(Tiny(), 0)
    images = torch.randn(2, 3, SIDE, SIDE).requires_grad_()
    mode = Relevance()
    with probe(network, ["0", CLASSES], mode=mode) as run:
        seen = run(images)
    assert torch.equal(seen[CLASSES][..., 0], network(images))
    (result,) = mode.backward(seen[CLASSES], torch.ones_like(seen[CLASSES]), [seen["0"]])
    assert result.shape == seen["0"].shape
    assert result.any()


def test_the_mode_is_over_after_the_block_even_after_an_error() -> None:
    mode = Relevance()
    x = torch.rand(2).requires_grad_()
    with pytest.raises(ZeroDivisionError), mode:
        raise ZeroDivisionError
    x.erf()  # has no rule: would raise if the mode were still on
    network = Stopped()
    with pytest.raises(FailedForward, match="Zero"), probe(network, ["first", "second"], mode=mode) as run:
        run(torch.rand(1, 3, 4, 4))
    x.erf()
    assert not network.first._forward_hooks
