"""How much relevance arrives, on networks where the answer is known, and on every architecture of torchvision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from tests.reference.networks import SIDE, Tiny, randomise, uninitialised
from vital.errors import UnknownLayer, UnknownNeuron, UnsuitableInput
from vital.measuring.targets import node_relevance
from vital.network.layers import survey
from vital.network.models import Model, load_model
from vital.network.neurons import Readout
from vital.network.nodes import default_nodes
from vital.network.preprocessing import Preprocessing
from vital.network.probe import probe
from vital.network.sources import torchvision_models
from vital.propagation.conservation import ELSEWHERE, Conservation, conservation, liveliest, noise
from vital.propagation.mode import Relevance
from vital.settings import ModelSettings, RelevanceKind

pytestmark = pytest.mark.slow


def of(network: nn.Module, layer: str, nodes: list[str], side: int = SIDE) -> Conservation:
    model = Model("given", network.eval().requires_grad_(False), Preprocessing(side, (0.5,) * 3, (0.25,) * 3))
    layers, images = survey(model), noise(model, 2)
    return conservation(model, layers, layer, nodes, liveliest(model, layers, layer, images), images)


def test_all_arrives_where_every_weight_is_positive() -> None:
    network = randomise(Tiny(), 0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.abs_().add_(5 * name.endswith("1.bias"))  # and every rectifier lets through
    conserved = of(network, "2", ["0", "1"])
    assert list(conserved.arrived) == ["0", "1"]
    assert all(share == pytest.approx(1, abs=1e-4) for share in conserved.arrived.values())
    assert all(abs(share) < 1e-4 for share in conserved.lost.values())


def test_an_output_without_positive_contributions_is_reported_with_its_operation() -> None:
    """Half of the relevance is started at an output that a bias alone makes positive."""
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sigmoid()), nn.Sequential(nn.Conv2d(2, 1, 1), nn.ReLU())
    )
    randomise(network, 0)
    last = network[1][0]  # type: ignore[index]
    with torch.no_grad():
        last.weight.fill_(-1)
        last.bias.fill_(3)
    conserved = of(network, "1", ["0"])
    assert conserved.arrived["0"] == 0
    assert conserved.lost["conv2d"] == pytest.approx(1)
    assert conserved.lost[ELSEWHERE] == pytest.approx(0, abs=1e-9)


def test_what_ends_in_padding_is_elsewhere() -> None:
    """Ones around the map take part in the average, and keep their share."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sigmoid()), nn.AvgPool2d(SIDE * 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x) * 0 + 1
            result: torch.Tensor = self.second(nn.functional.pad(x, [SIDE // 2] * 4, value=1.0))
            return result

    shares = of(Padded(), "second", ["first"])
    assert shares.arrived["first"] == pytest.approx(0.25, rel=1e-4)
    assert shares.lost[ELSEWHERE] == pytest.approx(0.75, rel=1e-4)


def test_what_cannot_be_asked_is_refused(tiny: Callable[..., Model]) -> None:
    model = tiny()
    layers, images = survey(model), noise(model, 1)
    with pytest.raises(UnsuitableInput, match="not conserved"):
        conservation(model, layers, "2", ["0"], [0], images, kind="gradient-x-activation")
    with pytest.raises(UnknownLayer, match="does not come before"):
        conservation(model, layers, "1", ["2"], [0], images)
    with pytest.raises(UnknownNeuron, match="neuron 12"):
        conservation(model, layers, "2", ["0"], [12], images)
    with pytest.raises(UnsuitableInput, match="no nodes"):
        conservation(model, layers, "0", [], [0], images)
    dead = tiny(network=Tiny())
    with torch.no_grad():
        dead.network[2][1].weight.fill_(0)  # type: ignore[index]
        dead.network[2][1].bias.fill_(-1)  # type: ignore[index]
    with pytest.raises(UnsuitableInput, match="none of the neurons of '2' is active"):
        conservation(dead, survey(dead), "2", ["0"], [0], images)


# Name, side, and the operations that may lose relevance there: outputs that only a bias or padding made, and the
# published max-pool. No other may.
NETWORKS = [
    ("resnet18", 64, {"max_pool2d"}),
    ("resnet50", 64, {"max_pool2d"}),
    ("vgg16", 32, {"conv2d", "max_pool2d"}),
    ("alexnet", 64, {"conv2d", "max_pool2d"}),
    ("densenet121", 64, {"max_pool2d"}),
    ("convnext_tiny", 64, {"conv2d"}),  # the last maps are smaller than the kernel
    ("efficientnet_b0", 64, {"conv2d"}),
    ("efficientnet_lite0", 64, {"conv2d"}),
    ("mobilenet_v2", 64, {"conv2d"}),
    ("mobilenet_v3_small", 64, {"conv2d"}),
    ("regnet_y_400mf", 64, {"conv2d"}),
    ("squeezenet1_1", 64, {"conv2d", "max_pool2d"}),
    ("shufflenet_v2_x0_5", 64, {"conv2d", "max_pool2d"}),
    ("googlenet", 64, {"conv2d", "max_pool2d"}),
    ("inception_v3", 96, {"conv2d", "max_pool2d"}),
    ("mnasnet0_5", 64, {"conv2d"}),
    ("vit_b_32", 96, set[str]()),
    ("swin_t", 224, set[str]()),
    ("swin_v2_t", 64, {"linear"}),  # later maps are smaller than a window: padding, whose tokens are biases alone
]


INITIALISED = {"vgg16", "alexnet", "squeezenet1_1", "efficientnet_lite0"}
"""Networks without norms, and the one that comes with weights."""

KINDS: list[tuple[RelevanceKind, Relevance | None]] = [("lrp-restricted", Relevance()), ("gradient-x-activation", None)]


@pytest.mark.parametrize(("name", "side", "leaks"), NETWORKS, ids=[entry[0] for entry in NETWORKS])
def test_every_architecture_conserves_but_for_what_published_rules_lose(name: str, side: int, leaks: set[str]) -> None:
    embedded = name == "efficientnet_lite0"
    with nullcontext() if name in INITIALISED else uninitialised():
        model = load_model(ModelSettings(name=name, weights=None if embedded else "random", input_size=side))
    normed = any(isinstance(module, nn.BatchNorm2d | nn.LayerNorm) for module in model.network.modules())
    assert normed == (name not in INITIALISED) or embedded
    if name not in INITIALISED:
        randomise(model.network, 0)  # as initialised, some networks' activations vanish
    layers, images = survey(model), noise(model, 1)
    layer = [block.name for block in layers.layers.values() if block.block and block.sites > 1][-1]
    nodes = default_nodes(layers, layer, name)
    shares = conservation(model, layers, layer, nodes, liveliest(model, layers, layer, images), images)
    assert all(0 < share <= 1 + 1e-4 for share in shares.arrived.values()), shares
    for operation, share in shares.lost.items():
        assert abs(share) < 1e-4 or (operation in leaks and 0 < share < 1), shares
    assert shares.arrived[nodes[0]] + sum(shares.lost.values()) == pytest.approx(1)
    for kind, mode in KINDS:
        with probe(model.network, [*nodes, layer], layers.layouts(), mode) as run:
            seen = run(images.requires_grad_())
        found_at = node_relevance(mode, seen, Readout(layer), nodes, torch.tensor([1]), kind)
        for node in nodes:
            assert found_at[node].isfinite().all()
            if mode is not None:  # a one is started, at one site
                assert found_at[node].min() > -1e-5
                assert 0 < found_at[node].sum() < 1 + 1e-4


def test_blocks_of_windows_and_grids_conserve() -> None:
    """A small MaxViT: attention by einsum, a signed average pool beside it, squeeze-excite."""
    torchvision = torchvision_models()
    network = torchvision.maxvit.MaxVit((64, 64), 8, 2, [8, 16], [1, 2], 4, 0.0)
    conserved = of(randomise(network, 0), "blocks.1", ["stem", "blocks.0"], 64)
    assert conserved.lost.keys() >= {"einsum", "avg_pool2d", "layer_norm"}
    assert all(abs(share) < 1e-3 for name, share in conserved.lost.items() if name not in ("conv2d", "linear")), (
        conserved
    )
    assert 0.5 < conserved.arrived["stem"] <= conserved.arrived["blocks.0"] <= 1 + 1e-4


def vit(models: Any) -> nn.Module:
    """Torchvision's, with less of everything."""
    made: nn.Module = models.VisionTransformer(96, 32, num_layers=3, num_heads=4, hidden_dim=48, mlp_dim=96)
    return made


def swin(models: Any, block: str, merging: str) -> nn.Module:
    """The same of windows, every other one shifted."""
    here = models.swin_transformer
    made: nn.Module = models.SwinTransformer(
        [4, 4], 24, [2, 2], [3, 6], [7, 7], block=getattr(here, block), downsample_layer=getattr(here, merging)
    )
    return made


BUILT: dict[str, tuple[int, Callable[[Any], nn.Module]]] = {
    "vit": (96, vit),
    "swin": (64, lambda models: swin(models, "SwinTransformerBlock", "PatchMerging")),
    "swin_v2": (64, lambda models: swin(models, "SwinTransformerBlockV2", "PatchMergingV2")),
    "inception_v3": (96, lambda models: models.inception_v3(weights=None, init_weights=False)),
}


@pytest.mark.parametrize("name", BUILT)
def test_the_gradient_is_the_network_s_own(name: str) -> None:
    side, built = BUILT[name]
    with uninitialised():
        network = built(torchvision_models())
    randomise(network, 1).double()  # or rounding would decide, which differs from one draw to the next
    stream = torch.Generator().manual_seed(2)
    images = torch.randn(1, 3, side, side, generator=stream, dtype=torch.float64)
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    with Relevance():
        output = network(images)
    start = torch.randn(output.shape, generator=stream, dtype=torch.float64)
    (mine,) = torch.autograd.grad((output * start).sum(), images)
    bare = network(images)
    torch.testing.assert_close(output, bare)
    (expected,) = torch.autograd.grad((bare * start).sum(), images)
    assert expected.any()
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
