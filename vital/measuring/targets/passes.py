"""References go through a network: several are forwarded together, and each neuron asks for its own relevance of its
references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Int, Num
from torch import Tensor

from vital.memory import pinned
from vital.network.arithmetic import arithmetic
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.probe import INPUT, Activations, Layout, anchor, probe
from vital.propagation.mode import Relevance, gradient_times_activation
from vital.settings import Precision, RelevanceKind


@dataclass(frozen=True)
class Crop:
    """One reference to measure: pixels at the input's size, and the rows (positions among the neurons) that it is a
    reference of."""

    pixels: Num[Tensor, "colour side side"]
    rows: tuple[int, ...]


@contextmanager
def forwarding(
    model: Model,
    names: Sequence[str],
    layouts: dict[str, Layout],
    mode: Relevance | None,
    precision: Precision,
    graph: bool,
) -> Iterator[Callable[[Sequence[Num[Tensor, "colour side side"]]], Activations]]:
    """A function from pixels to the activations of ``names``, while the block lasts. With a ``graph`` relevance and
    gradients of them can be asked for, also where the caller has switched these off."""
    with (
        torch.inference_mode(False),
        arithmetic(model, precision) as model,
        probe(model.network, names, layouts, mode) as run,
    ):
        weight = anchor(model.network)

        def forward(pixels: Sequence[Num[Tensor, "colour side side"]]) -> Activations:
            images = model.preprocessing.normalise(on(weight.device, torch.stack(list(pixels))))
            with torch.set_grad_enabled(graph):
                return run(images.to(weight.dtype).requires_grad_(graph))

        yield forward


def rounds(
    rows: Sequence[tuple[int, ...]], neurons: Sequence[int], device: torch.device
) -> Iterator[tuple[list[int], Int[Tensor, "image"], Callable[[Tensor], Tensor]]]:
    """The rounds that a batch of crops is asked in, given the rows of ``neurons`` that each is a reference of: round r
    asks for the r-th neuron of every crop that has one.

    Of each round: the rows asked for, the neuron of every crop of the batch, and what takes of values of all crops
    those that are asked.
    """
    for turn in range(max(map(len, rows))):
        present = [index for index, one in enumerate(rows) if turn < len(one)]
        of = [rows[index][turn] for index in present]
        asked = torch.full((len(rows),), neurons[of[0]], device="cpu")  # of the others nothing is kept
        asked[present] = torch.tensor([neurons[row] for row in of], device="cpu")
        yield of, on(device, asked), _of_all(len(rows), present, device)


def on(device: torch.device, values: Tensor) -> Tensor:
    """Values of the host on the device, which the host does not wait for."""
    return pinned(values, device).to(device, non_blocking=True)


def _of_all(count: int, present: Sequence[int], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Takes of ``count`` images those that are ``present``; all of them without a copy."""
    if len(present) == count:
        return lambda values: values
    chosen = on(device, torch.tensor(present, device="cpu"))
    return lambda values: values[chosen]


def node_relevance(
    mode: Relevance | None,
    activations: Activations,
    reads: Readout,
    nodes: Sequence[str],
    neurons: Int[Tensor, "image"],
    kind: RelevanceKind,
) -> Activations:
    """Relevance at every node of each image's own neuron; none at the input, where z⁺ means nothing."""
    nodes = [name for name in nodes if name != INPUT]
    if not nodes:
        return {}
    read = activations[reads.layer]
    start = reads.start(read, neurons, kind)
    if mode is None:
        return gradient_times_activation(read, start, {name: activations[name] for name in nodes})
    return dict(zip(nodes, mode.backward(read, start, [activations[name] for name in nodes]), strict=True))
