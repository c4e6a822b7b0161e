"""A network that is asked for relevance in several ways: the library's kinds, and candidates where it is folded."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.evidence.candidates import CANDIDATES, Candidate, Rule
from vital.measuring.targets import node_relevance
from vital.network.layers import Survey, survey
from vital.network.models import Model, at_side, load_model
from vital.network.neurons import Readout
from vital.network.nodes import default_nodes
from vital.network.probe import probe
from vital.propagation.mode import relevance_mode
from vital.settings import ModelSettings, RelevanceKind

BATCH = 8


@dataclass(frozen=True)
class Way:
    """How relevance is computed: a kind of the library, whose rules a candidate may replace."""

    name: str
    kind: RelevanceKind
    rule: Rule | None = None


WAYS = (
    Way("lrp", "lrp"),
    Way("lrp-gamma", "lrp-gamma"),
    Way("gradient-x-activation", "gradient-x-activation"),
    *(Way(name, "lrp", rule) for name, rule in CANDIDATES.items()),
    Way("lrp-restricted", "lrp-restricted"),
    Way("restricted, γ = 0.25, bias takes", "lrp-restricted", Rule(0.25, "takes")),
    Way("restricted, ε, bias takes", "lrp-restricted", CANDIDATES["ε, bias takes"]),
)


@dataclass(frozen=True, eq=False)
class Seen:
    """Of some images: activations of the nodes and the layer, and relevance at every node."""

    activations: Mapping[str, Float[Tensor, "image _channel _site"]]
    relevance: Mapping[str, Float[Tensor, "image _channel _site"]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, the same with its norms folded, and its layers."""

    model: Model
    folded: Model
    survey: Survey

    def nodes(self, layer: str) -> tuple[str, ...]:
        """The nodes that are matched for a layer by default."""
        return default_nodes(self.survey, layer, self.model.name)

    def relevance(
        self,
        way: Way,
        layer: str,
        nodes: Sequence[str],
        neurons: Int[Tensor, "image"],
        pixels: UInt8[Tensor, "image 3 side side"],
    ) -> Seen:
        """Relevance of each image's own neuron."""
        model = self.folded if way.rule else self.model
        mode = Candidate(way.rule) if way.rule else relevance_mode(way.kind)
        with probe(model.network, [*nodes, layer], self.survey.layouts(), mode) as run:
            seen = run(model.preprocessing.normalise(pixels).requires_grad_())
            found = node_relevance(mode, seen, Readout(layer), nodes, neurons, way.kind)
        return Seen({name: one.detach() for name, one in seen.items()}, found)

    def peaks(self, layer: str, pixels: UInt8[Tensor, "image 3 side side"]) -> Float[Tensor, "image neuron"]:
        """Every neuron's greatest activation in every image."""
        with torch.inference_mode(), probe(self.model.network, [layer], self.survey.layouts()) as run:
            parts = (run(self.model.preprocessing.normalise(part))[layer] for part in pixels.split(BATCH))
            return torch.cat([part.amax(-1) for part in parts])


def subject(name: str, side: int) -> Subject:
    """A network of the library by its name, for images of this side."""
    model = at_side(load_model(ModelSettings(name=name)), side)
    return Subject(model, folded(model), survey(model))


def folded(model: Model) -> Model:
    """The model with each batch norm in the convolution before it, so that biases are known where terms are."""
    network = copy.deepcopy(model.network)
    names = {module: name for name, module in network.named_modules()}
    last: list[tuple[nn.Module, Tensor]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(module: nn.Module, given: Any, output: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d) and last and last[0][1] is given[0]:
            pairs.append((last[0][0], module))  # type: ignore[arg-type]
        last[:] = [(module, output)] if isinstance(module, nn.Conv2d) else []

    watched = [one for one in names if isinstance(one, (nn.Conv2d, nn.BatchNorm2d))]
    handles = [one.register_forward_hook(note) for one in watched]
    side = model.preprocessing.side
    with torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    for handle in handles:
        handle.remove()
    for convolution, norm in pairs:
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        parent, _, child = names[norm].rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
    return replace(model, network=network.requires_grad_(False))
