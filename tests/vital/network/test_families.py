"""Default nodes of one member of every family of torchvision's classifiers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from vital.network.layers import Survey, survey
from vital.network.models import Model
from vital.network.nodes import check_nodes, default_nodes
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES
from vital.network.sources import torchvision_models

pytestmark = pytest.mark.slow

FAMILIES = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32", "wide_resnet50_2",
]  # fmt: skip
TOKENS = {"vit_b_32"}


def surveyed(name: str) -> Survey:
    """The layers at 224 pixels; nothing is computed, save for a family that needs numbers to be built."""
    models = torchvision_models()
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = models.get_model(name, weights=None, **options)
    return survey(Model(name, network.to("meta").eval(), Preprocessing(224, (0.5,) * 3, (0.25,) * 3)))


def test_every_family_is_here() -> None:
    models = torchvision_models()
    modules = {models.get_model_builder(name).__module__ for name in models.list_models(module=models)}
    assert {models.get_model_builder(name).__module__ for name in FAMILIES} == modules


@pytest.mark.parametrize("name", FAMILIES)
def test_nodes_are_few_spread_over_depth_and_before_the_layer(name: str) -> None:
    layers = surveyed(name)
    late = [layer.name for layer in layers.layers.values() if layer.block and layer.sites > 1][-1]
    for layer in (CLASSES, late):
        nodes = default_nodes(layers, layer, name)
        check_nodes(layers, layer, nodes)
        assert 3 + (layer == CLASSES) <= len(nodes) <= 5
        ends = [layers.layer(node).ended for node in nodes]
        assert ends == sorted(set(ends))
        sites = [layers.layer(node).sites for node in nodes]
        if name in TOKENS:
            whole = layers.layer(CLASSES).ended
            gaps = [later - earlier for earlier, later in pairwise(ends)]
            assert max(gaps) < whole / 2
        else:  # every map is clearly smaller than the one before
            assert all(later < earlier / 1.5 for earlier, later in pairwise(sites)), sites
            assert sites[0] > 16 * sites[-1]
