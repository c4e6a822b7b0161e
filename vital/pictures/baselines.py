"""The losses of other methods, the baselines: minus how far a picture activates its neuron.

All run in the optimiser of `vital.pictures.optimise`, as batched and with as many steps. ``pixel``: Erhan, Bengio,
Courville, Vincent, "Visualizing higher-layer features of a deep network" (2009), with the norm of Simonyan, Vedaldi,
Zisserman (2014), who square it. ``fourier``: Olah, Mordvintsev, Schubert, "Feature visualization" (Distill, 2017).
``maco``: Fel et al., "Unlocking feature visualization for deeper networks with MAgnitude Constrained Optimization"
(2023). ``deepinversion``: Yin et al., "Dreaming to distill" (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vital.errors import UnsuitableInput
from vital.measuring.targets import Target
from vital.network.models import Model
from vital.network.probe import Activations, anchor
from vital.settings import PictureSettings

FIRST_NORM = 10.0
"""The first batch norm weighs this much more than the others, as published."""


def check_method(model: Model, settings: PictureSettings) -> None:
    """Raises `UnsuitableInput` where the method asks for what the network does not have."""
    if settings.norm_matching > 0 and not _norms(model.network):
        raise UnsuitableInput(
            f"method {settings.method!r} matches the statistics kept by batch norms but {model.name} has none: "
            "choose another method, such as fourier"
        )


@contextmanager
def ascent(
    model: Model, target: Target, settings: PictureSettings
) -> Iterator[Callable[[Activations], Float[Tensor, "picture"]]]:
    """The loss of every picture from the activations of one step, while the block lasts.

    A channel's activation is the mean of its map, as usual, a class's its logit; ``deepinversion`` takes the
    cross-entropy for classes, and adds the distance of every batch norm's inputs from what it kept of the data. That
    distance is each picture's own: published, it is of the whole batch, which ties its pictures together.
    """
    weight = anchor(model.network)
    neurons, reads = torch.from_numpy(target.neurons).to(weight.device), target.reads.of(target.neurons)
    with _norm_distances(model.network if settings.norm_matching > 0 else nn.Identity()) as distances:

        def objective(activations: Activations) -> Float[Tensor, "picture"]:
            read = activations[reads.layer].float()
            if target.classes and settings.method == "deepinversion":
                loss = nn.functional.cross_entropy(read[..., 0], neurons, reduction="none")
            else:
                loss = -reads.own(read, neurons).mean(1)
            if settings.norm_matching > 0:
                if not distances:
                    raise UnsuitableInput(
                        f"method {settings.method!r} matches the statistics kept by batch norms but none runs before "
                        f"layer {reads.layer!r}: name a later layer, or another method, such as fourier"
                    )
                loss = loss + settings.norm_matching * torch.stack(distances).sum(0)
                distances.clear()
            return loss

        yield objective


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [
        module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    ]


@contextmanager
def _norm_distances(network: nn.Module) -> Iterator[list[Float[Tensor, "picture"]]]:
    """|mean − kept mean| + |variance − kept variance| of the input of every batch norm that runs, per picture."""
    distances: list[Tensor] = []

    def watch(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        maps = inputs[0].float().flatten(2)
        mean, variance = maps.mean(-1), maps.var(-1, correction=0)
        apart = torch.linalg.vector_norm(mean - norm.running_mean, dim=1)
        apart = apart + torch.linalg.vector_norm(variance - norm.running_var, dim=1)
        distances.append(apart * (1 if distances else FIRST_NORM))

    handles = [norm.register_forward_pre_hook(watch) for norm in _norms(network)]
    # Of this pass alone: one before may have been broken off, or been of other pictures.
    handles.append(network.register_forward_pre_hook(lambda network, inputs: distances.clear()))
    try:
        yield distances
    finally:
        for handle in handles:
            handle.remove()
