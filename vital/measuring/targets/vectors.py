"""References as vectors: which channels of an earlier node had to do with a neuron's activation on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float

from vital.measuring.targets.passes import Crop, forwarding, node_relevance, rounds
from vital.network.arithmetic import widened
from vital.network.models import Model
from vital.network.neurons import Readout
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
            for of, asked, here in rounds([crop.rows for crop in part], neurons, activations[node].device):
                progress(len(of))
                if inner:
                    values = here(node_relevance(mode, activations, reads, [node], asked, kind)[node]).sum(-1)
                else:
                    values = here(activations[node]).mean(-1)
                found = widened(values.detach()).numpy(force=True)
                if vectors is None:
                    vectors = np.zeros((len(neurons), found.shape[1]), found.dtype)
                vectors[of] = found
    return np.zeros((len(neurons), 0), np.float32) if vectors is None else vectors
