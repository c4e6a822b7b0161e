"""How unlike photographs a network itself treats a picture on the way to its neuron.

Geirhos et al., "Don't trust your eyes: on the (un)reliability of feature visualizations" (ICML 2024), compare, layer by
layer, how similar a visualization's activations are to those of natural images, on a scale that natural images set
themselves. Activations are means over sites here, since a picture has no layout in common with any photograph; and
similarity is Spearman's, which neither contrast nor a few large channels decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vital.network.arithmetic import rounding
from vital.network.models import Model
from vital.network.probe import INPUT, Layout, anchor, probe

Passed = Mapping[str, Float[np.ndarray, "_image _channel"]]
"""By node: the mean of each channel over sites, of every image."""


@rounding()
def passed(
    model: Model, nodes: Sequence[str], pixels: UInt8[Tensor, "image colour row column"], layouts: dict[str, Layout]
) -> dict[str, Float[np.ndarray, "_image _channel"]]:
    """What images give at some nodes, the input left out; they are of the network's side."""
    inner = [node for node in nodes if node != INPUT]
    if not inner:
        return {}
    images = pixels.to(anchor(model.network).device)
    with torch.inference_mode(), probe(model.network, inner, layouts) as run:
        activations = run(model.preprocessing.normalise(images))
        return {node: activations[node].float().mean(2).numpy(force=True) for node in inner}


def joined(parts: Sequence[Passed]) -> dict[str, Float[np.ndarray, "_image _channel"]]:
    """What several batches gave, one after the other."""
    return {node: np.concatenate([part[node] for part in parts]) for node in (parts[0] if parts else ())}


def processing_gap(
    pictures: Passed, references: Passed, rows: Sequence[Int[np.ndarray, "_reference"]]
) -> Float[np.ndarray, "neuron"]:
    """(s − p) / (s − o), of similarities averaged over nodes: p of a neuron's picture to its references, which are
    ``rows`` of all, s of these among each other, o of these to the references of other neurons. 0: as near as they are
    to each other; 1: as far as images of other neurons; more: farther.

    s − o is the mean over neurons, since that of one may be nearly 0. NaN for a neuron with fewer than two references,
    and for all where those of a neuron are no nearer to each other than to others.
    """
    near, among, apart = np.zeros((3, len(rows)))
    for node, values in references.items():
        own, all_of = _comparable(pictures[node]), _comparable(values)
        total = all_of.sum(0)
        for neuron, mine in enumerate(rows):
            count, theirs = len(mine), len(all_of) - len(mine)
            if count < 2 or not theirs:
                near[neuron] = among[neuron] = apart[neuron] = np.nan
                continue
            whole = all_of[mine].sum(0)
            near[neuron] += own[neuron] @ whole / count
            among[neuron] += (whole @ whole - np.square(all_of[mine]).sum()) / (count * (count - 1))
            apart[neuron] += whole @ (total - whole) / (count * theirs)
    scale = among - apart
    if not np.isfinite(scale).any() or (usual := float(np.nanmean(scale))) <= 0:
        return np.full(len(rows), np.nan)
    gap: np.ndarray = (among - near) / usual
    return gap


def _comparable(values: Float[np.ndarray, "image channel"]) -> Float[np.ndarray, "image channel"]:
    """Ranks of an image's channels, equal ones sharing theirs, centred and of length one: their products are
    Spearman's correlations. Images whose channels are all equal have none: zeros."""
    ranks = np.empty(values.shape)
    for image, row in enumerate(values):
        order = np.sort(row)
        ranks[image] = np.searchsorted(order, row, "left") + np.searchsorted(order, row, "right")
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    scaled: np.ndarray = ranks / np.where(length > 0, length, 1)
    return scaled
