"""The gradient of the paper's objective in float64, where the order of sums decides nothing: exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.reference import formulas, gradients
from tests.reference.gradients import NodeObjective
from tests.reference.networks import Residual, literal_relevance, randomise
from vital.measuring.rows import sort_rows
from vital.measuring.targets import node_relevance
from vital.network.neurons import Readout, importance, relevance_map
from vital.network.probe import probe
from vital.pictures.losses import frobenius, sort_matching, total_variation
from vital.propagation.mode import Relevance

SIDE, CHANNEL, TV, L2 = 16, 2, 1e-3, 1e-2
WEIGHTS = {"conv1": 0.5, "pool": 2.0}
EXACT = 1e-9
"""Relative to the greatest entry; float64 itself gives about 1e-15."""

Kind = Literal["lrp", "lrp-restricted"]


def network_and_images(seed: int) -> tuple[Residual, Tensor, Tensor]:
    """A network, three references and a picture."""
    network = Residual()
    randomise(network.double(), seed)
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return network, images[:3], images[3:]


def agree(network: Residual, picture: Tensor, total: Tensor, nodes: Mapping[str, NodeObjective]) -> None:
    """The loss and its gradient are the literal ones."""
    (found,) = torch.autograd.grad(total, picture)
    at = picture[0].detach().numpy()
    expected = gradients.gradient(network, at, nodes, TV, L2)
    assert total.item() == pytest.approx(gradients.objective(network, at, nodes, TV, L2), rel=EXACT)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=EXACT * np.abs(expected).max())


def with_priors(losses: Mapping[str, Tensor], weights: Mapping[str, float], picture: Tensor) -> Tensor:
    matching = torch.stack([weights[node] * loss for node, loss in losses.items()]).sum()
    return matching + TV * total_variation(picture)[0] + L2 * frobenius(picture)[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_class_s_gradient_is_exact(seed: int) -> None:
    network, references, picture = network_and_images(seed)
    weights = {**WEIGHTS, "out": 1.5}
    with probe(network, list(weights)) as run:
        with torch.no_grad():
            quantiles = {node: sort_rows(seen).mean(0) for node, seen in run(references).items()}
        seen = run(picture.requires_grad_())
    losses = {node: sort_matching(seen[node], quantiles[node][None])[0] for node in weights}
    reference_maps = [gradients.forward(network, image.numpy()) for image in references]
    nodes = {}
    for node, weight in weights.items():
        rows = [np.sort(maps[node].reshape(len(maps[node]), -1), axis=1) for maps in reference_maps]
        nodes[node] = NodeObjective(weight, np.mean(rows, 0))
    agree(network, picture, with_priors(losses, weights, picture), nodes)


@pytest.mark.parametrize("kind", ["lrp", "lrp-restricted"])
@pytest.mark.parametrize("seed", range(3))
def test_a_channel_s_gradient_is_exact(seed: int, kind: Kind) -> None:
    network, references, picture = network_and_images(seed)
    mode = Relevance()

    def measured(images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with probe(network, [*WEIGHTS, "out"], mode=mode) as run:
            seen = run(images.requires_grad_())
        neurons = torch.full((len(images),), CHANNEL)
        return seen, node_relevance(mode, seen, Readout("out"), list(WEIGHTS), neurons, kind)

    at_references, of_references = measured(references)
    seen, relevance = measured(picture)
    losses = {}
    for node in WEIGHTS:
        quantiles = sort_rows(relevance_map(of_references[node]) * at_references[node].detach()).mean(0)
        weight = importance(of_references[node]).mean(0)
        losses[node] = sort_matching(seen[node], quantiles[None], weight[None], relevance[node])[0]
    agree(network, picture, with_priors(losses, WEIGHTS, picture), literal_nodes(network, references, picture, kind))


def literal_nodes(network: Residual, references: Tensor, picture: Tensor, kind: Kind) -> dict[str, NodeObjective]:
    """Everything again from the formulas: relevance, its maps, importance and quantiles."""
    restricted = kind == "lrp-restricted"
    literal = [literal_relevance(network, image.detach(), CHANNEL, restricted) for image in (*references, picture[0])]
    nodes = {}
    for node, weight in WEIGHTS.items():
        relevances = [one.relevance[node].reshape(len(one.relevance[node]), -1) for one in literal]
        rows = [one.activations[node].reshape(relevances[0].shape) for one in literal]
        maps = [formulas.relevance_map(relevance) for relevance in relevances]
        sorted_rows = [np.sort(a * b, axis=1) for a, b in zip(maps[:-1], rows[:-1], strict=True)]
        nodes[node] = NodeObjective(
            weight, np.mean(sorted_rows, 0), formulas.importance(relevances[:-1]), relevances[-1]
        )
    return nodes
