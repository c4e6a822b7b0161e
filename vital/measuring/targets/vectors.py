"""References as vectors: which channels of an earlier node had to do with a neuron's activation on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from vital.measuring.targets.passes import Attribution, Crop, rounds
from vital.network.arithmetic import rounding, widened
from vital.network.models import Model
from vital.network.neurons import importance


def reference_vectors(
    model: Model,
    attribution: Attribution,
    neurons: Sequence[int],
    crops: Iterable[Crop],
    node: str,
    *,
    batch: int = 8,
    progress: Callable[[int], None] = lambda references: None,
) -> Float[np.ndarray, "reference channel"]:
    """A vector for every reference: the relevance of each channel of ``node`` to its neuron, summed over the sites; for
    classes, which have no relevance, the channel's mean activation.

    ``neurons`` has the neuron of every reference, and a crop's rows are the references that show it; one that no crop
    shows has zeros. The other arguments are those of `measure`. It costs what `measure` costs for one node, without its
    sorting.
    """
    vectors: np.ndarray | None = None
    source = iter(crops)
    with attribution.passes(model, [node], neurons) as passes:
        while part := list(islice(source, batch)):
            activations = passes.forward([crop.pixels for crop in part])
            for of, asked, asked_of in rounds([crop.rows for crop in part], neurons, activations[node].device):
                progress(len(of))
                if attribution.inner:
                    values = asked_of(passes.relevance(activations, [node], asked)[node]).sum(-1)
                else:
                    values = asked_of(activations[node]).mean(-1)
                arrived = widened(values.detach()).numpy(force=True)
                if vectors is None:
                    vectors = np.zeros((len(neurons), arrived.shape[1]), arrived.dtype)
                vectors[of] = arrived
    return np.zeros((len(neurons), 0), np.float32) if vectors is None else vectors


def photo_vectors(
    model: Model,
    attribution: Attribution,
    neurons: Int[np.ndarray, "photo"],
    pixels: Num[Tensor, "photo colour side side"],
    node: str,
    *,
    batch: int = 8,
) -> Float[np.ndarray, "photo channel"]:
    """What a neuron's facets are told apart by, of photographs, each for the neuron of its place in ``neurons``: the
    importance of each channel of ``node``, of which a facet's target has the mean over its references
    (`vital.network.neurons.importance`). For classes, which have no relevance, the channel's mean activation; that is
    the mean of a target's sorted rows. Zeros where nothing of a photograph reaches the neuron.
    """
    vectors = []
    with rounding(), attribution.passes(model, [node], neurons.tolist()) as passes:
        for start in range(0, len(pixels), batch):
            some = slice(start, start + batch)
            activations = passes.forward(list(pixels[some]))
            if attribution.inner:
                asked = torch.from_numpy(neurons[some].astype(np.int64)).to(activations[node].device)
                vectors.append(importance(passes.relevance(activations, [node], asked)[node].detach()))
            else:
                vectors.append(activations[node].mean(-1))
    return torch.cat(vectors).float().numpy(force=True)
