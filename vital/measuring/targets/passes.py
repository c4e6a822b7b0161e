"""References go through a network: several are forwarded together, and each neuron asks for its own relevance of its
references."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int, Num
from torch import Tensor

from vital.memory import pinned
from vital.network.arithmetic import arithmetic
from vital.network.layers import Survey
from vital.network.models import Model
from vital.network.neurons import Readout
from vital.network.probe import CLASSES, INPUT, Activations, Layout, anchor, probe
from vital.propagation.mode import Relevance, gradient_times_activation, relevance_mode
from vital.settings import Precision, RelevanceKind


@dataclass(frozen=True)
class Crop:
    """One reference to measure: pixels at the input's size, and the rows (positions among the neurons) that it is a
    reference of."""

    pixels: Num[Tensor, "colour side side"]
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Attribution:
    """How neurons of a layer are attributed to what comes before: what they read, and by which relevance.

    Classes have no relevance: of their references only activations are known.
    """

    layer: str
    """The neurons' layer; with a ``readout`` its name alone."""
    kind: RelevanceKind = "lrp"
    """How relevance to a neuron inside the network is computed."""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """Where each layer keeps its channels (`vital.network.layers.Survey.layouts`); guessed by default."""
    readout: Readout | None = None
    """How the neurons read their layer, where they are not its channels."""
    precision: Precision = "float32"
    """Arithmetic of the network; what it gives is sorted and summed in single precision at least."""

    @classmethod
    def of(
        cls, survey: Survey, layer: str, kind: RelevanceKind = "lrp", precision: Precision = "float32"
    ) -> Attribution:
        """That of a layer as the network was surveyed."""
        return cls(layer, kind, survey.layouts(), survey.layer(layer).readout, precision)

    @property
    def inner(self) -> bool:
        """Whether the neurons are inside the network, and no classes."""
        return self.layer != CLASSES

    def reads(self, neurons: Sequence[int] | Int[np.ndarray, "some"]) -> Readout:
        """How some of the neurons read their layer."""
        return (self.readout or Readout(self.layer)).of(neurons)

    @contextmanager
    def passes(self, model: Model, nodes: Sequence[str], neurons: Sequence[int]) -> Iterator[Passes]:
        """Passes of the network that show ``nodes`` and the neurons' layer, while the block lasts; also where the
        caller has switched gradients off."""
        reads = self.reads(neurons)
        mode = relevance_mode(self.kind) if self.inner else None
        with (
            torch.inference_mode(False),
            arithmetic(model, self.precision) as used,
            probe(used.network, [*nodes, reads.layer], self.layouts, mode) as run,
        ):
            yield Passes(self, used, run, mode, reads)


@dataclass(frozen=True, eq=False)
class Passes:
    """A network that references go through."""

    attribution: Attribution
    model: Model
    run: Callable[[Tensor], Activations]
    mode: Relevance | None
    """What relevance is asked of; None where there is none, or where the gradient serves."""
    reads: Readout

    def forward(self, pixels: Sequence[Num[Tensor, "colour side side"]]) -> Activations:
        """What the network makes of some images; of classes no graph is kept."""
        weight, graph = anchor(self.model.network), self.attribution.inner
        images = self.model.preprocessing.normalise(on(weight.device, torch.stack(list(pixels))))
        with torch.set_grad_enabled(graph):
            return self.run(images.to(weight.dtype).requires_grad_(graph))

    def relevance(self, activations: Activations, nodes: Sequence[str], neurons: Int[Tensor, "image"]) -> Activations:
        """Relevance at ``nodes`` of the neuron that is asked of each image."""
        return node_relevance(self.mode, activations, self.reads, nodes, neurons, self.attribution.kind)


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
