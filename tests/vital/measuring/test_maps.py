"""Relevance on photographs: against the rules written out, and against the mode's own backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.reference.networks import SIDE, Residual, literal_relevance, randomise
from vital.errors import UnknownLayer, UnknownNeuron, UnsuitableInput
from vital.measuring.gathering import Batch, Plan, gather
from vital.measuring.kept.ranking import NOBODY
from vital.measuring.maps import BATCH, map_node, relevance, relevance_maps, responses, standing
from vital.measuring.targets import Attribution
from vital.network.layers import survey
from vital.network.models import Model, wrap
from vital.network.neurons.dictionaries import Dictionary
from vital.network.probe import probe
from vital.network.sources import torchvision_models
from vital.propagation.mode import Relevance
from vital.settings import RelevanceKind

COUNT = BATCH + 2
FIRST = "0.2"
"""The first layer that is matched for neurons of the small network."""
COLOURS: dict[str, Any] = {"mean": (0.5, 0.45, 0.4), "std": (0.25, 0.2, 0.3)}


def photos(count: int = COUNT, side: int = SIDE) -> list[np.ndarray]:
    """Photographs that the network's own crop leaves as they are, but for the border."""
    stream = np.random.default_rng(5)
    blocks = stream.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return list(blocks.repeat(side // 2, 1).repeat(side // 2, 2))


def normalised(model: Model) -> Tensor:
    crops = torch.stack([model.preprocessing.crop(photo) for photo in photos()])
    return model.preprocessing.normalise(crops)


def test_the_map_is_the_rules_written_out(tiny: Callable[..., Model]) -> None:
    network = Residual()
    model = tiny(3, network)
    maps = relevance(model, "out:2", photos(2), node="conv1")
    assert maps.dims == ("image", "row", "column")
    assert maps.dtype == np.float32
    for number, image in enumerate(normalised(model)[:2]):
        expected = literal_relevance(network, image, 2).relevance["conv1"].sum(0)
        np.testing.assert_allclose(maps[number], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["lrp", "lrp-restricted"])
@pytest.mark.parametrize(("neuron", "layer"), [("2:7", "2"), ("classes:4", "classes")])
def test_its_sum_is_what_the_pass_hands_back(
    tiny: Callable[..., Model], neuron: str, layer: str, kind: RelevanceKind
) -> None:
    model, number = tiny(), int(neuron.rpartition(":")[2])
    maps = relevance(model, neuron, photos(), kind)
    assert maps.attrs == {"neuron": neuron, "node": FIRST, "kind": kind, "model": "tiny"}
    mode = Relevance()
    with probe(model.network, [FIRST, layer], mode=mode) as run:
        seen = run(normalised(model).requires_grad_())
        start = torch.zeros_like(seen[layer])
        if kind == "lrp":
            start[:, number] = seen[layer].detach()[:, number]
        else:
            lengths = seen[layer].detach().square().sum(1).sqrt() + 1e-6
            start[torch.arange(COUNT), number, (seen[layer].detach()[:, number] / lengths).argmax(1)] = 1
        [expected] = mode.backward(seen[layer], start, [seen[FIRST]])
    np.testing.assert_allclose(maps.sum(("row", "column")), expected.sum((1, 2)).numpy(), rtol=1e-3, atol=1e-5)
    assert maps.sizes == {"image": COUNT, "row": 16, "column": 16}


def test_gradient_times_activation_is_torch_s_own_gradient(tiny: Callable[..., Model]) -> None:
    model = tiny()
    maps = relevance(model, "2:7", photos(), "gradient-x-activation", node="1")
    first, second, rest = (model.network.get_submodule(str(number)) for number in range(3))
    at = second(first(normalised(model))).detach().requires_grad_()
    own = rest(at.clone())[:, 7]
    (gradient,) = torch.autograd.grad(own, at, own.detach())
    expected = (gradient * at).detach().sum(1).numpy()
    np.testing.assert_allclose(maps.values, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_coordinates_say_where_on_the_photograph_a_site_lies(tiny: Callable[..., Model]) -> None:
    maps = relevance(tiny(), "2:7", photos(2), node="1")
    np.testing.assert_array_equal(maps.row, [2, 6, 10, 14, 18, 22, 26, 30])
    np.testing.assert_array_equal(maps.column, maps.row)
    assert maps.image.values.tolist() == ["0", "1"]


def test_tokens_lie_as_their_patches_do_and_the_class_token_is_left_out() -> None:
    made = torchvision_models().VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=10)
    model = wrap(randomise(made, 0), side=32, **COLOURS)
    layer, node = "encoder.layers.encoder_layer_2", "encoder.layers.encoder_layer_0"
    maps = relevance(model, f"{layer}:5", photos(3), node=node)
    assert maps.shape == (3, 4, 4)
    mode = Relevance()
    images = model.preprocessing.normalise(torch.stack([model.preprocessing.crop(one) for one in photos(3)]))
    with probe(model.network, [node, layer], mode=mode) as run:
        seen = run(images.requires_grad_())
        start = torch.zeros_like(seen[layer])
        start[:, 5] = seen[layer].detach()[:, 5]
        [expected] = mode.backward(seen[layer], start, [seen[node]])
    tokens = expected.sum(1)[:, 1:].reshape(3, 4, 4).numpy()
    np.testing.assert_allclose(maps.values, tokens, rtol=1e-3, atol=1e-4 * np.abs(tokens).max())


def test_neurons_and_nodes_that_are_not_there_are_refused(tiny: Callable[..., Model]) -> None:
    model = tiny()
    with pytest.raises(UnknownNeuron, match="neuron 12 is not in layer '2', which has 12"):
        relevance(model, "2:12", photos(1))
    with pytest.raises(UnknownLayer, match="no layer 'layer4'"):
        relevance(model, "layer4:7", photos(1))
    with pytest.raises(UnknownLayer, match="node '2' does not come before layer '1'"):
        relevance(model, "1:0", photos(1), node="2")
    with pytest.raises(UnsuitableInput, match=r"no layer comes before '0\.0'"):
        relevance(model, "0.0:0", photos(1))
    oblong = wrap(nn.Sequential(nn.Conv2d(3, 4, (3, 1)), nn.Conv2d(4, 5, 1)), side=32, **COLOURS)
    with pytest.raises(UnsuitableInput, match="the 960 sites of '0' are no square map: name another node"):
        relevance(oblong, "1:0", photos(1), node="0")


@pytest.mark.parametrize(
    "name", ["ViT", "ViT@0", "ViT@7", "ViT~pairs", "classes", "2", "2@1,2", "2~pairs", "2~features"]
)
def test_a_response_is_the_peak_that_a_pass_ranks_by(name: str, tiny: Callable[..., Model]) -> None:
    """Each neuron's images in the order of their peaks, and the winning sites, as the pass has them."""
    if name.startswith("ViT"):
        made = torchvision_models().VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=10)
        model = wrap(randomise(made, 0), side=32, **COLOURS)
        name, channels = name.replace("ViT", "encoder.layers.encoder_layer_2"), 32
    else:
        model, channels = tiny(), 12
    pairs = np.random.default_rng(3).normal(size=(20, channels)).astype(np.float32)
    features = Dictionary(pairs, np.full(20, -0.1, np.float32), np.full(20, 0.05, np.float32), k=5)
    layers = replace(survey(model), directions={"pairs": pairs, "features": features})
    crops = torch.stack([model.preprocessing.crop(photo) for photo in photos(6)])
    count = layers.layer(name).channels
    some = [1, 4, count - 1]
    seen = responses(model, layers, {"classes": [3], name: some}, crops)[name]
    np.testing.assert_array_equal(seen.peak, seen.maps.max(-1))
    if name == "classes":  # which are ranked by their labels
        with torch.no_grad():
            logits = model.network(model.preprocessing.normalise(crops))
        np.testing.assert_allclose(seen.peak, logits[:, some].numpy(), rtol=1e-4, atol=1e-5)
        return
    rows = np.arange(len(crops))
    plan = Plan((name,), (), len(crops), 16)
    ranking = gather(model, layers, plan, Batch(crops, rows, rows, [str(row) for row in rows])).rankings[name]
    for column, neuron in enumerate(some):
        taken = ranking.images[neuron] != NOBODY  # a feature that is zero on an image gives it no rank
        images = ranking.images[neuron][taken]
        np.testing.assert_allclose(seen.peak[images, column], ranking.scores[neuron][taken], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(seen.site[images, column], ranking.sites[neuron][taken])


def test_each_image_s_own_neuron_has_the_relevance_that_it_has_alone(tiny: Callable[..., Model]) -> None:
    model = tiny()
    layers = survey(model)
    crops = torch.stack([model.preprocessing.crop(photo) for photo in photos()])
    node = map_node(layers, layers.layer("classes"), model.name)
    assert node is not None
    assert node.name == "2"
    maps = relevance_maps(model, Attribution.of(layers, "classes"), np.arange(COUNT) % 7, crops, node)
    for image in (0, 3, COUNT - 1):
        alone = relevance(model, f"classes:{image % 7}", photos()[image], node="2")
        np.testing.assert_allclose(maps[image], alone.values[0], rtol=1e-4, atol=1e-6)
    assert map_node(layers, layers.layer("0.0")) is None


def test_a_share_counts_what_is_less_and_deviations_are_the_neuron_s_own() -> None:
    sample = np.array([[0.0, 5.0, 1.0], [1.0, 5.0, 2.0], [2.0, 5.0, np.inf], [3.0, 5.0, 2.0]], np.float32)
    share, deviations = standing(np.array([[2.0, 5.0, np.nan], [9.0, 6.0, 1.5]], np.float32), sample)
    np.testing.assert_array_equal(share, [[0.5, 0.0, 0.0], [1.0, 1.0, 0.25]])
    own = np.sqrt(1.25)  # of 0, 1, 2, 3; the second neuron never differs, so the layer's only deviation is its own
    np.testing.assert_allclose(deviations[:, :2], [[0.5 / own, 0.0], [7.5 / own, 1.0 / own]], rtol=1e-6)
    assert np.isnan(deviations[:, 2]).all()
