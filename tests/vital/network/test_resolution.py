"""Networks at other input sizes: what is interpolated, what is shared, what is refused."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from tests.reference.networks import randomise
from vital.errors import UnsuitableInput
from vital.measuring.targets import Attribution, Crop, measure
from vital.network.layers import survey
from vital.network.models import Model, at_side, load_model
from vital.network.nodes import default_nodes
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES, INPUT, probe
from vital.network.sources import torchvision_models
from vital.network.sources.fitting.resolution import at_resolution, interpolated
from vital.pictures.optimise import optimise
from vital.settings import ModelSettings, PictureSettings

pytestmark = pytest.mark.slow

LAYER, NODES = "encoder.layers.encoder_layer_2", ("conv_proj", "encoder.layers.encoder_layer_0")


@pytest.fixture
def vit() -> Model:
    """A small vision transformer of torchvision's, for 32 pixels in patches of 8."""
    made: nn.Module = torchvision_models().VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=10)
    return Model("vit", randomise(made, 0), Preprocessing(32, (0.5,) * 3, (0.25,) * 3))


@pytest.mark.parametrize("side", [16, 40, 64])
def test_embeddings_are_those_of_torchvision_s_own_interpolation(vit: Model, side: int) -> None:
    network: Any = vit.network
    function = torchvision_models().vision_transformer.interpolate_embeddings
    state = OrderedDict({"encoder.pos_embedding": network.encoder.pos_embedding})
    expected = function(side, 8, state)["encoder.pos_embedding"]
    larger: Any = at_side(vit, side).network
    assert torch.equal(larger.encoder.pos_embedding, expected)
    assert not larger.encoder.pos_embedding.requires_grad
    # The class token's stays; the patches of the corners are the corners of any grid.
    new, old = larger.encoder.pos_embedding, network.encoder.pos_embedding
    patches = side // 8
    assert torch.equal(new[:, 0], old[:, 0])
    grid, before = new[0, 1:].reshape(patches, patches, -1), old[0, 1:].reshape(4, 4, -1)
    torch.testing.assert_close(grid[:: patches - 1, :: patches - 1], before[::3, ::3], rtol=0, atol=1e-5)


def test_the_twin_shares_its_weights_and_the_original_is_untouched(vit: Model) -> None:
    network: Any = vit.network
    images = torch.randn(1, 3, 32, 32)
    before, kept = network(images), network.encoder.pos_embedding
    larger = at_side(vit, 64)
    assert larger.preprocessing.side == 64
    assert larger.identity["input_size"] == 64
    assert larger.network(torch.randn(1, 3, 64, 64)).shape == (1, 10)
    shared = dict(larger.network.named_parameters())
    assert all(
        shared[name] is parameter for name, parameter in network.named_parameters() if name != "encoder.pos_embedding"
    )
    with probe(larger.network, ["encoder", "conv_proj"]):
        assert not network._forward_hooks
        assert not network.encoder._forward_hooks
    assert network.encoder.pos_embedding is kept
    assert torch.equal(network(images), before)
    assert at_side(vit, 32) is vit


def test_sides_that_patches_do_not_divide_are_refused(vit: Model) -> None:
    with pytest.raises(UnsuitableInput, match=r"patches of 8 pixels .*36 × 36.*multiple of 8, such as (32|40)"):
        at_side(vit, 36)
    with pytest.raises(UnsuitableInput, match="5 position embeddings are no square"):
        interpolated(torch.randn(1, 6, 4), 3)


def test_networks_without_embeddings_are_themselves_at_any_size() -> None:
    network = nn.Conv2d(3, 2, 1)
    assert at_resolution(network, 500) is network


def test_a_model_loads_at_another_size_and_its_weights_keep_their_digest() -> None:
    usual = load_model(ModelSettings(name="vit_b_32", weights="random"))
    smaller = load_model(ModelSettings(name="vit_b_32", weights="random", input_size=64))
    layers = survey(smaller)
    assert layers.layer("encoder.layers.encoder_layer_0").sites == 5
    assert smaller.identity["weights"] == usual.identity["weights"]
    assert smaller.identity != usual.identity
    with pytest.raises(UnsuitableInput, match="multiple of 32"):
        load_model(ModelSettings(name="vit_b_32", weights="random", input_size=100))


def test_a_size_that_another_network_cannot_take_is_refused_with_the_way_out_given() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 30 * 30, 4))
    model = Model("fixed", network.eval(), Preprocessing(32, (0.5,) * 3, (0.25,) * 3))
    assert CLASSES in survey(model).layers
    with pytest.raises(UnsuitableInput, match=r"fixed cannot take images of 48 × 48 pixels \(.*\): give --side 32$"):
        survey(at_side(model, 48), "give --side 32")
    with pytest.raises(UnsuitableInput, match="leave out --input-size"):
        survey(at_side(model, 48))


@pytest.mark.parametrize("side", [16, 64])
def test_pictures_of_a_transformer_may_be_larger_than_its_references(vit: Model, side: int) -> None:
    layers = survey(vit)
    assert default_nodes(layers, LAYER)
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    crops = [Crop(one, (0, 1)) for one in pixels]
    target = measure(vit, Attribution(LAYER, layouts=layers.layouts()), [3, 4], crops, [INPUT, *NODES])
    pictures = optimise(at_side(vit, side), target, PictureSettings(side=side, steps=8), layers.layouts())
    assert pictures.pixels.shape == (2, side, side, 3)
    assert pictures.finite.all()
    assert (pictures.loss[:, -1] < pictures.loss[:, 0]).all()
