"""How much relevance arrives at the default nodes of every architecture, as a Markdown table: docs/relevance.md.

``python benchmarks/conservation.py [NAME …]``. torchvision's networks have random weights, their batch norms the
statistics of the pictures that are shown (1/f noise); EfficientNet-Lite0 has its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

import torch
from torch import Tensor, nn

from vital.network.layers import survey
from vital.network.models import Model, load_model
from vital.network.nodes import default_nodes
from vital.propagation.conservation import conservation, liveliest, noise
from vital.settings import EMBEDDED, ModelSettings

NAMES = (
    "resnet18", "resnet50", "vgg16", "densenet121", "convnext_tiny", "efficientnet_b0", EMBEDDED, "mobilenet_v3_small",
    "regnet_y_400mf", "squeezenet1_1", "shufflenet_v2_x1_0", "googlenet", "inception_v3", "mnasnet1_0", "vit_b_16",
    "swin_t", "swin_v2_t", "maxvit_t",
)  # fmt: skip
SIDES = {"inception_v3": 299, "swin_v2_t": 256}
IMAGES = 4


def settled(model: Model, images: Tensor) -> Model:
    """The model with batch norms that know these images: as initialised, some networks' activations vanish."""
    norms = [module for module in model.network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model.network(images)
    for norm in norms:
        norm.eval()
    return model


def row(name: str) -> str:
    """A line of the table: shares at the nodes, the first of the network first, and what each operation lost."""
    side = SIDES.get(name, 224)
    weights = None if name == EMBEDDED else "random"
    model = load_model(ModelSettings(name=name, weights=weights, input_size=side))
    images = noise(model, IMAGES)
    if name != EMBEDDED:
        settled(model, images)
    found = survey(model)
    layer = [block.name for block in found.layers.values() if block.block and block.sites > 1][-1]
    nodes = default_nodes(found, layer, name)
    shares = conservation(model, found, layer, nodes, liveliest(model, found, layer, images), images)
    arrived = ", ".join(f"{share:.4f}" for share in shares.arrived.values())
    lost = ", ".join(f"{where} {share:.4f}" for where, share in shares.lost.items() if abs(share) >= 5e-5)
    return f"| {name} | {layer} | {arrived} | {lost or '–'} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks, all of the table by default")
    names = parser.parse_args().names or NAMES
    print("| network | neurons of | arrives at the default nodes, first to last | lost on the way to the first |")
    print("|---|---|---|---|")
    for name in names:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
