"""How much relevance arrives at a node of what was started, and which operations lost the rest.

No rule makes relevance; published ones lose some of it: ε in a denominator, an output that nothing contributed
to positively, a bias or another constant that took part in a sum of activations, padding. What is lost stays visible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import resolve_name

from vital.errors import UnsuitableInput
from vital.network.layers import Survey
from vital.network.models import Model
from vital.network.neurons import check_neurons
from vital.network.nodes import check_nodes
from vital.network.probe import anchor, probe
from vital.propagation.mode import Relevance
from vital.settings import RelevanceKind

ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Conservation:
    """Shares of the relevance that was started, all images and neurons together."""

    arrived: Mapping[str, float]
    """Sum at each node over the sum at the start; nodes side by side, as on two branches, each have a part."""
    lost: Mapping[str, float]
    """What went into the rule of each kind of operation and did not come out, on the way to the first node; under
    `ELSEWHERE`, what ended in padding or parameters, or went by that node."""


class _Audit(Relevance):
    """A pass that also adds up what every rule loses, by the name of its operation."""

    def __init__(self, kind: RelevanceKind) -> None:
        super().__init__(kind)
        self.lost: dict[str, float] = defaultdict(float)
        self._name = ""

    def operate(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run the operation, and note its name for the rule that follows it."""
        self._name = (resolve_name(func) or getattr(func, "__name__", repr(func))).rpartition(".")[2].strip("_")
        return super().operate(func, args, kwargs)

    def follow(self, output: Tensor, inputs: Sequence[Tensor], rule: Any) -> Tensor:
        """Let the rule follow, and add up what goes into it and does not come out."""
        name = self._name

        def watched(upstream: Tensor) -> tuple[Tensor | None, ...]:
            parts: tuple[Tensor | None, ...] = rule(upstream)
            given = float(upstream.double().sum())
            self.lost[name] += given - sum(float(part.double().sum()) for part in parts if part is not None)
            return parts

        return super().follow(output, inputs, watched)


@torch.inference_mode(False)
@torch.enable_grad()
def conservation(
    model: Model,
    survey: Survey,
    layer: str,
    nodes: Sequence[str],
    neurons: Sequence[int],
    images: Float[Tensor, "image colour row column"],
    *,
    kind: RelevanceKind = "lrp",
) -> Conservation:
    """Relevance of one neuron of ``layer`` on each of ``images`` (normalised; ``neurons`` has one number an image), at
    every node.

    Raises `UnknownLayer` for a node that does not come before the layer, `UnknownNeuron`, `UnsupportedOperation` as
    measuring does, and `UnsuitableInput` where conservation means nothing: for the gradient times the activation, and
    where no neuron is active.
    """
    if not nodes:
        raise UnsuitableInput(f"layer {layer!r} has no nodes before it where relevance could arrive: name a later one")
    if kind == "gradient-x-activation":
        raise UnsuitableInput("gradient-x-activation hands on a derivative, which is not conserved: ask for lrp")
    check_nodes(survey, layer, nodes)
    check_neurons(layer, survey.layer(layer).channels, neurons)
    reads, audit = survey.layer(layer).reads.of(neurons), _Audit(kind)
    with probe(model.network, [*nodes, reads.layer], survey.layouts(), audit) as run:
        activations = run(images.detach().requires_grad_())
    # Relevance of a class begins with its logit.
    start = reads.start(activations[reads.layer], torch.tensor(neurons, device=images.device), kind)
    begun = float(start.double().sum())
    if begun == 0:
        raise UnsuitableInput(
            f"none of the neurons of {layer!r} is active on these images, so there is no relevance to follow: "
            "take others"
        )
    at_nodes = audit.backward(
        activations[reads.layer], start, [activations[node] for node in nodes], retain_graph=False
    )
    arrived = {node: float(relevance.double().sum()) / begun for node, relevance in zip(nodes, at_nodes, strict=True)}
    lost = {name: value / begun for name, value in sorted(audit.lost.items(), key=lambda item: -abs(item[1]))}
    first = min(nodes, key=lambda node: survey.layer(node).ended)
    lost[ELSEWHERE] = 1 - arrived[first] - sum(lost.values())
    return Conservation(arrived, lost)


def liveliest(model: Model, survey: Survey, layer: str, images: Float[Tensor, "image colour row column"]) -> list[int]:
    """The neuron of ``layer`` that each image activates most in total, so that there is relevance to follow."""
    reads = survey.layer(layer).reads
    with torch.inference_mode(), probe(model.network, [reads.layer], survey.layouts()) as run:
        return [int(neuron) for neuron in reads.maps(run(images)[reads.layer]).sum(-1).argmax(1)]


def noise(model: Model, count: int, seed: int = 0) -> Float[Tensor, "image colour side side"]:
    """Pictures of 1/f noise in the network's units: as smooth as photographs, and the same everywhere."""
    side = model.preprocessing.side
    stream = torch.Generator().manual_seed(seed)
    rows, columns = torch.fft.fftfreq(side, device="cpu")[:, None], torch.fft.rfftfreq(side, device="cpu")[None]
    amplitude = 1 / (rows.square() + columns.square()).sqrt().clamp(min=1 / side)
    plain = torch.randn(count, model.preprocessing.colours, side, side, generator=stream, device="cpu")
    spectrum = torch.fft.rfft2(plain) * amplitude
    pictures = torch.fft.irfft2(spectrum, s=(side, side))
    weight = anchor(model.network)
    scaled: Tensor = pictures / pictures.std((1, 2, 3), keepdim=True)
    return scaled.to(weight.device, weight.dtype)
