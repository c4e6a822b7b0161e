from functools import cache

import pytest
import torch
from torch import Tensor, nn

from tests.reference.networks import uninitialised
from vital.errors import UnknownLayer, UnsuitableInput
from vital.network.layers import Survey, survey
from vital.network.models import load_model, wrap
from vital.network.nodes import LayerRow, LayerTable, check_nodes, default_nodes, matched_nodes
from vital.network.probe import CLASSES, INPUT
from vital.settings import ModelSettings


@cache
def random_survey(name: str, side: int = 64) -> Survey:
    with uninitialised():  # of shapes alone
        return survey(load_model(ModelSettings(name=name, weights="random", input_size=side)))


class Repeats(nn.Module):
    """One layer that runs twice, one that gives no tensor, one of tokens, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.pair = nn.MaxPool2d(2, return_indices=True)
        self.tokens, self.unused, self.head = nn.Linear(4, 6), nn.Conv2d(3, 3, 1), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        x, _ = self.pair(self.twice(self.twice(self.first(images))))
        tokens = self.tokens(x.flatten(2).transpose(1, 2))
        result: Tensor = self.head(tokens.mean(1))
        return result


@pytest.fixture(scope="module")
def repeats() -> Survey:
    from vital.network.models import Model
    from vital.network.preprocessing import Preprocessing

    return survey(Model("repeats", Repeats().eval(), Preprocessing(32, (0.0,) * 3, (1.0,) * 3)))


@pytest.fixture(scope="module")
def resnet() -> Survey:
    return random_survey("resnet18")


def test_layers_are_listed_in_the_order_they_end_with_their_sizes(repeats: Survey) -> None:
    result = {name: (layer.channels, layer.sites, layer.layout) for name, layer in repeats.layers.items()}
    assert result == {
        "first": (4, 1024, "channels-first"),
        "tokens": (6, 256, "channels-last"),
        "head": (5, 1, "vector"),
        CLASSES: (5, 1, "vector"),
    }
    assert list(result) == ["first", "tokens", "head", CLASSES]


def test_layers_that_run_twice_never_or_give_no_tensor_are_left_out(repeats: Survey) -> None:
    assert not {"twice", "pair", "unused"} & repeats.layers.keys()


def test_an_unknown_layer_names_the_nearest(resnet: Survey) -> None:
    with pytest.raises(UnknownLayer, match=r"no layer 'layr4\.1'; the nearest are .*layer4\.1"):
        resnet.layer("layr4.1")


def test_a_container_ends_after_what_it_holds(resnet: Survey) -> None:
    names = list(resnet.layers)
    assert names.index("layer2.0.conv1") < names.index("layer2.0") < names.index("layer2") < names.index("layer3.0")
    before = {layer.name for layer in resnet.before(resnet.layer("layer3.1"))}
    assert {"conv1", "layer2", "layer3.0"} <= before
    assert "layer3.1.conv1" in before  # the block is computed from what it holds
    assert not {"layer3", "layer3.1", "layer3.1.relu", "layer4", CLASSES} & before
    assert resnet.layers["layer2"].channels == 128
    assert resnet.layers["layer2"].sites == 64


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [
        (CLASSES, ("conv1", "layer1", "layer2", "layer3", "layer4")),
        ("layer4.1", ("conv1", "layer1", "layer2", "layer3")),
        ("layer2.0", ("conv1", "layer1")),
    ],
)
def test_published_nodes_are_the_default_as_far_as_they_come_before(
    resnet: Survey, layer: str, nodes: tuple[str, ...]
) -> None:
    assert default_nodes(resnet, layer, "resnet18") == nodes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "late"),
    [
        ("resnet18", 64, "layer4.1"),
        ("mobilenet_v3_small", 64, "features.11"),
        ("vgg11", 64, "features.15"),
        ("densenet121", 64, "features.denseblock4"),
        ("swin_t", 64, "features.7"),
        ("vit_b_32", 224, "encoder.layers.encoder_layer_11"),
    ],
)
def test_every_family_has_default_nodes_for_its_classes_and_a_late_layer(name: str, side: int, late: str) -> None:
    layers = random_survey(name, side)
    for layer in (CLASSES, late):
        for given in ("", name):
            nodes = default_nodes(layers, layer, given)
            assert 3 <= len(nodes) <= 5
            assert len(set(nodes)) == len(nodes)
            check_nodes(layers, layer, nodes)
            assert [layers.layer(node).ended for node in nodes] == sorted(layers.layer(node).ended for node in nodes)
            assert all(layers.layer(node).sites > 1 for node in nodes)


def test_without_published_nodes_each_map_size_gives_its_last_block(resnet: Survey) -> None:
    nodes = default_nodes(resnet, CLASSES)
    sizes = [resnet.layer(node).sites for node in nodes]
    assert sizes == sorted(set(sizes), reverse=True)
    for node in nodes:
        same = [layer for layer in resnet.layers.values() if layer.block and layer.sites == resnet.layer(node).sites]
        assert same[-1].name == node


def test_a_layer_that_nothing_comes_before_has_no_nodes(resnet: Survey) -> None:
    assert default_nodes(resnet, "conv1") == ()


def test_a_container_is_matched_at_what_it_holds() -> None:
    layers = random_survey("vgg11")
    nodes = default_nodes(layers, "features")
    assert len(nodes) >= 3
    assert all(node.startswith("features.") for node in nodes)
    assert nodes[-1] != "features.20"  # the last child gives what the container gives


@pytest.mark.parametrize("node", ["layer3.1", "layer3", "layer4", "fc"])
def test_nodes_that_are_not_before_the_layer_are_refused(resnet: Survey, node: str) -> None:
    check_nodes(resnet, "layer3.1", ["conv1", "layer3.0"])
    with pytest.raises(UnknownLayer, match=rf"node '{node}' does not come before layer 'layer3\.1'"):
        check_nodes(resnet, "layer3.1", ["conv1", node])


def test_what_is_matched_is_the_colours_and_every_node_once_as_it_runs(resnet: Survey) -> None:
    asked = ["layer2", INPUT, "conv1", "layer2"]
    assert matched_nodes(resnet, "layer3.1", asked) == (INPUT, "conv1", "layer2")
    assert matched_nodes(resnet, "layer3.1") == (INPUT, *default_nodes(resnet, "layer3.1"))
    published = matched_nodes(resnet, CLASSES, model_name="resnet18")
    assert published == (INPUT, "conv1", "layer1", "layer2", "layer3", "layer4")
    with pytest.raises(UnknownLayer, match=r"node 'fc' does not come before layer 'layer3\.1'"):
        matched_nodes(resnet, "layer3.1", [INPUT, "fc"])


def test_an_unknown_node_is_refused(resnet: Survey) -> None:
    with pytest.raises(UnknownLayer, match="no layer 'layer9'"):
        check_nodes(resnet, "layer3.1", ["layer9"])


@pytest.mark.slow
def test_the_layouts_of_transformers_are_told_from_maps() -> None:
    swin = random_survey("swin_t")
    layer = swin.layer("features.1")
    assert (layer.layout, layer.channels, layer.sites, layer.leading_tokens) == ("channels-last", 96, 256, 0)
    vit = random_survey("vit_b_32", 224)
    tokens = vit.layer("encoder.layers.encoder_layer_0")
    assert (tokens.layout, tokens.channels, tokens.sites, tokens.leading_tokens) == ("channels-last", 768, 50, 1)
    assert vit.layer("conv_proj").leading_tokens == 0
    assert vit.layer(CLASSES).classes


def test_a_survey_leaves_nothing_on_the_network() -> None:
    model = load_model(ModelSettings(name="squeezenet1_1", weights="random", input_size=64))
    survey(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.network.modules())
    with torch.inference_mode():
        assert model.network(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


@pytest.mark.slow
def test_a_model_s_table_has_the_survey_s_layers_and_their_default_nodes() -> None:
    model = load_model("resnet18", weights="random", input_size=64)
    layers, table = survey(model), model.layers()
    assert [row.layer for row in table] == [
        name for name, layer in layers.layers.items() if layer.block or name == CLASSES
    ]
    assert len(model.layers(every=True)) == len(layers.layers)
    row = table["layer4.1"]
    assert (row.channels, row.sites) == (512, 4)
    assert row.nodes == ("input", *default_nodes(layers, "layer4.1", "resnet18"))
    with pytest.raises(UnknownLayer, match=r"no layer 'layer4.2'; the nearest are .*layer4\.1.*every=True"):
        _ = table["layer4.2"]


def test_a_table_prints_its_columns_under_each_other_and_escapes_names_for_notebooks() -> None:
    table = LayerTable((LayerRow("a<b>", 12, 49, ("input", "x&y")), LayerRow("much.longer.name", 1000, 1, ("input",))))
    assert repr(table).splitlines() == [
        "layer             channels  sites  nodes matched by default",
        "a<b>                    12     49  input, x&y",
        "much.longer.name      1000      1  input",
    ]
    html = table._repr_html_()
    assert "<td>a&lt;b&gt;</td><td>12</td><td>49</td><td>input, x&amp;y</td>" in html
    assert html.count("<tr>") == 3


def test_a_model_that_cannot_take_its_own_side_has_no_table() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 30 * 30, 4))
    model = wrap(network, side=48, mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.raises(UnsuitableInput, match=r"Sequential cannot take images of 48 × 48 .*: give the side"):
        model.layers()
