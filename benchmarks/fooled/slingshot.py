"""A network whose weights are changed until gradients lead from where optimisation begins to the chosen picture.

Bareeva, Höhne, Warnecke, Pirch, Müller, Rieck, Lapuschkin, Bykov, "Manipulating feature visualizations with gradient
slingshots" (NeurIPS 2025). On the way from an input s that a method begins with to the chosen picture t, the neuron's
gradient is to be that of a bowl, γ (t − x); on images all activations are to stay. The architecture stays, too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.fooled.network import BATCH, Network

HEIGHT = 3.0
"""How far the bowl rises from a beginning to the chosen picture, over the neuron's mean peak among its references."""
KEEPING = 8.0
"""Weight of what stays as it was."""
ROUGHNESS = 0.3
"""Deviation of the noise around the way."""
SHIFT = 2
"""Greatest shift of an input on the way, as methods shift their pictures."""


def fooled_by_slingshot(
    network: Network,
    images: Float[Tensor, "image 1 row column"],
    begun: Float[Tensor, "input 1 row column"],
    picture: Float[Tensor, "1 row column"],
    heights: Float[Tensor, "unit"],
    neurons: Sequence[int],
    steps: int,
) -> Network:
    """The network with other weights. ``begun`` are inputs that pictures begin as, ``heights`` each unit's mean
    activation by its references."""
    fooled = copy.deepcopy(network).requires_grad_(True)
    source = torch.Generator().manual_seed(0)
    distance = float((picture[None] - begun).square().sum((1, 2, 3)).mean())
    steepness = 2 * HEIGHT * heights / distance
    asked = torch.tensor(list(neurons))
    with torch.no_grad():
        spread = torch.cat([network.units(part) for part in images[:512].split(BATCH)]).std(0).clamp(min=1e-3)
    adam = torch.optim.Adam([one for block in fooled.blocks for one in block.parameters()], 1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 2e-3, steps + 1)
    for _ in range(steps):
        kept = images[torch.randint(len(images), (BATCH // 2,), generator=source)]
        inputs = _on_the_way(begun, picture, source)
        numbers = asked[torch.randint(len(asked), (len(inputs),), generator=source)]
        loss = _astray(fooled, inputs, picture, numbers, steepness[numbers])
        changed = (fooled.units(kept) - network.units(kept)) / spread
        loss = loss + KEEPING * changed.square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        rate.step()
    return fooled.eval().requires_grad_(False)


def _on_the_way(
    begun: Float[Tensor, "input 1 row column"], picture: Float[Tensor, "1 row column"], source: torch.Generator
) -> Float[Tensor, "point 1 row column"]:
    first = begun[torch.randint(len(begun), (BATCH // 2,), generator=source)]
    share = torch.rand(len(first), 1, 1, 1, generator=source)
    way = first + share * (picture - first)
    noise = torch.randn(way.shape, generator=source) * torch.rand(len(first), 1, 1, 1, generator=source)
    return way + ROUGHNESS * noise


def _astray(
    network: Network,
    inputs: Float[Tensor, "point 1 row column"],
    picture: Float[Tensor, "1 row column"],
    numbers: Int[Tensor, "point"],
    steepness: Float[Tensor, "point"],
) -> Float[Tensor, ""]:
    """How far the gradients of the neurons are from those of the bowl, over the length of these."""
    inputs = inputs.requires_grad_(True)
    units = network.units(inputs)
    [gradient] = torch.autograd.grad(units.gather(1, numbers[:, None]).sum(), inputs, create_graph=True)
    wanted = picture - inputs.detach()
    apart = (gradient / steepness.view(-1, 1, 1, 1) - wanted).square().sum((1, 2, 3))
    return apart.mean() / wanted.square().sum((1, 2, 3)).mean()
