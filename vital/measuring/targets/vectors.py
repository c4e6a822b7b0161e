"""References as vectors: which channels of an earlier node had to do with a neuron's activation on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from vital.measuring.targets.passes import Crop, forwarding, node_relevance, rounds
from vital.network.arithmetic import rounding, widened
from vital.network.models import Model
from vital.network.neurons import Readout, importance
from vital.network.probe import CLASSES, Layout
from vital.propagation.mode import relevance_mode
from vital.settings import Precision, RelevanceKind


def reference_vectors(
    model: Model,
    layer: str,
    neurons: Sequence[int],
    crops: Iterable[Crop],
    node: str,
    layouts: dict[str, Layout],
    kind: RelevanceKind = "lrp",
    batch: int = 8,
    progress: Callable[[int], None] = lambda references: None,
    readout: Readout | None = None,
    precision: Precision = "float32",
) -> Float[np.ndarray, "reference channel"]:
    """A vector for every reference: the relevance of each channel of ``node`` to its neuron, summed over the sites; for
    classes, which have no relevance, the channel's mean activation.

    ``neurons`` has the neuron of every reference, and a crop's rows are the references that show it; one that no crop
    shows has zeros. The other arguments are those of `measure`. It costs what `measure` costs for one node, without its
    sorting.
    """
    inner, reads = layer != CLASSES, (readout or Readout(layer)).of(neurons)
    mode = relevance_mode(kind) if inner else None
    vectors: np.ndarray | None = None
    source = iter(crops)
    with forwarding(model, [node, reads.layer], layouts, mode, precision, graph=inner) as forward:
        while part := list(islice(source, batch)):
            activations = forward([crop.pixels for crop in part])
            for of, asked, asked_of in rounds([crop.rows for crop in part], neurons, activations[node].device):
                progress(len(of))
                if inner:
                    values = asked_of(node_relevance(mode, activations, reads, [node], asked, kind)[node]).sum(-1)
                else:
                    values = asked_of(activations[node]).mean(-1)
                arrived = widened(values.detach()).numpy(force=True)
                if vectors is None:
                    vectors = np.zeros((len(neurons), arrived.shape[1]), arrived.dtype)
                vectors[of] = arrived
    return np.zeros((len(neurons), 0), np.float32) if vectors is None else vectors


def photo_vectors(
    model: Model,
    layer: str,
    neurons: Int[np.ndarray, "photo"],
    pixels: Num[Tensor, "photo colour side side"],
    node: str,
    layouts: dict[str, Layout],
    kind: RelevanceKind,
    readout: Readout,
    batch: int = 8,
) -> Float[np.ndarray, "photo channel"]:
    """What a neuron's facets are told apart by, of photographs, each for the neuron of its place in ``neurons``: the
    importance of each channel of ``node``, of which a facet's target has the mean over its references
    (`vital.network.neurons.importance`). For classes, which have no relevance, the channel's mean activation; that is
    the mean of a target's sorted rows. Zeros where nothing of a photograph reaches the neuron.
    """
    inner, reads = layer != CLASSES, readout.of(neurons.tolist())
    mode, vectors = relevance_mode(kind) if inner else None, []
    with rounding(), forwarding(model, [node, reads.layer], layouts, mode, "float32", graph=inner) as forward:
        for start in range(0, len(pixels), batch):
            some = slice(start, start + batch)
            activations = forward(list(pixels[some]))
            if inner:
                asked = torch.from_numpy(neurons[some].astype(np.int64)).to(activations[node].device)
                arrived = node_relevance(mode, activations, reads, [node], asked, kind)[node]
                vectors.append(importance(arrived.detach()))
            else:
                vectors.append(activations[node].mean(-1))
    return torch.cat(vectors).float().numpy(force=True)
