"""What a picture's activations must match, measured on a neuron's references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int

from vital.measuring.exact import ExactRows
from vital.measuring.rows import stored_levels, stored_rows
from vital.measuring.targets.passes import Attribution, Crop, on, rounds
from vital.network.arithmetic import widened
from vital.network.models import Model
from vital.network.neurons import Readout, importance, relevance_map
from vital.network.probe import CLASSES, INPUT


@dataclass(frozen=True)
class NodeTarget:
    """A node's part of a target, at ``levels``. Class neurons have neither ``relevant`` rows nor ``importance``."""

    levels: Float[np.ndarray, "level"]
    quantiles: Float[np.ndarray, "neuron channel level"]
    relevant: Float[np.ndarray, "neuron channel level"] | None = None
    importance: Float[np.ndarray, "neuron channel"] | None = None
    usual: Float[np.ndarray, "channel level"] | None = None
    """The mean sorted row of the whole data set, where it is known: what is particular to a neuron differs from it."""
    deviation: Float[np.ndarray, "channel"] | None = None
    """Standard deviation over the data set's images of each channel's mean, where it is known."""
    trend: Float[np.ndarray, "neuron channel level"] | None = None
    """How far rows are from what is usual where a neuron is as active as on its references, as images of every strength
    have it (`vital.measuring.targets.trend`); where it is known."""

    def caricature(
        self, count: Int[np.ndarray, "neuron"], emphasis: float
    ) -> Float[np.ndarray, "neuron channel level"]:
        """Rows pushed from what is usual, ``emphasis`` times further than they are; as they are with none, and where
        what is usual is not known. What is particular to a neuron is its `trend`, and where this is not known the
        difference of its references, as far as they share it."""
        if emphasis == 0 or self.usual is None:
            return self.quantiles
        particular = self.trend
        if particular is None:
            particular = self.shared(count)[..., None] * (self.quantiles - self.usual)
        rows: np.ndarray = (self.usual + particular * (1 + emphasis)).astype(np.float32)
        return rows

    def shared(self, count: Int[np.ndarray, "neuron"]) -> Float[np.ndarray, "neuron channel"]:
        """How much of each channel's difference from the data set the neurons' references share, of which there are
        ``count``: 1 − 1/t², at least 0, where t is the difference of their mean in standard errors. Of a difference
        that chance makes of as many images nothing is left (James and Stein, "Estimation with quadratic loss", 1961,
        a channel at a time). 1 where the data set's rows or their deviation are not known.
        """
        mean = self.quantiles.mean(-1, dtype=np.float64)
        if self.usual is None or self.deviation is None:
            return np.ones_like(mean)
        square = (mean - self.usual.mean(-1, dtype=np.float64)) ** 2
        error = self.deviation.astype(np.float64) ** 2 / np.maximum(count, 1)[:, None]
        share: np.ndarray = np.maximum(1 - error / np.where(square > 0, square, np.inf), 0)
        return np.where(square > 0, share, 0)


@dataclass(frozen=True)
class Target:
    """Targets of some neurons of a layer: per node, and the neurons' ``own`` sorted activations."""

    layer: str
    neurons: Int[np.ndarray, "neuron"]
    nodes: Mapping[str, NodeTarget]
    own_levels: Float[np.ndarray, "level"]
    own: Float[np.ndarray, "neuron level"]
    count: Int[np.ndarray, "neuron"]
    readout: Readout | None = None
    """How the neurons read their layer; its channels, where there is none."""

    @property
    def reads(self) -> Readout:
        """The readout, which is of the layer's channels where none is given."""
        return self.readout or Readout(self.layer)

    @property
    def classes(self) -> bool:
        """Whether the neurons are classes."""
        return self.layer == CLASSES

    def __len__(self) -> int:
        return len(self.neurons)

    def take(self, rows: slice) -> Target:
        """The target of the neurons in these rows."""
        nodes = {
            name: NodeTarget(
                node.levels,
                node.quantiles[rows],
                None if node.relevant is None else node.relevant[rows],
                None if node.importance is None else node.importance[rows],
                node.usual,
                node.deviation,
                None if node.trend is None else node.trend[rows],
            )
            for name, node in self.nodes.items()
        }
        return Target(
            self.layer, self.neurons[rows], nodes, self.own_levels, self.own[rows], self.count[rows], self.readout
        )


def measure(
    model: Model,
    attribution: Attribution,
    neurons: Sequence[int],
    crops: Iterable[Crop],
    nodes: Sequence[str],
    *,
    levels: int = 128,
    batch: int = 8,
    progress: Callable[[int], None] = lambda references: None,
) -> Target:
    """Targets of neurons of a layer from their references (VITAL, sections 3.1 and 3.2).

    Each crop is forwarded once, however many of the neurons it is a reference of; each neuron asks for its own
    relevance of it. Sums are exact, so that a target does not depend on the crops' order or on which neurons are
    measured together, beyond the network's own passes, which on some processors depend on the size of a batch. Crops
    are taken as they come: those that are references of equally many neurons should come one after the other, so that
    no round runs for a few of a batch. Memory: 16 bytes on the device for each number of the targets, and one batch's
    activations.

    Args:
        model: network and preprocessing, on the device where sums are kept.
        attribution: the neurons' layer, and how they are attributed to the nodes.
        neurons: numbers of the neurons, a row of the target each.
        crops: the references, each with the rows that it is a reference of.
        nodes: layers whose activations are to be matched, in the order in which they run.
        levels: levels kept of a sorted row with more sites than that.
        batch: crops in one pass.
        progress: told of every round's references.
    """
    sums = ExactRows(len(neurons))
    count = np.zeros(len(neurons), np.int64)
    sites: dict[str, int] = {}
    source, inner = iter(crops), attribution.inner
    with attribution.passes(model, nodes, neurons) as passes:
        reads = passes.reads
        while part := list(islice(source, batch)):
            activations = passes.forward([crop.pixels for crop in part])
            device = activations[reads.layer].device
            precise = {name: widened(read.detach()) for name, read in activations.items()}
            sites = {name: read.shape[-1] for name, read in activations.items()}
            stored = {name: stored_rows(precise[name], levels) for name in nodes}
            for of, asked, asked_of in rounds([crop.rows for crop in part], neurons, device):
                progress(len(of))
                np.add.at(count, of, 1)  # a neuron may have several crops in one batch
                rows = on(device, torch.tensor(of, device="cpu"))
                sums.add(
                    "own", rows, stored_rows(asked_of(reads.own(precise[reads.layer], asked))[:, None], levels)[:, 0]
                )
                for name in nodes:
                    sums.add(f"{name}/quantiles", rows, asked_of(stored[name]))
                relevances = passes.relevance(activations, nodes, asked) if inner else {}
                for name, relevance in relevances.items():
                    arrived = widened(asked_of(relevance))
                    matched = relevance_map(arrived) * asked_of(precise[name])
                    sums.add(f"{name}/relevant", rows, stored_rows(matched, levels))
                    sums.add(f"{name}/importance", rows, importance(arrived))
    parts = {
        name: _node_target(sums, name, count, stored_levels(sites[name], levels), inner and name != INPUT)
        for name in nodes
    }
    own_levels = stored_levels(1 if reads.site is not None else sites[reads.layer], levels)
    own = sums.mean("own", count).astype(np.float32)
    return Target(attribution.layer, np.asarray(neurons), parts, own_levels, own, count, attribution.readout)


def _node_target(
    sums: ExactRows, node: str, count: Int[np.ndarray, "neuron"], levels: Float[np.ndarray, "level"], relevance: bool
) -> NodeTarget:
    """What was added of a node, as means over each neuron's references."""
    kinds = ("quantiles", "relevant", "importance") if relevance else ("quantiles",)
    return NodeTarget(levels, *(sums.mean(f"{node}/{kind}", count).astype(np.float32) for kind in kinds))
